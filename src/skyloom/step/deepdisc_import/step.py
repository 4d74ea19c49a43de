"""step=deepdisc_import: lists of annotated images, as DeepDISC keeps them in JSON, as a data set of the store."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from skyloom.errors import InputError
from skyloom.step.cutouts.table import cutout_ids
from skyloom.step.dataset_files import joint_schema, write_annotations, write_coco_parts, write_images
from skyloom.step.deepdisc_import.annotations import AnnotationFiles, name_of, open_annotation_files, read_records
from skyloom.step.deepdisc_import.objects import SCHEMA, Tally, is_plain, rows_of, table_of
from skyloom.store import Artifact, Build, builds, of_kind


@builds("dataset", version=1, inputs={"files": open_annotation_files, "cutouts": of_kind("cutouts")})
def deepdisc_import(
    build: Build,
    *,
    files: AnnotationFiles,
    cutouts: Artifact | None,
    classes: Annotated[list[str], Field(min_length=1)],
    polygons: Literal["outline", "coco"],
    coco: bool,
) -> None:
    """Bring DeepDISC annotations into the store.

    Writes what step=assemble writes, and beside it, so that nothing is lost: ``record`` in ``images.parquet`` (the
    image's own keys as JSON), ``bbox_given``, ``bbox_mode_given`` and ``segmentation`` (boxes and polygons as they
    were) in ``annotations.parquet``, and all other keys of the annotations under their own names.

    Parameters
    ----------
    build
        Where to write.
    files
        JSON files, by part where they have one.
    cutouts
        Cutouts whose ``file_name`` the images have, so that their pixels are found; None: images without pixels.
    classes
        Names of the categories, from 0.
    polygons
        ``outline``: polygons run through the centres of pixels, as cv2.findContours draws them, and holes are
        outlines of their own; ``coco``: along edges of pixels, as pycocotools and detectron2 fill them.
    coco
        Write COCO files.

    Raises
    ------
    InputError
        A file that is not of this layout, an image twice, a box with a negative side, a category without a name, or
        an image that the cutouts do not have.
    """
    tally = Tally()
    tables: dict[str, pl.DataFrame] = {}
    rows: list[dict[str, Any]] = []
    known = None if cutouts is None else _cutouts_by_name(cutouts)
    json_columns = _mixed_keys(files)
    for number, (part, path, _) in enumerate(files.entries):
        key = f"{number:06d}"
        found: list[dict[str, Any]] = []
        for k, record in enumerate(read_records(path)):
            image = _image(record, k, part, key, path, known)
            objects = rows_of(record, image["cutout_id"], polygons, f"{path}, image {k}", tally)
            rows.append(image)
            found += objects
        tables[key] = table_of(found, json_columns)
    images = _images(rows)
    highest = max((int(t["category_id"].max() or 0) for t in tables.values()), default=0)  # type: ignore[arg-type]
    if highest >= len(classes):
        raise InputError(f"an annotation has category {highest}; classes names {len(classes)}, from 0: give them all")
    keys = images["tile"].unique(maintain_order=True).to_list()
    counts = write_annotations(build, images, keys, tables.__getitem__, joint_schema(t.schema for t in tables.values()))
    images = images.with_columns(counts, tile=pl.col("tile_name")).drop("tile_name")
    categories = [{"id": i, "name": name} for i, name in enumerate(classes)]
    write_images(build, images, categories)
    if coco:
        write_coco_parts(build, images, categories, {"description": f"skyloom dataset {build.request.id}"})
    written = int(counts.sum())
    repeated = sum(int(t.select("cutout_id", "object_id").is_duplicated().sum()) for t in tables.values())
    parts = dict(images["split"].drop_nulls().value_counts().sort("split").rows())
    build.count(
        read=len(images), kept=len(images), annotations_read=written + len(tally.outside), annotations=written,
        boxes_clipped=len(tally.clipped), boxes_from_masks=tally.boxes_from_masks, empty_masks=tally.empty_masks,
        without_objects=int((counts == 0).sum()), repeated_object_ids=repeated, **parts,
    )  # fmt: skip
    build.drop("box outside", len(tally.outside), why="no pixel of its box is in the image", examples=tally.outside)
    build.note(
        source="deepdisc", cutouts=cutouts.id if cutouts else None, parts=parts, subsets={}, polygons=polygons,
        boxes_clipped=tally.clipped[:20],
        categories={name: i for i, name in enumerate(classes)}, json_columns=sorted(json_columns),
    )  # fmt: skip


def _image(
    record: dict[str, Any], number: int, part: str | None, key: str, path: Path, known: dict[str, dict[str, Any]] | None
) -> dict[str, Any]:
    """Row of an image; with cutouts, what they say of it."""
    name = str(name_of(record))
    base = PurePath(name).name
    own = {k: v for k, v in record.items() if k != "annotations"}
    given = record.get("image_id")
    row = {
        "tile": key,
        "tile_name": record.get("tile"),
        "file_name": base,
        "number": given if isinstance(given, int) else number,
        "height_px": record["height"],
        "width_px": record["width"],
        "split": part,
        "ra_deg": None,
        "dec_deg": None,
        "fits_header": record.get("wcs"),
        "record": json.dumps(own),
    }
    if known is None:
        place = np.zeros(1, np.int64)
        return {**row, "cutout_id": int(cutout_ids("deepdisc", base, place, place, 0)[0])}
    cutout = known.get(base)
    if cutout is None:
        raise InputError(
            f"{path}, image {number}: the cutouts have no {base}; leave out cutouts=… or give those it is of"
        )
    if (cutout["height_px"], cutout["width_px"]) != (record["height"], record["width"]):
        raise InputError(
            f"{path}, image {number}: {base} has {record['height']} x {record['width']} px, the cutout of this name "
            f"{cutout['height_px']} x {cutout['width_px']}; the annotations are those of other cutouts"
        )
    return {**row, **cutout, "tile_name": cutout["tile"], "tile": key}


def _images(rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema = {"cutout_id": pl.Int64, "tile": pl.String, "tile_name": pl.String, "number": pl.Int64,
              "file_name": pl.String, "height_px": pl.Int32, "width_px": pl.Int32, "split": pl.String,
              "ra_deg": pl.Float64, "dec_deg": pl.Float64, "fits_header": pl.String, "record": pl.String}  # fmt: skip
    table = pl.DataFrame(rows, schema=schema)
    again = table.filter(pl.col("cutout_id").is_duplicated())
    if len(again):
        raise InputError(f"image {again['file_name'][0]} is in the files {len(again)} times; expected each image once")
    return table.select(pl.int_range(1, len(table) + 1, dtype=pl.Int64).alias("image_id"), pl.all())


def _cutouts_by_name(cutouts: Artifact) -> dict[str, dict[str, Any]]:
    table = cutouts.table("cutouts.parquet")
    columns = ("cutout_id", "tile", "number", "file_name", "height_px", "width_px", "ra_deg", "dec_deg")
    if lost := [name for name in columns if name not in table.columns]:
        raise InputError(f"cutouts {cutouts.id} have no column {lost[0]}; expected cutouts of a survey with bands")
    return {row["file_name"]: row for row in table.select(columns).iter_rows(named=True)}


def _mixed_keys(files: AnnotationFiles) -> set[str]:
    """Keys of annotations whose values fit no column."""
    values: dict[str, list[Any]] = {}
    for annotation in _annotations(files):
        for key, value in annotation.items():
            values.setdefault(key, []).append(value)
    return {key for key, found in values.items() if not is_plain(found)} - {"bbox", "segmentation", *SCHEMA}


def _annotations(files: AnnotationFiles) -> Iterator[dict[str, Any]]:
    for _, path, _ in files.entries:
        for record in read_records(path):
            yield from (a for a in record["annotations"] if isinstance(a, dict))
