"""Writes images and tables of simulated optical surveys; the same content gives the same bytes."""

import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from skyloom.sky.simulated.joint_layout import Field

GZIP_LEVEL = 4  # maps of whole numbers shrink to a few percent at any level; higher ones take longer


def write_planes(
    path: Path, field: Field, planes: Mapping[str, NDArray[Any]], cards: Mapping[str, str | float] | None = None
) -> None:
    """Write planes of an image to extensions of a FITS file, each with the WCS of the field.

    Parameters
    ----------
    path
        The file; its folder is made.
    field
        Where the pixels lie.
    planes
        By the name of the extension, in order; the primary one stays empty.
    cards
        More keys for the first extension.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = field.wcs().to_header()
    hdus: list[Any] = [fits.PrimaryHDU()]
    for name, pixels in planes.items():
        hdus.append(fits.ImageHDU(pixels, header, name=name))
    for key, value in (cards or {}).items():
        hdus[1].header[key] = value
    fits.HDUList(hdus).writeto(path)


def write_map(path: Path, field: Field, pixels: NDArray[np.int32]) -> None:
    """Write a map of whole numbers to the primary extension of a FITS file, packed when its name ends in ``.gz``."""
    _write(path, fits.HDUList([fits.PrimaryHDU(pixels, field.wcs().to_header())]))


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns to the first extension of a FITS file, packed when its name ends in ``.gz``."""
    table = Table({name: np.asarray(values) for name, values in columns.items()})
    _write(path, fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(table)]))


def _write(path: Path, hdus: fits.HDUList) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = io.BytesIO()
    hdus.writeto(plain)
    packed = path.suffix == ".gz"
    path.write_bytes(gzip.compress(plain.getvalue(), GZIP_LEVEL, mtime=0) if packed else plain.getvalue())
