"""Positions of a catalogue as points on the unit sphere, from arrays, tables or a Parquet file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.sky.geometry.sphere import unit_vectors

Points = NDArray[np.float64]
"""Unit vectors, shape (N, 3)."""

Catalog = Any
"""A mapping of columns, a polars frame, an astropy table, or the path of a Parquet file."""


def sky_points(ra_deg: np.ndarray, dec_deg: np.ndarray, *, name: str = "catalogue") -> Points:
    """Unit vectors of positions.

    Parameters
    ----------
    ra_deg, dec_deg
        Degrees, shape (N,); N may be 0, RA any number of turns.
    name
        Of the catalogue, for messages.

    Returns
    -------
    ndarray
        float64, shape (N, 3).

    Raises
    ------
    InputError
        A position is missing, infinite or has a declination beyond a pole.
    """
    ra, dec = (np.ma.filled(np.ma.asarray(x, dtype=np.float64), np.nan).ravel() for x in (ra_deg, dec_deg))
    if len(ra) != len(dec):
        raise InputError(f"{name}: {len(ra)} right ascensions and {len(dec)} declinations; expected as many")
    wrong = np.flatnonzero(~(np.isfinite(ra) & (np.abs(dec) <= 90)))  # NaN compares as wrong
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{name}: {len(wrong)} of {len(ra)} rows have no valid position, the first is row {row} (RA {ra[row]}, Dec "
            f"{dec[row]} deg); drop these rows before matching, and say how many there were"
        )
    return unit_vectors(ra, dec)


def column(catalog: Catalog, name: str, *, of: str = "catalogue") -> np.ndarray:
    """One column as a numpy array; masked or null entries of numbers become NaN.

    Raises
    ------
    InputError
        There is no such column; the message lists what there is.
    """
    if isinstance(catalog, str | Path):
        path = Path(catalog)
        if not path.exists():
            raise InputError(f"{path}: no such file; expected a Parquet table")
        catalog = pl.scan_parquet(path)
        names: list[str] = catalog.collect_schema().names()
        if name in names:
            catalog = catalog.select(name).collect()
    elif isinstance(catalog, Mapping):
        names = list(catalog)
    else:
        names = list(catalog.columns) if isinstance(catalog, pl.DataFrame) else list(catalog.colnames)
    if name not in names:
        raise InputError(f"{of}: no column '{name}'; it has {', '.join(map(str, names))}")
    values = catalog[name]
    if isinstance(values, pl.Series):
        return np.asarray(values.to_numpy())
    if isinstance(values, np.ma.MaskedArray) and values.dtype.kind == "f":
        return np.asarray(values.filled(np.nan))
    return np.asarray(values)


def points_of(catalog: Catalog, *, ra: str, dec: str, name: str) -> Points:
    """Points of a catalogue's position columns in degrees; see :func:`sky_points`."""
    return sky_points(column(catalog, ra, of=name), column(catalog, dec, of=name), name=name)
