"""Reads truth and detections of any form into tables of one form."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from skyloom.datamodule.table_input import TableInput, centre_outside
from skyloom.errors import InputError
from skyloom.match.points import Points, sky_points
from skyloom.report.detections.columns import Columns, missing_magnitude
from skyloom.sky.catalog import catalog_of, column_of, guess_column, numbers_of
from skyloom.sky.files.catalog_files import Table

QUANTITIES = ("mag", "snr", "size", "flux", "colour")


@dataclass(frozen=True)
class Sources:
    """A table of sources.

    Attributes
    ----------
    name
        ``truth``, or what the catalogue is called.
    frame
        ``row`` Int64 (in the table that was read), ``id`` String, ``ra_deg``, ``dec_deg``, the quantities Float64 (NaN
        where missing) and ``category`` String (null where unknown).
    points
        Unit vectors, shape (N, 3).
    has
        Quantities that the table has, and ``category``.
    counts
        Rows read, kept and left out, by reason.
    masks
        ``index`` (row of ``frame``), ``cutout_id``, ``rle``, ``height_px``, ``width_px``; None without masks.
    """

    name: str
    frame: pl.DataFrame
    points: Points
    has: frozenset[str]
    counts: dict[str, int]
    masks: pl.DataFrame | None

    def __len__(self) -> int:
        return len(self.frame)

    def values(self, quantity: str) -> np.ndarray:
        """A quantity, float64 (N,)."""
        return self.frame[quantity].to_numpy()


def read_sources(
    given: TableInput, *, name: str, role: str, columns: Columns, on_bad_position: Literal["error", "skip"],
    need_mag: bool,
) -> Sources:  # fmt: skip
    """Read a table of sources.

    Parameters
    ----------
    given
        File or artifact.
    name
        ``truth``, or what the catalogue is called.
    role
        ``truth`` or ``detections``.
    columns
        Its columns.
    on_bad_position
        ``skip`` leaves rows without a valid position out and counts them; ``error`` refuses them.
    need_mag
        Refuse a table without magnitudes, unless ``columns.mag`` is false.

    Raises
    ------
    InputError
        A column is missing, an id stands twice, or a position is not valid.
    """
    table, tile = given.open(role)
    option = f"columns.{name}"
    own = columns.model_dump(include={"ra", "dec", "id"})
    if given.artifact is not None:  # its standard columns; those of the survey's file may stand beside them
        if own["ra"] is None and {"ra_deg", "dec_deg"} <= set(table.names):
            own |= {"ra": "ra_deg", "dec": "dec_deg"}
        own["id"] = own["id"] or guess_column(table, ("detection_id", "object_id", "annotation_id"))
    read = catalog_of(table, **own, option=option)
    frame = pl.DataFrame(
        {"row": np.arange(len(read)), "id": read.source_id, "ra_deg": read.ra_deg, "dec_deg": read.dec_deg},
        schema={"row": pl.Int64, "id": pl.String, "ra_deg": pl.Float64, "dec_deg": pl.Float64},
    )
    found = _quantities(table, columns, option)
    if need_mag and found["mag"] is None and columns.mag is not False:
        raise missing_magnitude(table, name)
    blank = np.full(len(read), np.nan)
    frame = frame.with_columns(
        pl.Series(key, blank if v is None else np.where(np.isfinite(v), v, np.nan), pl.Float64)
        for key, v in found.items()
    )
    category = _category(table, columns, option)
    frame = frame.with_columns(category=pl.lit(None, pl.String) if category is None else category)
    masks = _masks(given, table)
    frame = frame.filter(~centre_outside(table))
    repeats = tile is not None or (given.artifact is not None and given.artifact.kind == "dataset")
    numbered = tile if role == "detections" else None  # numbers of segmentation maps start anew in every tile
    frame, counts, masks = _checked(frame, f"{name} ({table.path})", on_bad_position, repeats, numbered, masks)
    counts |= {"read": len(read), "beside_cutout": len(read) - counts["read"]}
    points = sky_points(frame["ra_deg"].to_numpy(), frame["dec_deg"].to_numpy(), name=name)
    has = {key for key, values in found.items() if values is not None}
    if category is not None:
        has.add("category")
    return Sources(name, frame, points, frozenset(has), counts, masks)


def _quantities(table: Table, columns: Columns, option: str) -> dict[str, np.ndarray | None]:
    """Values of every quantity, None where the table has no such column."""
    found: dict[str, np.ndarray | None] = {}
    for quantity in QUANTITIES[:-1]:
        column = columns.find(quantity, table, option)
        found[quantity] = None if column is None else numbers_of(table, column)[0]
    flux = found["flux"]
    if found["mag"] is None and columns.mag is None and flux is not None and columns.zero_point_mag is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            found["mag"] = np.where(flux > 0, columns.zero_point_mag - 2.5 * np.log10(flux), np.nan)
    found["colour"] = None
    if columns.colour is not None:
        first, second = (numbers_of(table, column_of(table, f"{option}.colour", c))[0] for c in columns.colour)
        found["colour"] = first - second
    return found


def _category(table: Table, columns: Columns, option: str) -> pl.Series | None:
    column = columns.find("class", table, option)
    if column is None:
        return None
    values = np.ma.filled(table.column(column)[0], -1) if len(table.column(column)[0]) else np.empty(0)
    text = values.dtype.kind in "OUS"
    meaning = columns.encoding(column, table, option, text=text)
    if text:
        words = {str(value).lower(): category for value, category in meaning.items()}
        series = pl.Series(values.astype(str), dtype=pl.String).str.to_lowercase()
        return series.replace_strict(words, default=None, return_dtype=pl.String)
    numbers = pl.Series(values.astype(np.float64))
    return numbers.replace_strict({float(k): v for k, v in meaning.items()}, default=None, return_dtype=pl.String)


def _masks(given: TableInput, table: Table) -> pl.DataFrame | None:
    """Masks of all rows, with the size of the image of each, where the table tells both."""
    if not {"cutout_id", "rle"} <= set(table.names):
        return None
    data: dict[str, Any] = {name: pl.Series(table.column(name)[0]) for name in ("cutout_id", "rle")}
    masks = pl.DataFrame(data).with_columns(pl.col("rle").cast(pl.String)).with_row_index("index")
    if {"height_px", "width_px"} <= set(table.names):
        shape = {name: pl.Series(table.column(name)[0]) for name in ("height_px", "width_px")}
        masks = masks.with_columns(**shape)
    elif given.artifact is not None and "images.parquet" in given.artifact.manifest["files"]:
        images = given.artifact.table("images.parquet").select("cutout_id", "height_px", "width_px")
        masks = masks.join(images, on="cutout_id", how="left", maintain_order="left")
    else:
        return None
    return masks.with_columns(pl.col("index", "cutout_id", "height_px", "width_px").cast(pl.Int64))


def _checked(
    frame: pl.DataFrame, name: str, on_bad_position: str, repeats: bool, tile: np.ndarray | None,
    masks: pl.DataFrame | None,
) -> tuple[pl.DataFrame, dict[str, int], pl.DataFrame | None]:  # fmt: skip
    """Rows with positions, every source once; masks follow the rows. ``tile``: what their ids are numbers within."""
    counts = {"read": len(frame)}
    good = frame["ra_deg"].is_not_nan() & frame["dec_deg"].is_not_nan()
    counts["no_position"] = int((~good).sum())
    if counts["no_position"] and on_bad_position == "error":
        raise InputError(
            f"{name}: {counts['no_position']} of {len(frame)} rows have no valid position, the first is row "
            f"{frame.filter(~good)['row'][0]}; mend the table, or leave them out and counted: on_bad_position=skip"
        )
    frame = frame.filter(good)
    if repeats:  # one object in several cutouts stands there several times, at the same place
        same = ["id", "ra_deg", "dec_deg"]
        first = frame.select(pl.struct(same).is_first_distinct()).to_series()
        kept = frame.filter(first).with_row_index("to").with_columns(pl.col("to").cast(pl.Int64))
        goes_to = frame.join(kept.select(*same, "to"), on=same, how="left", maintain_order="left")
        if tile is not None:
            kept = kept.with_columns(id=pl.Series(tile[kept["row"].to_numpy()]).cast(pl.String) + "/" + pl.col("id"))
        counts["repeated"] = len(frame) - len(kept)
        frame = kept.drop("to")
    else:
        goes_to = frame.with_row_index("to").with_columns(pl.col("to").cast(pl.Int64))
    if frame["id"].is_duplicated().any():
        twice = frame.filter(frame["id"].is_duplicated())
        raise InputError(
            f"{name}: the id {twice['id'][0]} stands {len(twice.filter(id=twice['id'][0]))} times, and "
            f"{twice['id'].n_unique() - 1} other ids repeat; expected one row per source, or give columns of unique ids"
        )
    counts["kept"] = len(frame)
    if masks is not None:
        moved = masks.join(goes_to.select("row", "to"), left_on="index", right_on="row", how="inner")
        masks = moved.drop_nulls("rle").with_columns(index=pl.col("to")).drop("to")
    return frame, counts, masks
