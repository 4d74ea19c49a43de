"""step=simulate: a small survey in the true layout, for demos, tests and trials."""

from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from skyloom.errors import ConfigError
from skyloom.progress import progress
from skyloom.sky.simulated.lotss_layout import mosaic_rng, source_rng, survey_layout
from skyloom.sky.simulated.lotss_scene import render_mosaic, write_mosaic
from skyloom.sky.simulated.lotss_sources import make_sources
from skyloom.step.images import SurveyFacts
from skyloom.store import Build, builds

Fraction = Annotated[float, Field(ge=0, lt=1)]


@builds("images", version=1)
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
    sources = make_sources(
        source_rng(seed),
        pointings,
        size_px=size_px,
        sources_per_deg2=sources_per_deg2,
        double_fraction=double_fraction,
        bent_fraction=bent_fraction,
        diffuse_fraction=diffuse_fraction,
    )

    def make(folder: Path, i: int) -> None:
        mosaic = render_mosaic(
            mosaic_rng(seed, i),
            sources,
            pointings[i],
            size_px=size_px,
            rms_jy_per_beam=rms_jy_per_beam,
            blank_fraction=blank_fraction,
        )
        folder.mkdir()
        write_mosaic(folder / mosaic.name, mosaic)
        mosaic.sources.with_columns(pl.lit(mosaic.name).alias("image")).write_parquet(folder / "sources.parquet")

    pieces = []
    with progress(len(pointings), "simulate", "mosaics") as bar:
        for i in range(len(pointings)):
            pieces.append(build.shard(f"{i:06d}", lambda folder, i=i: make(folder, i)))  # type: ignore[misc]
            bar.advance()
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
    build.count(mosaics=len(pointings), sources=len(sources), sources_on_images=tables["source_id"].n_unique())
    build.note(survey=survey.name, unit=survey.unit)
