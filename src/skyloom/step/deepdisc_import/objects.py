"""From one DeepDISC annotation to the columns of a data set: box in the image, mask, keypoint, everything else."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pycocotools import mask as coco

from skyloom.errors import InputError
from skyloom.sky.mask.polygon import fill_coco, fill_outlines
from skyloom.sky.mask.rle import box as box_of_mask
from skyloom.sky.mask.rle import encode
from skyloom.step.annotate.columns import ANNOTATION_COLUMNS
from skyloom.step.deepdisc_import.annotations import box_of, object_of, polygons_of

Filling = Literal["outline", "coco"]
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    **ANNOTATION_COLUMNS,
    "bbox_given": pl.List(pl.Float64),
    "bbox_mode_given": pl.Int8,
    "segmentation": pl.List(pl.List(pl.Float64)),
}
_TAKEN = ("bbox", "bbox_mode", "segmentation", "category_id")
JSON = "json"


@dataclass
class Tally:
    """What happened to boxes and masks."""

    clipped: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    boxes_from_masks: int = 0
    empty_masks: int = 0


def rows_of(
    record: Mapping[str, Any], cutout_id: int, filling: Filling, where: str, tally: Tally
) -> list[dict[str, Any]]:
    """The annotations of an image as rows of a table; those whose box lies outside of the image are left out.

    Parameters
    ----------
    record
        An image with its annotations.
    cutout_id
        Its id.
    filling
        How polygons are meant: ``outline`` through the centres of pixels, ``coco`` along their edges.
    where
        File and number of the image, for messages.
    tally
        Is added to.

    Raises
    ------
    InputError
        An annotation that cannot be read.
    """
    height, width = int(record["height"]), int(record["width"])
    rows = []
    for number, annotation in enumerate(record["annotations"]):
        place = f"{where}, annotation {number}"
        x0, y0, x1, y1 = box_of(annotation, place)
        counts = _mask(annotation, (height, width), filling, place)
        left, top, right, bottom = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
        clipped = (left, top, right, bottom) != (x0, y0, x1, y1)
        name = object_of(annotation, number)
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            tally.outside.append(f"{PurePath(where).name}: {name}")
            continue
        if clipped:
            tally.clipped.append(f"{PurePath(where).name}: {name}")
        extent = box_of_mask(counts, (height, width))
        if (right == left or bottom == top) and extent[2] > 0:
            left, top, right, bottom = extent[0], extent[1], extent[0] + extent[2], extent[1] + extent[3]
            tally.boxes_from_masks += 1
        tally.empty_masks += extent[2] == 0
        keypoint = annotation.get("keypoints") or [None, None]
        rows.append(
            {"cutout_id": cutout_id, "object_id": name, "category_id": _category(annotation, place),
             "bbox_x_px": left, "bbox_y_px": top, "bbox_w_px": right - left, "bbox_h_px": bottom - top,
             "area_px": int(coco.area({"size": [height, width], "counts": counts.encode()})), "rle": counts,
             "keypoint_x_px": keypoint[0], "keypoint_y_px": keypoint[1], "clipped": clipped,
             "ra_deg": annotation.get("ra"), "dec_deg": annotation.get("dec"),
             "bbox_given": [float(value) for value in annotation["bbox"]],
             "bbox_mode_given": annotation.get("bbox_mode", 1), "segmentation": polygons_of(annotation, place),
             JSON: {key: value for key, value in annotation.items() if key not in _TAKEN}}
        )  # fmt: skip
    return rows


def table_of(rows: list[dict[str, Any]], json_columns: set[str]) -> pl.DataFrame:
    """Rows as a table with the columns ``SCHEMA``, then every other key of the annotations under its own name.

    Parameters
    ----------
    rows
        As :func:`rows_of` gives them.
    json_columns
        Keys whose values are lists, mappings or of several kinds; they become text in JSON.

    Returns
    -------
    DataFrame
        One row per annotation; null where an annotation lacks a key.
    """
    table = pl.DataFrame([{k: v for k, v in row.items() if k != JSON} for row in rows], schema=SCHEMA)
    extras = list(dict.fromkeys(key for row in rows for key in row[JSON]))
    for key in extras:
        values = [row[JSON].get(key) for row in rows]
        if key in json_columns:
            values = [None if value is None else json.dumps(value) for value in values]
        table = table.with_columns(pl.Series(column_of(key), values, strict=False))
    return table


def column_of(key: str) -> str:
    """Column of a key of an annotation; one that a data set uses itself gets a suffix."""
    return f"{key}_given" if key in SCHEMA or key == "annotation_id" else key


def is_plain(values: list[Any]) -> bool:
    """Whether values of a key fit a column without loss: texts, truth values, or numbers."""
    kinds = {bool if isinstance(v, bool) else type(v) for v in values if v is not None}
    if kinds == {int, float}:
        return all(abs(v) <= 2**53 for v in values if isinstance(v, int))
    if kinds == {int}:
        return all(-(2**63) <= v < 2**63 for v in values if v is not None)
    return len(kinds) <= 1 and kinds <= {bool, int, float, str}


def _mask(annotation: Mapping[str, Any], shape: tuple[int, int], filling: Filling, where: str) -> str:
    polygons = polygons_of(annotation, where)
    if polygons is not None:
        mask: NDArray[np.bool_] = (fill_outlines if filling == "outline" else fill_coco)(polygons, shape)
        return encode(mask)
    found = annotation["segmentation"]
    if tuple(found["size"]) != shape:
        raise InputError(f"{where}: expected run lengths of an image of {list(shape)}, found {found['size']}")
    counts = found["counts"]
    return counts if isinstance(counts, str) else str(coco.frPyObjects(found, *shape)["counts"].decode())


def _category(annotation: Mapping[str, Any], where: str) -> int:
    value = annotation.get("category_id")
    if not isinstance(value, int) or not 0 <= value < 128:
        raise InputError(f"{where}: expected 'category_id' as a number from 0, found {value!r}")
    return value
