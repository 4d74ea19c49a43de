"""Writes annotations as a COCO file, image by image and tile by tile, so that no more than a tile is in memory."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from skyloom.datamodule.coco_dataset import BOX
from skyloom.progress import Bar

# What becomes a field of COCO; everything else is carried under its own name.
_REPLACED = {*BOX, "annotation_id", "area_px", "rle", "keypoint_x_px", "keypoint_y_px", "segmentation", "area", "bbox",
             "id", "image_id", "iscrowd", "keypoints", "num_keypoints", "bbox_given", "bbox_mode_given"}  # fmt: skip
KEYPOINT = {"keypoints": ["centroid"], "skeleton": []}


def write_coco(
    path: Path,
    images: pl.DataFrame,
    annotations: Iterable[pl.DataFrame],
    categories: Sequence[Mapping[str, Any]],
    info: Mapping[str, Any],
    bar: Bar | None = None,
) -> int:
    """Write one COCO file.

    Boxes are x, y, width, height with pixel i from i to i + 1; masks compressed run lengths; areas those of masks;
    keypoints, where there are any, x, y, 2 with the centre of the first pixel at 0. NaN and null become null.

    Parameters
    ----------
    path
        Where to write.
    images
        The images to write: cutout_id, image_id, file_name, height_px, width_px and more.
    annotations
        Frames of annotations; those of other images are left out.
    categories
        ``id`` and ``name`` of each.
    info
        Becomes the field ``info``.
    bar
        Told of each frame.

    Returns
    -------
    int
        Number of annotations written.
    """
    facts = images.select("cutout_id", "image_id", "height_px", "width_px")
    number = 0
    with path.open("w") as file:
        file.write(f'{{"info": {json.dumps(dict(info))},\n"categories": ')
        file.write(json.dumps([{**category, **KEYPOINT} for category in categories]))
        file.write(',\n"images": [\n')
        _write_rows(file, _image_rows(images), first=True)
        file.write('\n],\n"annotations": [\n')
        for frame in annotations:
            own = frame.join(facts, on="cutout_id", how="inner", maintain_order="left")
            _write_rows(file, _annotation_rows(own), first=number == 0)
            number += len(own)
            if bar is not None:
                bar.advance()
        file.write("\n]}\n")
    return number


def _image_rows(images: pl.DataFrame) -> pl.Series:
    kept = [name for name in images.columns if name not in ("image_id", "height_px", "width_px", "record")]
    fields = [pl.col("image_id").alias("id"), pl.col("height_px").alias("height"), pl.col("width_px").alias("width")]
    return images.select(pl.struct(*fields, *kept).struct.json_encode()).to_series()


def _annotation_rows(table: pl.DataFrame) -> pl.Series:
    box = [pl.col(name).cast(pl.Float64) for name in BOX]
    has_keypoint = (pl.col("keypoint_x_px").is_finite() & pl.col("keypoint_y_px").is_finite()).fill_null(False)
    keypoint = pl.concat_list("keypoint_x_px", "keypoint_y_px", pl.lit(2.0))
    fields = [
        pl.col("annotation_id").alias("id"),
        pl.col("image_id"),
        pl.concat_list(box).alias("bbox"),
        pl.col("area_px").alias("area"),
        pl.struct(size=pl.concat_list("height_px", "width_px"), counts="rle").alias("segmentation"),
        pl.lit(0).alias("iscrowd"),
        pl.when(has_keypoint).then(keypoint).otherwise(pl.lit([0.0, 0.0, 0.0])).alias("keypoints"),
        has_keypoint.cast(pl.Int8).alias("num_keypoints"),
    ]
    kept = [name for name in table.columns if name not in {*_REPLACED, "height_px", "width_px"}]
    return table.select(pl.struct(*fields, *kept).struct.json_encode()).to_series()


def _write_rows(file: TextIO, rows: pl.Series, *, first: bool) -> None:
    if len(rows):
        file.write(("" if first else ",\n") + ",\n".join(rows.to_list()))
