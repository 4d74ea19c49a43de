"""Cuts tables of a whole survey down to the rows near cutouts, tile by tile, in one pass with little memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.sky.files.catalog_files import open_table
from skyloom.sky.geometry.sphere import cell_of, cell_size_arcsec, with_neighbours
from skyloom.sky.survey.bands import Band, TableFacts
from skyloom.store import Build

ROWS = 1 << 18  # rows of a table in memory at a time: 80 MB of 40 columns
ROW_GROUP = 1 << 12  # rows per group of the parts, so that those of one tile are found without reading the others
FINEST_LEVEL = 14  # cells of 13": finer ones would only make more of them
TILE, ROW = "__tile", "__row"


@dataclass(frozen=True)
class Regions:
    """Sky cells near the cutouts of each tile.

    Attributes
    ----------
    level : int
        HEALPix level of the cells.
    cells : polars.DataFrame
        cell, tile (its number): every cell within a cell's width of a cutout's centre.
    """

    level: int
    cells: pl.DataFrame

    @classmethod
    def around(cls, ra_deg: np.ndarray, dec_deg: np.ndarray, tile: np.ndarray, radius_arcsec: float) -> "Regions":
        """Cells around positions (N,) of tiles (N,) that hold all within a radius of them."""
        level = FINEST_LEVEL
        while level > 0 and cell_size_arcsec(level) < 2 * radius_arcsec:
            level -= 1
        centres = cell_of(ra_deg, dec_deg, level)
        found = [
            pl.DataFrame({"cell": with_neighbours(np.unique(centres[tile == one]), level)}).with_columns(
                pl.lit(int(one)).alias(TILE)
            )
            for one in np.unique(tile)
        ]
        return cls(level, pl.concat(found))


@dataclass(frozen=True)
class PartTask:
    """What a worker needs to look through a part of a table."""

    path: Path
    first: int
    rows: int | None
    """None: all, of a table that cannot be read by parts"""
    ra: str
    dec: str
    regions: Regions


def row_parts(path: Path) -> list[tuple[int, int | None]]:
    """First row and number of rows of the parts of a table."""
    if path.suffix != ".parquet":
        return [(0, None)]
    total = pl.scan_parquet(path).select(pl.len()).collect().item()
    return [(first, min(ROWS, total - first)) for first in range(0, total, ROWS)] or [(0, 0)]


def select_part(path: Path, task: PartTask) -> None:
    """Write the piece of a part: its rows near cutouts with ``TILE`` and ``ROW`` (from 0), sorted by tile.

    A row that is near cutouts of several tiles is there for each.
    """
    place = [pl.col(task.ra).cast(pl.Float64).alias("ra"), pl.col(task.dec).cast(pl.Float64).alias("dec")]
    if task.rows is None:
        whole = _read(task.path)
        rows = _near(whole.select(place), task)
        near = whole[rows["at"].to_numpy()]
    else:
        part = pl.scan_parquet(task.path).slice(task.first, task.rows)
        rows = _near(part.select(place).collect(), task)
        near = (part.collect() if len(rows) else part.head(0).collect())[rows["at"].to_numpy()]
    near = near.with_columns(rows[TILE], (rows["at"].cast(pl.Int64) + task.first).alias(ROW))
    near.write_parquet(path, compression="zstd", statistics=True, row_group_size=ROW_GROUP)


def select_rows(
    build: Build, key: str, paths: Sequence[Path], facts: TableFacts, bands: Sequence[Band], regions: Regions,
    workers: int,
) -> tuple[list[Path], int]:  # fmt: skip
    """Select the rows of some tables that are near cutouts.

    Parameters
    ----------
    build, key
        Where the pieces go, and how they are called.
    paths
        The tables; Parquet files are read by parts.
    facts, bands
        Their columns; those that are named below must be there.
    regions
        What is near.
    workers
        Parts at a time.

    Returns
    -------
    pieces, read
        Parquet files with the columns of the tables, ``TILE`` and ``ROW``; and the number of rows of all tables.

    Raises
    ------
    InputError
        A table cannot be read or lacks a column; the message names both.
    """
    tasks: dict[str, PartTask] = {}
    read = 0
    for number, path in enumerate(paths):
        names = open_table(path).names
        _require(path, names, facts, bands, key)
        for first, rows in row_parts(path):
            read += len(_read(path)) if rows is None else rows
            tasks[f"{key}-{number:06d}-{first:012d}"] = PartTask(
                path, first, rows, facts.column("ra_deg"), facts.column("dec_deg"), regions
            )
    pieces = build.shards_in_parallel(
        tasks, select_part, workers=workers, describe=lambda task: f"{task.path} from row {task.first}"
    )
    return pieces, read


def _require(path: Path, names: Sequence[str], facts: TableFacts, bands: Sequence[Band], key: str) -> None:
    standard = ["ra_deg", "dec_deg"] + [name for name in ("object_id", "class") if name in facts.columns]
    wanted = [facts.column(name) for name in standard]
    if key == "truth" and "object_id" not in facts.columns:
        wanted.append(facts.column("object_id"))  # says that the survey's file names none
    if "mag" in facts.columns:
        wanted += [facts.column("mag", band=band.name) for band in bands]
    if absent := [name for name in dict.fromkeys(wanted) if name not in names]:
        raise InputError(
            f"{path}: expected the columns {', '.join(dict.fromkeys(wanted))} (survey.{key}.columns), "
            f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not among {', '.join(names)}; name the columns "
            "that hold them"
        )


def _read(path: Path) -> pl.DataFrame:
    table = open_table(path)
    columns = {name: table.column(name)[0] for name in table.names}
    return pl.DataFrame({name: np.ma.filled(v, np.nan) if np.ma.isMA(v) else v for name, v in columns.items()})


def _near(place: pl.DataFrame, task: PartTask) -> pl.DataFrame:
    """Rows (``at``, from 0 in the part) near cutouts, and the number of the tile, sorted by tile and row."""
    ra, dec = place["ra"].fill_null(np.nan).to_numpy(), place["dec"].fill_null(np.nan).to_numpy()
    known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90))
    rows = pl.DataFrame({"at": known, "cell": cell_of(ra[known], dec[known], task.regions.level)})
    return rows.join(task.regions.cells, on="cell").sort(TILE, "at").select("at", TILE)
