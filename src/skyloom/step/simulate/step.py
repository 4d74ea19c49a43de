"""step=simulate: a small survey in the true layout, for demos, tests and trials."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from skyloom.errors import ConfigError
from skyloom.progress import progress
from skyloom.sky.simulated.lotss_layout import Pointing, mosaic_rng, source_rng, survey_layout
from skyloom.sky.simulated.lotss_scene import render_mosaic, write_mosaic
from skyloom.sky.simulated.lotss_sources import make_sources
from skyloom.step.images import SurveyFacts
from skyloom.store import Build, builds

Fraction = Annotated[float, Field(ge=0, lt=1)]
SKY = "sky.parquet"


@dataclass(frozen=True)
class _MosaicTask:
    """What a process needs to draw one mosaic; ``number`` names its random stream."""

    pointing: Pointing
    number: int
    sources: Path
    size_px: int
    rms_jy_per_beam: float
    blank_fraction: float
    seed: int


@builds("images", version=1, free=("workers",), pieces=True)
def simulate(
    build: Build,
    *,
    survey: SurveyFacts,
    mosaics: PositiveInt,
    size_px: PositiveInt,
    sky_overlap: Fraction,
    blank_fraction: Fraction,
    sources_per_deg2: PositiveFloat,
    double_fraction: Fraction,
    bent_fraction: Fraction,
    diffuse_fraction: Fraction,
    rms_jy_per_beam: NonNegativeFloat,
    workers: PositiveInt,
    seed: NonNegativeInt,
) -> None:
    """Simulate a survey like LoTSS DR2.

    Writes ``mosaics/<ID>/mosaic-blanked.fits`` (2-D, big-endian float64, Jy/beam, NaN-blanked edges) and
    ``mosaics/<ID>/mosaic.pybdsmmask.fits`` (4-D float32) for each mosaic, and ``sources.parquet`` (what was
    drawn where). One sky catalogue serves all mosaics, so overlapping ones show the same sources.

    Parameters
    ----------
    build
        Where to write.
    survey
        Facts of the survey; only ``lotss`` can be simulated.
    mosaics
        Number of mosaics, on a grid.
    size_px
        Side of a mosaic in pixels.
    sky_overlap
        Part of a mosaic's side that it shares with its neighbour.
    blank_fraction
        Part of the pixels that is blanked at the edge.
    sources_per_deg2
        Density of sources per square degree.
    double_fraction, bent_fraction, diffuse_fraction
        Shares of these kinds; the rest is compact.
    rms_jy_per_beam
        Noise.
    workers
        Mosaics drawn at the same time, each by a process.
    seed
        Start of all random streams; each mosaic has its own.

    Raises
    ------
    ConfigError
        For a survey that cannot be simulated, or a value out of range.
    """
    if survey.name != "lotss":
        raise ConfigError(f"survey={survey.name} cannot be simulated; choose survey=lotss")
    pointings = survey_layout(mosaics, size_px, sky_overlap=sky_overlap)

    def draw_sky(path: Path) -> None:
        make_sources(
            source_rng(seed),
            pointings,
            size_px=size_px,
            sources_per_deg2=sources_per_deg2,
            double_fraction=double_fraction,
            bent_fraction=bent_fraction,
            diffuse_fraction=diffuse_fraction,
        ).write_parquet(path)

    sky = build.shard(SKY, draw_sky)
    tasks = {
        f"{i:06d}": _MosaicTask(pointing, i, sky, size_px, rms_jy_per_beam, blank_fraction, seed)
        for i, pointing in enumerate(pointings)
    }
    with progress(len(tasks), "simulate", "mosaics") as bar:
        pieces = build.shards_in_parallel(
            tasks, _draw_mosaic, workers=workers, done=bar.advance, describe=lambda task: task.pointing.name
        )
    tables = pl.concat([pl.read_parquet(piece / "sources.parquet") for piece in pieces])
    with build.write("mosaics") as folder:
        folder.mkdir()
        for piece, pointing in zip(pieces, pointings, strict=True):
            (folder / pointing.name).mkdir()
            for file in (piece / pointing.name).iterdir():
                (folder / pointing.name / file.name).hardlink_to(file)  # the pieces go when the artifact is whole
    with build.write("sources.parquet") as path:
        tables.write_parquet(path)
    build.table = "sources.parquet"
    sources = len(pl.read_parquet(sky))
    build.count(mosaics=len(pointings), sources=sources, sources_on_images=tables["source_id"].n_unique())
    build.note(survey=survey.name, unit=survey.unit)


def _draw_mosaic(folder: Path, task: _MosaicTask) -> None:
    mosaic = render_mosaic(
        mosaic_rng(task.seed, task.number),
        pl.read_parquet(task.sources),
        task.pointing,
        size_px=task.size_px,
        rms_jy_per_beam=task.rms_jy_per_beam,
        blank_fraction=task.blank_fraction,
    )
    folder.mkdir()
    write_mosaic(folder / mosaic.name, mosaic)
    mosaic.sources.with_columns(pl.lit(mosaic.name).alias("image")).write_parquet(folder / "sources.parquet")
