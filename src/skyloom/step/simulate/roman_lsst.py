"""step=simulate survey=roman_lsst: a small Roman and LSST survey of one sky in the true layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field as Checked
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from skyloom.errors import ConfigError
from skyloom.progress import progress
from skyloom.sky.simulated.joint_layout import Field, lay_tiles
from skyloom.sky.simulated.joint_patches import lay_patches
from skyloom.sky.simulated.joint_sources import make_sky
from skyloom.sky.simulated.roman_scene import NAN_FROM, NAN_TO
from skyloom.sky.survey.bands import Band
from skyloom.sky.survey.facts import JointSurvey, Survey
from skyloom.step.images import JointFacts
from skyloom.step.simulate.pieces import COUNTS, OBJECTS, SceneTask, draw_field, unseen_bands, write_whole_tables
from skyloom.store import Build, builds

SKY = "sky.parquet"


@builds("images", version=1, free=("workers",), pieces=True)
def simulate_roman_lsst(
    build: Build,
    *,
    survey: JointFacts,
    tiles: PositiveInt,
    tile_px: Annotated[int, Checked(ge=64)],
    overlap_px: NonNegativeInt,
    tracts: PositiveInt,
    patch_px: Annotated[int, Checked(ge=16)],
    patch_border_px: NonNegativeInt,
    ra_deg: Annotated[float, Checked(ge=0, lt=360)],
    dec_deg: Annotated[float, Checked(ge=-90, le=90)],
    faintest_mag: PositiveFloat,
    crowding: NonNegativeFloat,
    stars_per_arcmin2: NonNegativeFloat,
    supernovae: NonNegativeInt,
    ebv_mag: NonNegativeFloat,
    depth_mag: dict[str, float],
    blemishes: bool,
    workers: PositiveInt,
    seed: NonNegativeInt,
) -> None:
    """Simulate Roman coadd tiles and LSST coadd patches of the same sky.

    Writes below ``roman`` per tile an image per band, a segmentation map, a table of detections and one of true
    objects; below ``lsst`` per patch an image per band, and two tables for the whole survey; names and columns are
    those that the surveys' files give. ``sources.parquet`` holds what was drawn.

    Parameters
    ----------
    build
        Where to write.
    survey
        Facts of both surveys, under ``roman`` and ``lsst``.
    tiles
        Number of Roman tiles, on a nearly square grid.
    tile_px
        Side of a tile in Roman pixels.
    overlap_px
        Width of the strip that neighbouring tiles share, in Roman pixels.
    tracts
        Number of LSST tracts that share the sky, each with a projection of its own.
    patch_px, patch_border_px
        Side of a patch's own area and width of the border around it, in LSST pixels.
    ra_deg, dec_deg
        Centre of the survey in degrees.
    faintest_mag
        Faintest i magnitude of the sources that are drawn.
    crowding
        Number of galaxies relative to the real sky.
    stars_per_arcmin2
        Density of stars.
    supernovae
        Number of objects that are neither galaxy nor star.
    ebv_mag
        E(B-V) of the dust of the Milky Way.
    depth_mag
        By band: magnitude of a point source with a signal-to-noise ratio of 5.
    blemishes
        Leave a square without values and a corner of zeros in the first tile, and a square without values in LSST.
    workers
        Images drawn at the same time, each by a process.
    seed
        Start of all random streams.

    Raises
    ------
    ConfigError
        A survey or the depth of a band is missing, or the tiles do not fit.
    """
    roman, lsst = _pair(survey)
    _check_depths([*roman.bands, *lsst.bands], depth_mag)
    place = {"ra_deg": ra_deg, "dec_deg": dec_deg}
    laid = lay_tiles(roman, tiles, tile_px, overlap_px=overlap_px, **place)
    patches = lay_patches(lsst, laid, tracts, inner_px=patch_px, border_px=patch_border_px, **place)

    def draw_sky(path: Path) -> None:
        sky = make_sky(
            np.random.default_rng(np.random.SeedSequence(seed)), [*laid, *patches],
            [*roman.bands, *unseen_bands(roman), *lsst.bands], faintest_mag=faintest_mag, crowding=crowding,
            stars_per_arcmin2=stars_per_arcmin2, supernovae=supernovae, ebv_mag=ebv_mag,
        )  # fmt: skip
        sky.write_parquet(path)

    drawn = build.shard(SKY, draw_sky)
    hole = _hole(laid[0]) if blemishes else None
    tasks = {
        f"{survey_.name}-{field.name}": SceneTask(
            field, survey_, drawn, depth_mag, seed, blemishes and field is laid[0], hole
        )
        for survey_, fields in ((roman, laid), (lsst, patches))
        for field in fields
    }
    with progress(len(tasks), "simulate", "images") as bar:
        pieces = build.shards_in_parallel(
            tasks, draw_field, workers=workers, done=bar.advance, describe=lambda task: task.field.name
        )
    sky = pl.read_parquet(drawn)
    for one in (roman, lsst):
        with build.write(one.name) as folder:
            folder.mkdir()
            for piece, task in zip(pieces, tasks.values(), strict=True):
                if task.survey is one:
                    _link(piece / one.name, folder)
            if one is lsst:
                write_whole_tables(folder, lsst, sky, patches, [piece / OBJECTS for piece in pieces[len(laid) :]])
    with build.write("sources.parquet") as path:
        sky.write_parquet(path)
    build.table = "sources.parquet"
    counts = pl.concat([pl.read_parquet(piece / COUNTS) for piece in pieces])
    build.count(
        tiles=len(laid), patches=len(patches), sources=len(sky),
        roman_truth=int(counts["truth"].sum()), roman_detections=int(counts["detections"].sum()),
        lsst_objects=int(counts["objects"].sum()),
    )  # fmt: skip
    build.note(
        survey=survey.name, tiles=[field.name for field in laid], patches=[field.name for field in patches],
        unit={one.name: one.unit for one in (roman, lsst)},
    )  # fmt: skip


def _pair(survey: JointSurvey) -> tuple[Survey, Survey]:
    for key in ("roman", "lsst"):
        if key not in survey.surveys or not survey.surveys[key].bands:
            raise ConfigError(
                f"survey={survey.name}: expected a survey with bands under '{key}', as survey=roman_lsst has."
            )
    return survey.surveys["roman"], survey.surveys["lsst"]


def _check_depths(bands: Sequence[Band], depth_mag: Mapping[str, float]) -> None:
    lost = [band.name for band in bands if band.name not in depth_mag]
    if lost:
        raise ConfigError(f"depth_mag has nothing for band {', '.join(lost)}; give depth_mag.{lost[0]}=MAG.")


def _hole(tile: Field) -> tuple[float, float, float]:
    """Middle and half side of a square without values in LSST: in the middle of a tile."""
    ra, dec = tile.wcs().all_pix2world([(tile.shape[1] - 1) / 2], [(tile.shape[0] - 1) / 2], 0)
    return float(ra[0]), float(dec[0]), (NAN_TO - NAN_FROM) / 2 * tile.shape[0] * tile.scale_arcsec


def _link(source: Path, target: Path) -> None:
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        new = target / file.relative_to(source)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.hardlink_to(file)  # the pieces go when the artifact is whole
