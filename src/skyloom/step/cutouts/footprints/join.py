"""Joins what was found of all footprints to the tables of the index, and counts the objects of the survey's tables."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from skyloom.datamodule.table_input import OUTSIDE
from skyloom.sky.geometry.footprint import sky_of
from skyloom.sky.geometry.sphere import cell_of
from skyloom.sky.survey.facts import Survey
from skyloom.step.cutouts.footprints.patches import Patches
from skyloom.step.cutouts.footprints.pieces import Placed
from skyloom.step.cutouts.table import HEALPIX_LEVEL
from skyloom.step.cutouts.tiles.columns import BAND_COLUMNS, PIECE_COLUMNS
from skyloom.step.cutouts.tiles.join import one_unit
from skyloom.store import Build

ONE = {"truth": "true object", "detections": "detection"}
WHY = {
    "of other class": "the class is neither a galaxy nor a star (survey.truth.classes)",
    "repeated": "an object of the same id stands before it in the same cutout",
}


def cutout_table(placed: Placed, matched: pl.DataFrame, patches: Patches, survey: Survey, source: str) -> pl.DataFrame:
    """Rows of ``cutouts.parquet`` in the order of the matched cutouts, with row, grid and place on it besides.

    Parameters
    ----------
    placed
        Where cutouts lie.
    matched
        The other survey's cutouts with their ``row``.
    patches
        The patches.
    survey, source
        Written into every row.
    """
    origin = {
        name: (int(corner[0]), int(corner[1]))
        for grid in patches.grids
        for name, corner in zip(grid.names, grid.rectangles, strict=True)
    }
    first = np.array([origin[name] for name in placed.table["image"]], np.int64).reshape(-1, 2)
    table = placed.table.with_columns(
        grid_row0=pl.col("row0") + pl.Series(first[:, 0]), grid_col0=pl.col("col0") + pl.Series(first[:, 1])
    ).join(matched.select("row", "cutout_id", "tile", "number", "file_name"), on="row", maintain_order="left")
    centre = np.empty((2, len(table)))
    for number, grid in enumerate(patches.grids):
        here = (table["grid"] == number).to_numpy()
        corner = table.filter(pl.Series(here)).select("grid_col0", "grid_row0", "width_px", "height_px").to_numpy()
        x, y = (corner[:, k] + (corner[:, k + 2] - 1) / 2 for k in (0, 1))
        centre[:, here] = sky_of(grid.wcs, x, y)
    empty = dict.fromkeys(("nan_frac", "rms", "peak", "peak_snr"))  # step=integrity measures pixels
    table = table.with_columns(
        size_px=pl.max_horizontal("height_px", "width_px"),
        ra_deg=pl.Series(centre[0]),
        dec_deg=pl.Series(centre[1]),
        healpix=pl.Series(cell_of(centre[0], centre[1], HEALPIX_LEVEL)),
        **{key: pl.lit(value) for key, value in {"survey": survey.name, "source": source, **empty}.items()},
    )
    extra = ["row", "grid", "grid_row0", "grid_col0", "covered", "parts"]
    return table.select(*BAND_COLUMNS, *extra).cast(BAND_COLUMNS).sort("row")


def write_tables(
    build: Build, kept: pl.DataFrame, pieces: pl.DataFrame, images: pl.DataFrame, told: Mapping[str, Path]
) -> None:
    """Write the tables of the index, with the images that are used, and give those of the tiles their place."""
    used = images.filter(pl.col("image").is_in(pieces["image"].unique().to_list()))
    build.note(unit=one_unit(used))
    tables = {
        "cutouts": kept.select(*BAND_COLUMNS),
        "images": used,
        "pieces": pieces.select(*PIECE_COLUMNS).cast(PIECE_COLUMNS),
    }
    for name, table in tables.items():
        with build.write(f"{name}.parquet") as path:
            table.write_parquet(path, compression="zstd", statistics=True)
    for name in ONE:
        sources = {tile: piece / f"{name}.parquet" for tile, piece in told.items()}
        if any(source.exists() for source in sources.values()):
            with build.write(name) as folder:
                folder.mkdir()
                for tile, source in sources.items():
                    (folder / f"{tile}.parquet").hardlink_to(source)
    build.table = "cutouts.parquet"


def count_objects(build: Build, told: Mapping[str, Path], read: Mapping[str, int]) -> None:
    """Count the rows of the survey's tables: each is kept (in one cutout or several) or left out for one reason."""
    for table, number in read.items():
        found = [np.load(piece / f"{table}.npz") for piece in told.values()]
        kept = np.unique(np.concatenate([one["kept"] for one in found]))
        gone: np.ndarray = kept
        build.count(**{f"{table}_read": number, f"{table}_kept": len(kept)})
        rows = [pl.scan_parquet(piece / f"{table}.parquet") for piece in told.values()]
        places = sum(part.select(pl.len()).collect().item() for part in rows)
        if rows and OUTSIDE in rows[0].collect_schema():
            beside = sum(part.select(pl.col(OUTSIDE).sum()).collect().item() for part in rows)
            build.count(**{f"{table}_beside_cutouts": beside})
            places -= beside
        build.count(**{f"{table}_in_cutouts": places})
        for reason, why in WHY.items():
            lost = np.setdiff1d(np.concatenate([one[reason] for one in found]), gone)
            build.drop(f"{ONE[table]} {reason}", len(lost), why=why)
            gone = np.union1d(gone, lost)
        build.drop(f"{ONE[table]} outside cutouts", number - len(gone), why="it lies in no cutout, or has no position")
