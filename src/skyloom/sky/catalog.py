"""Positions, names and sizes from a source catalogue: FITS, VOTable, Parquet, CSV or ECSV."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.errors import ConfigError, InputError
from skyloom.sky.files.catalog_files import Table, open_table

# Names that surveys give to their positions, in pairs so that columns of two frames are never mixed.
POSITIONS = (
    ("ra", "dec"),
    ("ra_deg", "dec_deg"),
    ("raj2000", "dej2000"),
    ("raj2000", "decj2000"),
    ("_raj2000", "_dej2000"),
    ("ra_j2000", "dec_j2000"),
    ("ra_icrs", "de_icrs"),
    ("ra_icrs", "dec_icrs"),
    ("alpha_j2000", "delta_j2000"),
    ("alphawin_j2000", "deltawin_j2000"),
    ("radeg", "decdeg"),
    ("right_ascension", "declination"),
    ("coord_ra", "coord_dec"),
)
NAMES = ("source_id", "source_name", "component_name", "name", "id", "objid", "object_id", "objectid", "isl_id")
ANGLES = ("arcsec", "arcmin", "deg")
SIZE_UNITS = (*ANGLES, "px")


@dataclass(frozen=True)
class Catalog:
    """Sources of a catalogue, in the order of its rows.

    Attributes
    ----------
    source_id
        (N,) text; the row number from 0 where the catalogue has no such column.
    ra_deg, dec_deg
        (N,) float64, ICRS; NaN where missing or impossible.
    size
        (N,) float64; NaN where missing. None without a size column.
    size_in_px
        Whether `size` is in pixels; arcsec otherwise.
    columns
        The columns that were taken, by what they stand for.
    """

    source_id: pl.Series
    ra_deg: NDArray[np.float64]
    dec_deg: NDArray[np.float64]
    size: NDArray[np.float64] | None
    size_in_px: bool
    columns: dict[str, str | None]

    def __len__(self) -> int:
        return len(self.ra_deg)


def read_catalog(
    path: Path,
    *,
    ra: str | None = None,
    dec: str | None = None,
    id: str | None = None,
    size: str | None = None,
    size_unit: str | None = None,
) -> Catalog:
    """Read the positions of a catalogue; see :func:`catalog_of`.

    Parameters
    ----------
    path
        ``.fits``, ``.fit``, ``.fits.gz`` (first table), ``.vot``, ``.xml``, ``.votable``, ``.parquet``, ``.csv`` or
        ``.ecsv``.
    ra, dec
        Columns of the position, both or none; None looks for one of the pairs in common use. Degrees, or the angle
        unit that the file gives.
    id
        Column of the name; None looks for one in common use.
    size
        Column of the size; None: no sizes.
    size_unit
        Unit of the size, ``arcsec``, ``arcmin``, ``deg`` or ``px``; None: as the file says.

    Raises
    ------
    InputError
        The file cannot be read, or a column is missing or holds no numbers; the message lists the columns.
    ConfigError
        Only one of `ra` and `dec` is given, or the size has no unit.
    """
    return catalog_of(open_table(path), ra=ra, dec=dec, id=id, size=size, size_unit=size_unit)


def catalog_of(
    table: Table,
    *,
    ra: str | None = None,
    dec: str | None = None,
    id: str | None = None,
    size: str | None = None,
    size_unit: str | None = None,
    option: str = "sources",
) -> Catalog:
    """The same of an open table; ``option`` is what messages call the options of its columns by."""
    if (ra is None) != (dec is None):
        raise ConfigError(f"{option}.ra={ra}, {option}.dec={dec}: give both columns, or neither to have them found.")
    if ra is None or dec is None:
        ra, dec = _guess_position(table, option)
    ra, dec = column_of(table, f"{option}.ra", ra), column_of(table, f"{option}.dec", dec)
    ra_deg, dec_deg = (_angle(table, name) for name in (ra, dec))
    bad = ~(np.isfinite(ra_deg) & (np.abs(dec_deg) <= 90))
    ra_deg, dec_deg = np.where(bad, np.nan, ra_deg), np.where(bad, np.nan, dec_deg)
    id = guess_column(table, NAMES) if id is None else column_of(table, f"{option}.id", id)
    if id is None:
        source_id = pl.Series("source_id", np.arange(len(ra_deg))).cast(pl.String)
    else:
        source_id = pl.Series("source_id", table.column(id)[0]).cast(pl.String)
    columns = {"ra": ra, "dec": dec, "id": id, "size": None}
    if size is None:
        return Catalog(source_id, ra_deg, dec_deg, None, False, columns)
    columns["size"] = size = column_of(table, f"{option}.size", size)
    values, unit = numbers_of(table, size)
    unit = size_unit or unit
    if unit is None:
        raise ConfigError(
            f"{table.path}: column '{size}' has no unit; say which with {option}.size_unit, one of "
            f"{', '.join(SIZE_UNITS)}."
        )
    in_px = unit.lower() in ("px", "pix", "pixel", "pixels")
    return Catalog(source_id, ra_deg, dec_deg, values if in_px else _convert(table, size, values, unit, u.arcsec),
                   in_px, columns)  # fmt: skip


def _angle(table: Table, name: str) -> NDArray[np.float64]:
    values, unit = numbers_of(table, name)
    return values if unit is None else _convert(table, name, values, unit, u.deg)


def numbers_of(table: Table, name: str) -> tuple[NDArray[np.float64], str | None]:
    """A column of numbers and its unit; NaN where masked. InputError for anything else."""
    values, unit = table.column(name)
    if not len(values):
        return np.empty(0), unit  # an empty text file does not say that its columns are numbers
    if values.dtype.kind not in "iuf":
        first = f" such as '{values[0]}'" if len(values) else ""
        raise InputError(
            f"{table.path}: column '{name}' holds {'text' if values.dtype.kind in 'OUS' else values.dtype}{first}, "
            "expected numbers; sexagesimal positions must be converted to degrees."
        )
    if values.ndim != 1:
        raise InputError(f"{table.path}: column '{name}' holds arrays of {values.shape[1:]}, expected single numbers.")
    return np.ma.filled(values.astype(np.float64), np.nan), unit


def _convert(table: Table, name: str, values: NDArray[np.float64], unit: str, to: Any) -> NDArray[np.float64]:
    try:
        return np.asarray((values * u.Unit(unit.strip())).to_value(to), dtype=np.float64)
    except (ValueError, TypeError, u.UnitConversionError):
        raise InputError(f"{table.path}: column '{name}' has the unit '{unit}', expected an angle.") from None


def column_of(table: Table, option: str, name: str) -> str:
    """The column's own spelling; exact, or else whatever the case."""
    if name in table.names:
        return name
    for other in table.names:
        if other.lower() == name.lower():
            return other
    near = get_close_matches(name, table.names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise InputError(f"{table.path}: {option}={name} is not a column; it has {listed(table)}.{hint}")


def _guess_position(table: Table, option: str) -> tuple[str, str]:
    for ra, dec in POSITIONS:
        if (first := guess_column(table, (ra,))) and (second := guess_column(table, (dec,))):
            return first, second
    raise InputError(
        f"{table.path}: no columns of a position found; give {option}.ra=… and {option}.dec=…, two of {listed(table)}."
    )


def guess_column(table: Table, wanted: tuple[str, ...]) -> str | None:
    """The first of the wanted columns that the table has, whatever the case; None without any."""
    lower = {name.lower(): name for name in reversed(table.names)}
    return next((lower[name] for name in wanted if name in lower), None)


def listed(table: Table) -> str:
    """Names of the columns for a message, at most 60."""
    shown = ", ".join(table.names[:60])
    return shown if len(table.names) <= 60 else f"{shown} and {len(table.names) - 60} more"
