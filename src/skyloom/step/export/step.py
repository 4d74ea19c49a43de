"""step=export: a data set, or a part of it, as files that other programs read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl

from skyloom.datamodule.coco_dataset import ANNOTATIONS, CATEGORIES, IMAGES, in_part
from skyloom.errors import InputError
from skyloom.progress import Bar, progress
from skyloom.step.coco_json import write_coco
from skyloom.step.dataset_files import annotation_frames, row_groups
from skyloom.step.export.deepdisc import Layout, record_of
from skyloom.store import Artifact, Build, builds, of_kind

Objects = tuple[int | None, list[dict[str, Any]]]
NOTHING: Objects = (None, [])


@builds("export", version=1, inputs={"dataset": of_kind("dataset")})
def export(
    build: Build,
    *,
    dataset: Artifact,
    format: Literal["deepdisc", "coco"],
    part: str | None,
    masks: Literal["polygons", "rle"],
    as_given: bool,
) -> None:
    """Write the annotations of a data set for other programs.

    Writes ``<part>.json`` per part of the split, or that of the one part or subset asked for; ``all.json`` where there
    is no split.

    Parameters
    ----------
    build
        Where to write.
    dataset
        Artifact of kind ``dataset``.
    format
        ``deepdisc``: a list of images with their annotations, as DeepDISC and detectron2 read it; ``coco``.
    part
        Part or subset; None writes one file for each part of the split.
    masks
        Of ``deepdisc``: ``polygons`` or ``rle``. COCO files have run lengths.
    as_given
        Of ``deepdisc``: boxes and polygons of imported annotations as their file had them, also beyond the image.

    Raises
    ------
    ConfigError
        No such part.
    InputError
        The tables of the data set do not fit together.
    """
    images = dataset.table(IMAGES)
    if part is not None:
        groups = {part: images.filter(pl.Series(in_part(dataset, images, part)))}
    else:
        parts = images["split"].drop_nulls().unique().sort().to_list()
        groups = {name: images.filter(pl.col("split") == name) for name in parts} or {"all": images}
    source = dataset.file(ANNOTATIONS)
    layout = Layout(masks, as_given, tuple(dataset.notes.get("json_columns", ())))
    categories = json.loads(dataset.file(CATEGORIES).read_text())
    counts = {}
    with progress(len(groups) * row_groups(source), "export", "tiles") as bar:
        for name, rows in groups.items():
            with build.write(f"{name}.json") as path:
                if format == "coco":
                    counts[name] = write_coco(path, rows, annotation_frames(source), categories, {"part": name}, bar)
                else:
                    counts[name] = _write_list(path, rows, source, layout, bar)
            if counts[name] != rows["annotations"].sum():
                raise InputError(
                    f"dataset {dataset.id}: {ANNOTATIONS} holds {counts[name]} objects of {name}, {IMAGES} counts "
                    f"{rows['annotations'].sum()}; remove the artifact and make it again"
                )
    kept = sum(len(rows) for rows in groups.values())
    build.count(read=len(images), kept=kept, annotations=sum(counts.values()))
    build.drop("other part", len(images) - kept, why="not in the part that was asked for")
    build.note(format=format, parts={name: len(rows) for name, rows in groups.items()})


def _write_list(path: Path, images: pl.DataFrame, source: Path, layout: Layout, bar: Bar) -> int:
    """Write a list of images with their annotations, tile by tile; returns the number of annotations."""
    number = 0
    found = _by_image(source, set(images["cutout_id"]), bar)
    id, objects = next(found, NOTHING)
    with path.open("w") as file:
        file.write("[")
        for k, image in enumerate(images.iter_rows(named=True)):
            own = []
            if image["cutout_id"] == id:
                own = objects
                id, objects = next(found, NOTHING)
            number += len(own)
            file.write((",\n" if k else "\n") + json.dumps(record_of(image, own, layout)))
        file.write("\n]\n")
    return number


def _by_image(source: Path, ids: set[int], bar: Bar) -> Iterator[Objects]:
    for frame in annotation_frames(source):
        for group in frame.partition_by("cutout_id", maintain_order=True):
            id = int(group["cutout_id"][0])
            if id in ids:
                yield id, group.to_dicts()
        bar.advance()
