"""Tables of true and detected objects on a tile: read by the survey's column names, placed into cutouts by the WCS."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.sky.files.catalog_files import Table, open_table
from skyloom.sky.files.image import Image
from skyloom.sky.survey.bands import Band, TableFacts
from skyloom.sky.window.catalog import sources_on
from skyloom.sky.window.grid import window_of
from skyloom.step.cutouts.tiles.columns import DETECTION_COLUMNS, TRUTH_COLUMNS


@dataclass(frozen=True)
class Windows:
    """The windows of a tile: first rows and columns of the grid, their side, and the id of each, row by row."""

    rows: np.ndarray
    cols: np.ndarray
    side_px: int
    cutout_id: np.ndarray


def truth_table(
    path: Path, facts: TableFacts, image: Image, windows: Windows, bands: Sequence[Band]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """True objects in the cutouts of a tile.

    Parameters
    ----------
    path
        The file; every column of it is kept.
    facts
        Its columns by standard name; the magnitudes in all ``bands`` must be there, if the survey names them.
    image
        Any band of the tile.
    windows
        Its cutouts.
    bands
        Bands of the survey.

    Returns
    -------
    table, counts
        Columns ``TRUTH_COLUMNS`` and then those of the file, sorted by cutout; and how many objects were read, kept and
        left out (``no_position``, ``elsewhere``: not on the tile, ``outside``: on no cutout, ``repeated``: the id has
        stood before, ``other_class``).

    Raises
    ------
    InputError
        The file cannot be read or lacks a column.
    """
    table = open_table(path)
    needed = ["object_id", "ra_deg", "dec_deg"] + (["class"] if facts.classes else [])
    _require(table, facts, needed, "truth", bands)
    places, counts = _placed(table, facts, image, windows)
    at = places["at"].to_numpy()
    ids = _column(table, facts.column("object_id"), at).cast(pl.String)
    places = places.with_columns(object_id=ids, category_id=pl.lit(0, pl.Int8))
    if facts.classes:
        kinds = _column(table, facts.column("class"), at)
        known = facts.category_of()
        places = places.with_columns(category_id=kinds.replace_strict(known, default=None, return_dtype=pl.Int8))
    first = places.select(pl.col("object_id").is_first_distinct())["object_id"]
    counts["repeated"] = len(places) - int(first.sum())
    places = places.filter(first)
    counts["other_class"] = places["category_id"].null_count()
    places = places.drop_nulls("category_id")
    return _with_file_columns(places, table, TRUTH_COLUMNS), counts | {"kept": len(places)}


def detection_table(
    path: Path, facts: TableFacts, image: Image, windows: Windows, bands: Sequence[Band]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Detected objects in the cutouts of a tile; as `truth_table`.

    ``detection_id`` is the column ``object_id`` of the facts, or else the number of the row from 1, which is the number
    of the object in the segmentation map.
    """
    table = open_table(path)
    _require(table, facts, ["ra_deg", "dec_deg"], "detections", bands)
    places, counts = _placed(table, facts, image, windows)
    at = places["at"].to_numpy()
    number = _column(table, facts.column("object_id"), at) if "object_id" in facts.columns else pl.Series(at + 1)
    places = places.with_columns(detection_id=number)
    return _with_file_columns(places, table, DETECTION_COLUMNS), counts | {"kept": len(places)}


def _require(table: Table, facts: TableFacts, standard: list[str], key: str, bands: Sequence[Band]) -> None:
    wanted = [facts.column(name) for name in standard]
    if "mag" in facts.columns:
        wanted += [facts.column("mag", band=band.name) for band in bands]
    if absent := [name for name in wanted if name not in table.names]:
        raise InputError(
            f"{table.path}: expected the columns {', '.join(wanted)} (survey.{key}.columns), found no "
            f"{', '.join(absent)} among {', '.join(table.names)}; name the columns that hold them."
        )


def _placed(table: Table, facts: TableFacts, image: Image, windows: Windows) -> tuple[pl.DataFrame, dict[str, int]]:
    """Rows of the table that lie in a cutout, in the order of cutouts: at, cutout_id, ra_deg, dec_deg, x_px, y_px."""
    ra, dec = (np.asarray(np.ma.filled(table.column(facts.column(name))[0], np.nan), np.float64)
               for name in ("ra_deg", "dec_deg"))  # fmt: skip
    good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    dec = np.where(good, dec, np.nan)
    at, row, col = sources_on(image, ra, dec)
    down, across = window_of(windows.rows, windows.side_px, row), window_of(windows.cols, windows.side_px, col)
    held = (down >= 0) & (across >= 0)
    number = (down * len(windows.cols) + across)[held]
    order = np.argsort(number, kind="stable")
    number, at_held = number[order], at[held][order]
    places = pl.DataFrame(
        {
            "at": at_held,
            "cutout_id": windows.cutout_id[number],
            "ra_deg": ra[at_held],
            "dec_deg": dec[at_held],
            "x_px": col[held][order] - windows.cols[number % len(windows.cols)],
            "y_px": row[held][order] - windows.rows[number // len(windows.cols)],
        }
    )
    counts = {
        "read": len(ra),
        "no_position": int((~good).sum()),
        "elsewhere": int(good.sum()) - len(at),
        "outside": len(at) - len(places),
    }
    return places, counts


def _with_file_columns(places: pl.DataFrame, table: Table, columns: pl.Schema) -> pl.DataFrame:
    """Standard columns, then all columns of the file; one that is called like a standard one gets ``_file``."""
    at = places["at"].to_numpy()
    own = places.select(*columns).cast(columns)
    taken = [_column(table, name, at).alias(f"{name}_file" if name in columns else name) for name in table.names]
    return pl.concat([own, pl.DataFrame(taken)], how="horizontal")


def _column(table: Table, name: str, at: np.ndarray) -> pl.Series:
    """Values of a column in some rows; missing ones are null, and whole numbers stay whole."""
    if table.path.suffix.lower() == ".parquet":
        return pl.scan_parquet(table.path).select(name).collect()[name].gather(at)
    values = table.column(name)[0]
    series = pl.Series(name, np.ma.getdata(values)[at])
    if np.ma.isMaskedArray(values):
        return pl.select(pl.when(pl.Series(~np.ma.getmaskarray(values)[at])).then(series)).to_series().alias(name)
    return series
