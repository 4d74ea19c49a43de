"""The tables behind a report on a data set, with as few columns as it needs."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from skyloom.datamodule.band_index import BandIndex
from skyloom.datamodule.coco_dataset import ANNOTATIONS, IMAGES, categories_of
from skyloom.store import Artifact


@dataclass(frozen=True)
class Tables:
    """What a report reads of a data set.

    Attributes
    ----------
    artifact : Artifact
        The data set.
    images : polars.DataFrame
        ``images.parquet``.
    objects : polars.DataFrame
        Of all objects: category_id, area_px, clipped and the magnitudes.
    magnitudes : list of str
        Columns of `objects`, in the order of the bands.
    categories : dict
        Names by number.
    index : BandIndex or None
        The pixels; None for a data set without cutouts.
    rejected : polars.DataFrame or None
        Reason and number of the objects that could not be annotated; None where nobody noted them.
    """

    artifact: Artifact
    images: pl.DataFrame
    objects: pl.DataFrame
    magnitudes: list[str]
    categories: dict[int, str]
    index: BandIndex | None
    rejected: pl.DataFrame | None

    def annotations_of(self, cutout_id: int) -> pl.DataFrame:
        """Masks and categories of one image."""
        scan = pl.scan_parquet(self.artifact.file(ANNOTATIONS)).filter(pl.col("cutout_id") == cutout_id)
        return scan.select("category_id", "rle").collect()

    def some(self, number: int, rng: np.random.Generator, *, with_objects: bool = False) -> list[int]:
        """Rows of at most ``number`` images, at random, ascending."""
        rows = (
            np.flatnonzero((self.images["annotations"] > 0).to_numpy()) if with_objects else np.arange(len(self.images))
        )
        return sorted(rng.choice(rows, min(number, len(rows)), replace=False).tolist())


def open_tables(artifact: Artifact, *, image_roots: str | None) -> Tables:
    """Read what a report needs.

    Raises
    ------
    StoreError
        The cutouts or annotations of the data set are not in the store.
    """
    scan = pl.scan_parquet(artifact.file(ANNOTATIONS))
    schema = scan.collect_schema()
    inputs = artifact.inputs
    index = BandIndex(inputs["cutouts"], image_roots=image_roots) if "cutouts" in inputs else None
    numbers = [name for name in schema if name.startswith("mag_") and schema[name].is_numeric()]
    bands = [f"mag_{band}" for band in index.bands] if index else []
    magnitudes = [name for name in bands if name in numbers] or numbers
    objects = scan.select("category_id", "area_px", "clipped", *magnitudes).collect()
    rejected = _rejected(inputs["annotations"]) if "annotations" in inputs else None
    return Tables(artifact, artifact.table(IMAGES), objects, magnitudes, categories_of(artifact), index, rejected)


def _rejected(annotations: Artifact) -> pl.DataFrame | None:
    names = [name for name in annotations.manifest["files"] if name.startswith("rejected/")]
    if not names:
        return None
    scans = [pl.scan_parquet(annotations.file(name)).select("reason") for name in names]
    return (
        pl.concat(scans).group_by("reason").len("number").sort("number", "reason", descending=[True, False]).collect()
    )
