"""From the tables of a data set back to images with annotations as DeepDISC and detectron2 read them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from skyloom.datamodule.coco_dataset import BOX
from skyloom.sky.mask.polygon import outlines
from skyloom.sky.mask.rle import decode
from skyloom.step.deepdisc_import.annotations import XYWH
from skyloom.step.deepdisc_import.objects import SCHEMA

_OWN = {*SCHEMA, "annotation_id"}


@dataclass(frozen=True)
class Layout:
    """How annotations are written.

    Attributes
    ----------
    masks : str
        ``polygons``: outlines through the centres of pixels; ``rle``: compressed run lengths.
    as_given : bool
        Boxes and polygons of imported annotations as their file had them, instead of clipped to the image.
    json_columns : tuple of str
        Columns that hold JSON.
    """

    masks: Literal["polygons", "rle"]
    as_given: bool
    json_columns: tuple[str, ...] = ()


def record_of(image: Mapping[str, Any], objects: list[dict[str, Any]], layout: Layout) -> dict[str, Any]:
    """One image with its annotations.

    Parameters
    ----------
    image
        Row of ``images.parquet``.
    objects
        Its rows of ``annotations.parquet``.
    layout
        How they are written.
    """
    if image.get("record") is not None:
        record = json.loads(image["record"])
    else:
        record = {
            "file_name": image["file_name"],
            "image_id": image["image_id"],
            "height": image["height_px"],
            "width": image["width_px"],
            "tile": image["tile"],
            "cutout_id": image["cutout_id"],
            "wcs": image["fits_header"],
        }
    shape = (image["height_px"], image["width_px"])
    return {**record, "annotations": [_annotation(row, shape, layout) for row in objects]}


def _annotation(row: Mapping[str, Any], shape: tuple[int, int], layout: Layout) -> dict[str, Any]:
    imported = row.get("bbox_given") is not None
    box = [_whole(row[name]) for name in BOX]
    found = {"bbox": box, "bbox_mode": XYWH, "segmentation": _segmentation(row, shape, layout),
             "category_id": row["category_id"]}  # fmt: skip
    if imported:
        if layout.as_given:
            found |= {"bbox": [_whole(value) for value in row["bbox_given"]], "bbox_mode": row["bbox_mode_given"]}
        return found | _others(row, layout)
    point = (row["keypoint_x_px"], row["keypoint_y_px"])
    found |= {"area": box[2] * box[3], "obj_id": _id(row["object_id"]), "ra": row["ra_deg"], "dec": row["dec_deg"]}
    if all(value is not None and math.isfinite(value) for value in point):
        found["keypoints"] = [*point, 2]
    return found | {key: value for key, value in _others(row, layout).items() if key not in found}


def _others(row: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """All columns that are not the data set's own, under the names that DeepDISC knows; NaN becomes null."""
    found = {}
    for column, value in row.items():
        if column in _OWN:
            continue
        key = column.removesuffix("_given") if column.removesuffix("_given") in _OWN else column
        if key.startswith("flux_"):
            key = key.removesuffix("_njy")
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        found[key] = json.loads(value) if column in layout.json_columns and value is not None else value
    return found


def _segmentation(row: Mapping[str, Any], shape: tuple[int, int], layout: Layout) -> Any:
    given = row.get("segmentation")
    if layout.as_given and given is not None:
        return [[_whole(value) for value in polygon] for polygon in given]
    if layout.masks == "rle":
        return {"size": list(shape), "counts": row["rle"]}
    # detectron2 refuses polygons of fewer than three points: a pixel or a line repeats its last point
    found = outlines(decode(row["rle"], shape))
    return [[_whole(value) for value in polygon + polygon[-2:] * (3 - len(polygon) // 2)] for polygon in found]


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def _id(text: str) -> str | int:
    return int(text) if text.isdecimal() else text
