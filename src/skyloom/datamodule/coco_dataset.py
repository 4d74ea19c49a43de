"""Reads a data set of annotated images: its images, the objects of each, and their masks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from skyloom.errors import ConfigError, InputError, unknown_choice
from skyloom.sky.mask.rle import decode
from skyloom.store import Artifact

IMAGES = "images.parquet"
ANNOTATIONS = "annotations.parquet"
CATEGORIES = "categories.json"
BOX = ("bbox_x_px", "bbox_y_px", "bbox_w_px", "bbox_h_px")
NEEDED = ("annotation_id", "cutout_id", "category_id", *BOX, "rle", "keypoint_x_px", "keypoint_y_px")


@dataclass(frozen=True)
class Dataset:
    """N images and their objects.

    Attributes
    ----------
    artifact : Artifact
        Of kind ``dataset``.
    images : polars.DataFrame
        N rows of ``images.parquet``: cutout_id, tile, file_name, height_px, width_px, split, subsets and more.
    annotations : polars.DataFrame
        M rows of ``annotations.parquet``; the objects of an image follow each other, in the order of `images`.
    first : ndarray
        int64 (N + 1,): the objects of image i are rows ``first[i]`` to ``first[i + 1] - 1`` of `annotations`.
    categories : dict
        Names by number: 0 galaxy, 1 star.
    """

    artifact: Artifact
    images: pl.DataFrame
    annotations: pl.DataFrame
    first: np.ndarray
    categories: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def cutout_id(self) -> np.ndarray:
        """int64 (N,)."""
        return self.images["cutout_id"].to_numpy()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names that :meth:`rows_of` takes: the parts of the split, and the subsets."""
        return parts_of(self.artifact, self.images)

    def rows_of(self, part: str | None) -> np.ndarray:
        """Rows of the images in a part or subset, int64, ascending; all for None.

        Raises
        ------
        ConfigError
            No such part.
        """
        return np.arange(len(self)) if part is None else np.flatnonzero(in_part(self.artifact, self.images, part))

    def objects(self, row: int) -> pl.DataFrame:
        """The annotations of one image, which may be none."""
        start, stop = (int(i) for i in self.first[row : row + 2])
        return self.annotations.slice(start, stop - start)

    def shape(self, row: int) -> tuple[int, int]:
        """Height and width of one image in pixels."""
        height, width = self.images.select("height_px", "width_px").row(row)
        return int(height), int(width)

    def boxes(self, row: int) -> np.ndarray:
        """Boxes of one image: float32 (n, 4), x0, y0, x1, y1 in pixels; pixel i spans i to i + 1."""
        boxes = self.objects(row).select(pl.col(BOX).cast(pl.Float32)).to_numpy().copy()
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    def labels(self, row: int) -> np.ndarray:
        """Category of each object of one image, int64 (n,)."""
        return self.objects(row)["category_id"].to_numpy().astype(np.int64)

    def centroids(self, row: int) -> np.ndarray:
        """Keypoint x, y of each object, float32 (n, 2), in pixels; the centre of the first pixel is 0; NaN: none."""
        points = self.objects(row).select(pl.col("keypoint_x_px", "keypoint_y_px").cast(pl.Float32).fill_null(np.nan))
        return points.to_numpy()

    def masks(self, row: int) -> np.ndarray:
        """Masks of one image, bool (n, H, W)."""
        shape = self.shape(row)
        counts = self.objects(row)["rle"].to_list()
        return np.stack([decode(one, shape) for one in counts]) if counts else np.zeros((0, *shape), bool)


def open_dataset(artifact: Artifact, *, columns: Sequence[str] | None = None, part: str | None = None) -> Dataset:
    """Read a data set.

    Parameters
    ----------
    artifact
        Of kind ``dataset``, made by step=assemble or step=deepdisc_import.
    columns
        Columns of the annotations to have beside boxes, masks, categories and keypoints; None takes all, which for
        millions of objects takes gigabytes.
    part
        Only the images in this part of the split, or in this subset; None takes all.

    Raises
    ------
    ConfigError
        No such part or column.
    InputError
        The artifact is no data set, or its tables do not fit together.
    """
    if artifact.kind != "dataset":
        raise InputError(f"{artifact.kind} {artifact.id} is no data set; expected one made by step=assemble")
    images = artifact.table(IMAGES)
    counts = images["annotations"].to_numpy().astype(np.int64)
    kept = np.ones(len(images), bool) if part is None else in_part(artifact, images, part)
    scan = pl.scan_parquet(artifact.file(ANNOTATIONS))
    there = scan.collect_schema().names()
    for name in columns or ():
        if name not in there:
            raise unknown_choice("column", name, there)
    if columns is not None:
        scan = scan.select(name for name in there if name in NEEDED or name in columns)
    if part is not None:
        scan = scan.filter(pl.col("cutout_id").is_in(images["cutout_id"].filter(pl.Series(kept)).implode()))
    annotations = scan.collect()
    images = images.filter(pl.Series(kept))
    first = np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64)
    if not np.array_equal(annotations["cutout_id"].to_numpy(), np.repeat(images["cutout_id"].to_numpy(), counts[kept])):
        raise InputError(
            f"dataset {artifact.id}: {ANNOTATIONS} does not hold the objects that {IMAGES} counts, image by image; "
            "remove the artifact and make it again"
        )
    return Dataset(artifact, images, annotations, first, categories_of(artifact))


def categories_of(artifact: Artifact) -> dict[int, str]:
    """Names of the categories of annotations or of a data set, by number."""
    entries: list[dict[str, Any]] = json.loads(artifact.file(CATEGORIES).read_text())
    return {int(entry["id"]): str(entry["name"]) for entry in entries}


def parts_of(artifact: Artifact, images: pl.DataFrame) -> tuple[str, ...]:
    """Names of the parts of a data set's split and of its subsets."""
    return (*images["split"].drop_nulls().unique().sort().to_list(), *artifact.notes.get("subsets", {}))


def in_part(artifact: Artifact, images: pl.DataFrame, part: str) -> np.ndarray:
    """Whether each image of a data set is in a part of its split or in a subset, bool (N,).

    Raises
    ------
    ConfigError
        No such part.
    """
    names = parts_of(artifact, images)
    if not names:
        raise ConfigError(f"part={part}: dataset {artifact.id} has no parts; part=null takes all of it")
    if part not in names:
        raise unknown_choice("part", part, names)
    column = pl.col(part) if part in artifact.notes.get("subsets", {}) else pl.col("split") == part
    return images.select(column.fill_null(False)).to_series().to_numpy()
