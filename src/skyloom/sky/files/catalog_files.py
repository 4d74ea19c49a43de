"""Tables of every format that catalogues come in, opened so that single columns can be taken."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.errors import InputError

FITS = (".fits", ".fit", ".fits.gz", ".fit.gz")
VOTABLE = (".vot", ".xml", ".votable", ".vot.gz")
SUFFIXES = (*FITS, *VOTABLE, ".parquet", ".csv", ".ecsv")


@dataclass(frozen=True)
class Table:
    """Column names of a table, and how to get a column: native 1-D values (possibly masked) and their unit, if any."""

    path: Path
    names: list[str]
    column: Callable[[str], tuple[Any, str | None]]


def open_table(path: Path) -> Table:
    """Open a catalogue by the ending of its name.

    Raises
    ------
    InputError
        The file is missing, of another format, damaged, or holds no table.
    """
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise InputError(f"{path}: expected a catalogue that ends in one of {', '.join(SUFFIXES)}; convert it.")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path of the catalogue.")
    opened: Callable[[Path], Table] = _open_polars
    if name.endswith(FITS):
        opened = _open_fits
    elif name.endswith(VOTABLE):
        opened = _open_votable
    elif name.endswith(".ecsv"):
        opened = _open_ecsv
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each reader tells of cards and units that bend its standard
            return opened(path)
    except InputError:
        raise
    except Exception as error:  # each reader has exceptions of its own for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read as a catalogue ({reason}); check or convert it.") from error


def _open_fits(path: Path) -> Table:
    from astropy.io import fits

    with fits.open(path) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
        if not tables:
            raise InputError(f"{path}: expected a FITS file with a table, found only images; give the catalogue.")
        units = {column.name: column.unit for column in tables[0].columns}
        data = tables[0].data

    def column(name: str) -> tuple[Any, str | None]:
        values = np.asarray(data[name])
        if values.dtype.kind in "SU":
            return values.astype(str), units[name] or None
        return values.astype(values.dtype.newbyteorder("=")), units[name] or None

    return Table(path, list(units), column)


def _open_votable(path: Path) -> Table:
    from astropy.io.votable import parse_single_table

    table = parse_single_table(path)
    fields = {field.name or field.ID: field for field in table.fields}

    def column(name: str) -> tuple[Any, str | None]:
        values = table.array[fields[name].ID]
        unit = fields[name].unit
        return (values if values.dtype.kind in "iuf" else values.astype(str)), str(unit) if unit else None

    return Table(path, list(fields), column)


def _open_ecsv(path: Path) -> Table:
    from astropy.table import Table as AstropyTable

    table = AstropyTable.read(path, format="ascii.ecsv")

    def column(name: str) -> tuple[Any, str | None]:
        values = table[name]
        unit = str(values.unit) if values.unit else None
        masked = np.ma.MaskedArray(values) if np.ma.isMaskedArray(values) else np.asarray(values)
        return masked, unit

    return Table(path, list(table.colnames), column)


def _open_polars(path: Path) -> Table:
    if path.name.lower().endswith(".parquet"):
        lazy = pl.scan_parquet(path)
        names = lazy.collect_schema().names()
    else:
        frame = pl.read_csv(path, comment_prefix="#", infer_schema_length=100_000)
        lazy, names = frame.lazy(), frame.columns

    def column(name: str) -> tuple[Any, str | None]:
        series = lazy.select(name).collect()[name]
        values = series.cast(pl.Float64).to_numpy() if series.dtype.is_numeric() and series.null_count() else None
        return (series.to_numpy() if values is None else values), None

    return Table(path, names, column)
