"""Pieces of step=simulate survey=roman_lsst: one tile or patch each, and the tables of the whole survey at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from skyloom.sky.simulated.joint_layout import Field, place_of
from skyloom.sky.simulated.joint_tables import lsst_extras, truth_columns
from skyloom.sky.simulated.lsst_scene import write_patch
from skyloom.sky.simulated.roman_scene import write_tile
from skyloom.sky.survey.bands import Band
from skyloom.sky.survey.facts import Survey

COUNTS, OBJECTS = "counts.parquet", "objects.parquet"
F184 = Band("F184", 31.5, 1842.0, {"model": "airy", "diameter_m": 2.36, "obscuration": 0.32}, None)
"""A band of which Roman's truth has magnitudes and the data set no images."""


@dataclass(frozen=True)
class SceneTask:
    """What a process needs to draw one tile or patch."""

    field: Field
    survey: Survey
    sky: Path
    depth_mag: Mapping[str, float]
    seed: int
    blemishes: bool
    hole: tuple[float, float, float] | None


def draw_field(folder: Path, task: SceneTask) -> None:
    """Draw one tile or patch into a folder, below the name of its survey."""
    sky = pl.read_parquet(task.sky)
    folder.mkdir()
    below = folder / task.survey.name
    below.mkdir()
    counts = {"truth": 0, "detections": 0, "objects": 0}
    common = {"depth_mag": task.depth_mag, "seed": task.seed}
    if task.field.patch:
        objects = write_patch(below, task.field, sky, task.survey, hole=task.hole, **common)  # type: ignore[arg-type]
        objects.write_parquet(folder / OBJECTS)
        counts["objects"] = len(objects)
    else:
        more = unseen_bands(task.survey)
        counts |= write_tile(
            below, task.field, sky, task.survey, blemishes=task.blemishes, more_bands=more, **common  # type: ignore[arg-type]
        )  # fmt: skip
    pl.DataFrame([counts]).write_parquet(folder / COUNTS)


def unseen_bands(roman: Survey) -> list[Band]:
    """Bands of which Roman's truth has magnitudes and the survey has no images."""
    return [] if any(band.name == F184.name for band in roman.bands) else [F184]


def write_whole_tables(
    folder: Path, lsst: Survey, sky: pl.DataFrame, patches: Sequence[Field], objects: Sequence[Path]
) -> None:
    """Tables of the true and of the detected objects of all patches."""
    ra, dec = (sky[name].to_numpy() for name in ("ra_deg", "dec_deg"))
    on = np.full(len(sky), -1)
    for i in reversed(range(len(patches))):  # where tracts overlap, the first one's patch
        row0, row1, col0, col1 = patches[i].inner
        x, y = patches[i].positions(ra, dec)
        on[(x >= col0 - 0.5) & (x < col1 - 0.5) & (y >= row0 - 0.5) & (y < row1 - 0.5)] = i
    inside = sky.filter(pl.Series(on >= 0))
    on = on[on >= 0]
    tract = np.array([patch.tract for patch in patches])[on]
    columns = truth_columns(inside, lsst) | lsst_extras(inside, tract, [patches[i].patch for i in on])
    table = pl.DataFrame(columns, nan_to_null=True)
    assert lsst.truth is not None
    table = table.with_columns(pl.col(lsst.truth.column("object_id")).cast(pl.String))
    table.write_parquet(folder / place_of(lsst, "truth"))
    pl.concat([pl.read_parquet(path) for path in objects]).write_parquet(folder / place_of(lsst, "detections"))
