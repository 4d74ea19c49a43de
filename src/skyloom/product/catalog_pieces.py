"""One piece of a catalogue: the rows of some images, in this process or in a worker."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from skyloom.datamodule.candidate_table import CandidateTable
from skyloom.errors import ConfigError, InputError
from skyloom.product.catalog_photometry import Photometer, PhotometryOptions
from skyloom.product.catalog_rows import catalog_rows
from skyloom.product.detection_channels import Channels
from skyloom.product.detection_inputs import ImageChoice, open_images
from skyloom.product.seams import reaching_in
from skyloom.store import Artifact, Store

FOUND = "found.parquet"
SURVEYS = ("lsst", "roman")


@dataclass(frozen=True)
class Measuring:
    """The images to measure in, and how."""

    images: ImageChoice
    options: PhotometryOptions

    def open(self) -> Photometer:
        """Open the images."""
        return Photometer(self.images.open(), self.options)


@dataclass(frozen=True)
class RowsTask:
    """The images from row ``start`` to before ``stop``; ``chosen`` is the folder with all detections."""

    candidates: Artifact
    chosen: Path
    start: int
    stop: int
    measuring: Measuring | None

    def __str__(self) -> str:
        return f"images {self.start} to {self.stop}"


def make_rows(path: Path, task: RowsTask) -> None:
    """Write the rows of a catalogue as one Parquet file."""
    table = CandidateTable(task.candidates)
    every = pl.scan_parquet(task.chosen / FOUND)
    own = every.filter(pl.col("image_row").is_between(task.start, task.stop, closed="left")).collect()
    photometer = None if task.measuring is None else task.measuring.open()
    beside = _beside(every.collect(), table, task) if photometer is not None and table.tiled else {}
    rows = catalog_rows(own, beside, table.images, classes=table.classes, photometer=photometer)
    rows.write_parquet(path)


def image_choice(candidates: Artifact, images: Any, image_roots: str | None) -> ImageChoice:
    """The images that candidates were found in, to read them again.

    Parameters
    ----------
    candidates
        Of kind ``candidates``.
    images
        Where whole images lie, as given to product=candidates; not read for cutouts.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    ConfigError
        Whole images are not given.
    InputError
        They are not those in which the candidates were found.
    StoreError
        The cutouts or the data set are no longer in the store.
    """
    store = Store(candidates.path.parents[1])
    inputs, parameters, notes = candidates.manifest["inputs"], candidates.parameters, candidates.notes
    if inputs["images"] is not None:
        if images is None and "kind" not in inputs["images"]:
            raise ConfigError(
                f"candidates {candidates.id} were found in whole images: give them again, images=…, or "
                "photometry.enabled=false"
            )
        files = open_images(inputs["images"]["id"] if images is None else images, {}, store)
        if files.identity() != inputs["images"]:
            raise InputError(f"images=… are not those of candidates {candidates.id}; give the same files as there")
        bands = tuple((str(survey), str(band)) for survey, band in notes["bands"])
        wanted = bands if inputs["model"] is not None else None
        return ImageChoice({}, None, None, None, files, parameters["mosaic"], wanted, image_roots)
    needed = {role: inputs[role] for role in ("dataset", *SURVEYS)}  # the model may be gone
    opened = {role: entry and store.open(entry["id"], entry["kind"]) for role, entry in needed.items()}
    return ImageChoice(
        cutouts={survey: opened[survey] for survey in SURVEYS},
        dataset=opened["dataset"],
        part=parameters["part"],
        channels=Channels.of_options(notes["channels"]),
        files=None,
        mosaic={},
        bands=None,
        image_roots=image_roots,
    )


def _beside(every: pl.DataFrame, table: CandidateTable, task: RowsTask) -> dict[int, pl.DataFrame]:
    """Detections of other tiles that reach into those of the task."""
    reached = reaching_in(every, table.images)
    return {row: every[rows] for row, rows in reached.items() if task.start <= row < task.stop}
