"""Tables of true and detected objects in the cutouts of one tile, placed by the WCS of the patches' grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.datamodule.table_input import OUTSIDE
from skyloom.sky.geometry.footprint import inside, pixels_of
from skyloom.sky.geometry.patch_grid import PatchGrid
from skyloom.sky.survey.bands import TableFacts
from skyloom.step.cutouts.footprints.regions import ROW, TILE
from skyloom.step.cutouts.tiles.columns import DETECTION_COLUMNS, TRUTH_COLUMNS


@dataclass(frozen=True)
class Found:
    """Objects in the cutouts of a tile.

    Attributes
    ----------
    table : polars.DataFrame
        Standard columns, then those of the file; sorted by cutout, then as in the file.
    rows : ndarray
        int64: rows of the file that are in the table, each once.
    left_out : Mapping
        Rows of the file that lie in a cutout and are not in the table, by reason.
    """

    table: pl.DataFrame
    rows: np.ndarray
    left_out: Mapping[str, np.ndarray]


def rows_of_tile(pieces: Sequence[Path], tile: int) -> pl.DataFrame:
    """Rows near the cutouts of a tile, from the pieces of ``footprint_regions``, in the order of the file."""
    parts = [pl.scan_parquet(piece).filter(pl.col(TILE) == tile).collect() for piece in pieces]
    return pl.concat(parts, how="vertical_relaxed").drop(TILE)


def within(table: pl.DataFrame) -> pl.DataFrame:
    """The objects whose centre is in their cutout."""
    return table.filter(~pl.col(OUTSIDE)) if OUTSIDE in table.columns else table


def truth_in(
    cutouts: pl.DataFrame, grids: list[PatchGrid], rows: pl.DataFrame, facts: TableFacts, margin_px: int = 0
) -> Found:
    """True objects in cutouts.

    Parameters
    ----------
    cutouts
        cutout_id, grid, grid_row0, grid_col0, height_px, width_px.
    grids
        What ``grid`` counts.
    rows
        From `rows_of_tile`.
    facts
        Columns of the file. Objects whose class is neither a galaxy nor a star, and those whose id stands in the same
        cutout before, are left out.
    margin_px
        Above 0: objects up to this far outside of a cutout are in its table, too; ``centre_outside`` says which.
    """
    places, file = _placed(cutouts, grids, rows, facts, margin_px)
    places = places.with_columns(
        object_id=file[facts.column("object_id")].cast(pl.String), category_id=pl.lit(0, pl.Int8)
    )
    if facts.classes:
        kinds = file[facts.column("class")].cast(pl.Int64, strict=False)
        places = places.with_columns(
            category_id=kinds.replace_strict(facts.category_of(), default=None, return_dtype=pl.Int8)
        )
    return _kept(places, file, TRUTH_COLUMNS, "object_id")


def detections_in(cutouts: pl.DataFrame, grids: list[PatchGrid], rows: pl.DataFrame, facts: TableFacts) -> Found:
    """Detected objects in cutouts; as `truth_in`.

    ``detection_id`` is the column ``object_id`` of the facts, or else the number of the row from 1.
    """
    places, file = _placed(cutouts, grids, rows, facts)
    named = "object_id" in facts.columns
    number = file[facts.column("object_id")].cast(pl.Int64) if named else file[ROW] + 1
    return _kept(places.with_columns(detection_id=number), file, DETECTION_COLUMNS, "detection_id")


def _placed(
    cutouts: pl.DataFrame, grids: list[PatchGrid], rows: pl.DataFrame, facts: TableFacts, margin_px: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row per object and cutout that it lies in or near: where it is, and what the file says of it."""
    ra, dec = (rows[facts.column(name)].cast(pl.Float64).to_numpy() for name in ("ra_deg", "dec_deg"))
    found: list[pl.DataFrame] = []
    for (grid,), group in cutouts.group_by("grid", maintain_order=True):
        x, y = pixels_of(grids[int(str(grid))].wcs, ra, dec)  # once for all cutouts on the grid
        for cutout_id, row0, col0, height, width in group.select(
            "cutout_id", "grid_row0", "grid_col0", "height_px", "width_px"
        ).iter_rows():
            near = (height + 2 * margin_px, width + 2 * margin_px)
            at = np.flatnonzero(inside(x - col0 + margin_px, y - row0 + margin_px, near))
            place = {"at": at, "x_px": x[at] - col0, "y_px": y[at] - row0, "ra_deg": ra[at], "dec_deg": dec[at]}
            if margin_px:
                place[OUTSIDE] = ~inside(place["x_px"], place["y_px"], (height, width))
            found.append(pl.DataFrame(place).with_columns(cutout_id=pl.lit(cutout_id, pl.Int64)))
    order = cutouts.select("cutout_id", order=pl.int_range(pl.len()))
    places = pl.concat(found).join(order, on="cutout_id").sort("order", "at")
    return places, rows[places["at"].to_numpy()]


def _kept(places: pl.DataFrame, file: pl.DataFrame, columns: dict[str, Any], id_column: str) -> Found:
    """Leave out what does not belong, and put the columns of the file behind the standard ones."""
    row = file[ROW].to_numpy()
    other = places["category_id"].is_null().to_numpy() if "category_id" in columns else np.zeros(len(places), bool)
    first = places.select(pl.struct("cutout_id", id_column).is_first_distinct()).to_series().to_numpy()
    keep = pl.Series(first & ~other, dtype=pl.Boolean)
    standard = {**columns, OUTSIDE: pl.Boolean} if OUTSIDE in places.columns else columns
    own = file.drop(ROW).rename({name: f"{name}_file" for name in file.columns if name in standard})
    table = pl.concat([places.select(*standard).cast(pl.Schema(standard)), own], how="horizontal").filter(keep)
    left_out = {"of other class": np.unique(row[other]), "repeated": np.unique(row[~first & ~other])}
    return Found(table, np.unique(row[keep.to_numpy()]), left_out)
