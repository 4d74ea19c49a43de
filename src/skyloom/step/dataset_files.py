"""Writes the tables of a data set: images, their annotations in the same order, and COCO files of its parts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from skyloom.datamodule.coco_dataset import ANNOTATIONS, CATEGORIES, IMAGES
from skyloom.errors import InputError
from skyloom.progress import progress
from skyloom.step.coco_json import write_coco
from skyloom.store import Build

LISTED_FIRST = ("annotation_id", "cutout_id", "object_id", "category_id")


def write_annotations(
    build: Build,
    images: pl.DataFrame,
    keys: Sequence[str],
    read: Callable[[str], pl.DataFrame],
    schema: Mapping[str, Any],
) -> pl.Series:
    """Write ``annotations.parquet``, one row group per tile.

    Parameters
    ----------
    build
        Where to write.
    images
        The images of the data set in their order: cutout_id and ``tile``, all of a tile together.
    keys
        The tiles in the order of the images.
    read
        Gives the annotations of a tile; those of other images are left out.
    schema
        Columns and types of the whole table, without annotation_id.

    Returns
    -------
    Series
        ``annotations`` UInt32: the number of objects of each image.
    """
    place = images.select("cutout_id").with_row_index("_image")
    counts = []
    number = 0
    columns = ["annotation_id", *(name for name in LISTED_FIRST if name in schema),
               *(name for name in schema if name not in LISTED_FIRST)]  # fmt: skip
    empty = pl.DataFrame(schema={"annotation_id": pl.Int64, **schema}).select(columns)
    with (
        build.write(ANNOTATIONS) as path,
        _Writer(path, empty) as write,
        progress(len(keys), "objects", "tiles") as bar,
    ):
        for key in keys:
            frame = read(key).join(place, on="cutout_id", how="inner", maintain_order="left")
            frame = frame.sort("_image", maintain_order=True)
            counts.append(frame.group_by("_image").len("annotations"))
            frame = pl.concat([pl.DataFrame(schema=schema), frame.drop("_image")], how="diagonal_relaxed")
            frame = frame.with_columns(annotation_id=pl.int_range(1, len(frame) + 1, dtype=pl.Int64) + number)
            number += len(frame)
            write(frame.select(columns).cast(empty.schema))
            bar.advance()
    found = pl.concat([pl.DataFrame(schema={"_image": pl.UInt32, "annotations": pl.UInt32}), *counts])
    return place.join(found, on="_image", how="left", maintain_order="left")["annotations"].fill_null(0)


def write_images(build: Build, images: pl.DataFrame, categories: Sequence[Mapping[str, Any]]) -> None:
    """Write ``images.parquet``, the main table, and ``categories.json``."""
    with build.write(IMAGES) as path:
        images.write_parquet(path, compression="zstd")
    build.write_json(CATEGORIES, [dict(category) for category in categories])
    build.table = IMAGES


def write_coco_parts(
    build: Build, images: pl.DataFrame, categories: Sequence[Mapping[str, Any]], info: Mapping[str, Any]
) -> None:
    """Write one COCO file per part of the split, ``train.json``; ``all.json`` where there is no split."""
    parts = images["split"].drop_nulls().unique().sort().to_list()
    groups = {part: images.filter(pl.col("split") == part) for part in parts} or {"all": images}
    source = build.path / ANNOTATIONS
    with progress(len(groups) * row_groups(source), "COCO", "tiles") as bar:
        for part, rows in groups.items():
            with build.write(f"{part}.json") as path:
                written = write_coco(path, rows, annotation_frames(source), categories, {**info, "part": part}, bar)
            if written != rows["annotations"].sum():
                raise InputError(f"{part}.json has {written} objects, {IMAGES} counts {rows['annotations'].sum()}")


def annotation_frames(source: Path) -> Iterator[pl.DataFrame]:
    """The tiles of an ``annotations.parquet``, one after the other."""
    with pq.ParquetFile(source) as file:
        for group in range(file.num_row_groups):
            table = pl.from_arrow(file.read_row_group(group))
            assert isinstance(table, pl.DataFrame)
            yield table


def row_groups(source: Path) -> int:
    """Number of frames that :func:`annotation_frames` gives."""
    return int(pq.read_metadata(source).num_row_groups)


def joint_schema(frames: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns of all tables, with the widest type of each.

    Raises
    ------
    InputError
        A column is text in one table and a number in another.
    """
    empty = [pl.DataFrame(schema=dict(schema)) for schema in frames]
    try:
        return dict(pl.concat(empty, how="diagonal_relaxed").schema) if empty else {}
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the annotations of the tiles have columns of different types: {reason}") from error


class _Writer:
    """Context of a Parquet file that grows frame by frame; ``write(frame)`` adds a row group."""

    def __init__(self, path: Path, empty: pl.DataFrame) -> None:
        self._path, self._empty = path, empty

    def __enter__(self) -> Callable[[pl.DataFrame], None]:
        schema: pa.Schema = self._empty.to_arrow().schema
        self._file = pq.ParquetWriter(self._path, schema, compression="zstd")
        return lambda frame: self._file.write_table(frame.to_arrow().cast(schema))

    def __exit__(self, *_: object) -> None:
        self._file.close()
