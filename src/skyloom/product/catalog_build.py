"""Makes a catalogue from candidates: chooses detections, measures them, writes the files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from skyloom.datamodule.candidate_table import IMAGES, CandidateTable
from skyloom.product.catalog_files import write_catalogs
from skyloom.product.catalog_photometry import PhotometryOptions
from skyloom.product.catalog_pieces import FOUND, Measuring, RowsTask, image_choice, make_rows
from skyloom.product.catalog_select import REASONS, Choice, choose
from skyloom.product.row_groups import write_row_groups
from skyloom.progress import progress
from skyloom.store import Artifact, Build, builds, of_kind

CATALOG = "catalog.parquet"
CHOSEN, COUNTS = "chosen", "counts.json"
Part = Annotated[float, Field(ge=0, le=1)]


class Photometry(BaseModel):
    """``photometry`` of conf/product/catalog.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool
    overlap: Literal["split", "double"]
    psf_size_arcsec: PositiveFloat
    refine: bool
    background_arcsec: tuple[NonNegativeFloat, PositiveFloat] | None
    psf: dict[str, dict[str, Any]] | None

    @field_validator("background_arcsec")
    @classmethod
    def _ring(cls, radii: tuple[float, float] | None) -> tuple[float, float] | None:
        if radii is not None and radii[0] >= radii[1]:
            raise ValueError("background_arcsec: expected [inner, outer] radii of a ring, the outer one larger")
        return radii

    def parameter(self) -> dict[str, Any]:
        """For the request: nothing but that fluxes are not wanted, where they are not."""
        return self.model_dump() if self.enabled else {"enabled": False}


class SeamOptions(BaseModel):
    """``seams`` of conf/product/catalog.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seam_px: NonNegativeFloat
    same_iou: Part

    def parameter(self) -> dict[str, Any]:
        """For the request."""
        return self.model_dump()


def unused_options(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Options that are not read: an artifact of thresholds says score and nms; cutouts have no seams."""
    said = () if values["thresholds"] is None else ("score", "nms")
    return said if CandidateTable(values["candidates"]).tiled else (*said, "seams")


@builds(
    "catalog",
    version=2,
    inputs={"candidates": of_kind("candidates"), "thresholds": of_kind("thresholds")},
    free=("images", "shard_images", "workers", "image_roots"),
    unused=unused_options,
    pieces=True,
)
def catalog(
    build: Build,
    *,
    candidates: Artifact,
    thresholds: Artifact | None,
    score: Part,
    nms: Part,
    top_k: PositiveInt,
    across_classes: bool,
    seams: SeamOptions,
    photometry: Photometry,
    formats: list[Literal["fits", "votable", "ds9"]],
    images: Any,
    shard_images: PositiveInt,
    workers: PositiveInt,
    image_roots: str | None,
) -> None:
    """Make a catalogue; see :func:`skyloom.product.catalog.catalog`."""
    table = CandidateTable(candidates)
    if thresholds is not None:
        score, nms = float(thresholds.notes["score"]), float(thresholds.notes["nms"])
    measuring = None
    if photometry.enabled:
        options = PhotometryOptions(**{key: value for key, value in photometry if key != "enabled"})
        measuring = Measuring(image_choice(candidates, images, image_roots), options)
        measuring.open()  # tells what is wrong before the work
    choice = Choice(score, nms, top_k, across_classes, seams.seam_px, seams.same_iou)
    folder = build.shard(CHOSEN, lambda path: _select(path, table, choice))
    left = json.loads((folder / COUNTS).read_text())
    total = len(table.images)
    spans = [(start, min(start + shard_images, total)) for start in range(0, total, shard_images)]
    tasks = {
        f"rows-{start:012d}-{stop:012d}": RowsTask(candidates, folder, start, stop, measuring) for start, stop in spans
    }
    with progress(len(tasks), "catalog", "pieces") as bar:
        pieces = build.shards_in_parallel(tasks, make_rows, workers=workers, done=bar.advance)
    schema = {"id": pl.Int64, **pl.read_parquet_schema(pieces[0])}
    with build.write(CATALOG) as path:
        written = write_row_groups(path, pieces, schema, number="id")
    with build.write(IMAGES) as path:
        table.images.write_parquet(path, compression="zstd")
    scale = candidates.notes["pixel_scale_arcsec"]
    write_catalogs(build, pl.read_parquet(build.path / CATALOG), formats, pixel_scale_arcsec=scale)
    build.table = CATALOG
    build.count(images=total, read=candidates.counts["kept"], kept=written)
    for reason, why in REASONS.items():
        build.drop(reason, left[reason], why=why)
    facts = {key: candidates.notes[key] for key in ("detector", "classes", "bands", "units", "pixel_scale_arcsec")}
    build.note(score=score, nms=nms, photometry=photometry.enabled, **facts)


def _select(path: Path, table: CandidateTable, choice: Choice) -> None:
    chosen = choose(table, choice)
    path.mkdir()
    chosen.found.write_parquet(path / FOUND)
    (path / COUNTS).write_text(json.dumps(chosen.left))
