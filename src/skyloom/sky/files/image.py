"""One reader for the images of a survey: FITS, npy and Zarr opened lazily, read as native float32 with their WCS."""

import math
import warnings
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning, WcsError
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.sky.files.array_image import open_npy, open_zarr
from skyloom.sky.files.fits_image import open_fits
from skyloom.sky.files.pixels import Pixels
from skyloom.sky.survey.units import normalised_unit

FITS_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fits.fz")
SUFFIXES = (*FITS_SUFFIXES, ".npy", ".zarr")


class Image:
    """An open 2-D image; made by `open_image`.

    Nothing is read before it is asked for. It may be shared between threads and forked processes, is pickled as its
    path (and opened again on the other side) and works as a context manager.

    Attributes
    ----------
    path
        Absolute path of the file or Zarr folder.
    shape
        Rows and columns.
    dtype
        Element type on disk with its byte order; `read` and `strip` always return native float32.
    header
        FITS header, None where the format carries none.
    unit
        Unit of the pixel values in one spelling (``'JY/BEAM '`` becomes ``Jy/beam``); None when it is not given.
    """

    def __init__(self, path: Path, pixels: Pixels, header: fits.Header | None = None) -> None:
        self.path = path
        self.shape = pixels.shape
        self.dtype = pixels.dtype
        self.block_rows = pixels.block_rows
        self.header = header
        self.unit = normalised_unit(header.get("BUNIT")) if header is not None else None
        self._pixels: Pixels | None = pixels

    @cached_property
    def wcs(self) -> WCS | None:
        """2-D celestial WCS in the order of the image axes; None when the header has none for the two image axes."""
        if self.header is None:
            return None
        try:
            with warnings.catch_warnings():
                # wcslib tells of every date or projection card that it brings into today's form (DATE-OBS, RA---NCP).
                warnings.simplefilter("ignore", FITSFixedWarning)
                full = WCS(self.header)
                if {full.wcs.lng, full.wcs.lat} != {0, 1}:
                    return None
                return full.celestial
        except (ValueError, KeyError, WcsError) as error:
            message = " ".join(str(error).split())
            raise InputError(f"{self.path}: the WCS in the header is not valid ({message}); mend its cards.") from error

    @cached_property
    def pixel_scale_arcsec(self) -> float | None:
        """Side of a pixel at the reference point, geometric mean of both axes, in arcsec; None without a WCS."""
        if self.wcs is None:
            return None
        scale_deg = proj_plane_pixel_scales(self.wcs)
        return math.sqrt(float(scale_deg[0]) * float(scale_deg[1])) * 3600.0

    @property
    def beam_arcsec(self) -> tuple[float, float] | None:
        """Major and minor axis (FWHM) of the restoring beam, BMAJ and BMIN, in arcsec; None when not given."""
        if self.header is None:
            return None
        axes = self.header.get("BMAJ"), self.header.get("BMIN")
        if not all(isinstance(axis, int | float) and axis > 0 for axis in axes):
            return None
        return axes[0] * 3600.0, axes[1] * 3600.0

    def read(
        self, row0: int, col0: int, height: int, width: int, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Read a window.

        Parameters
        ----------
        row0, col0
            First row and column, from 0.
        height, width
            Size in pixels; the window must lie inside the image.
        out
            Native float32 array of shape (height, width), maybe a view, to write into; None makes a new one.

        Returns
        -------
        numpy.ndarray
            `out`, or a new native C-contiguous float32 array of shape (height, width); blank pixels are NaN.

        Raises
        ------
        InputError
            The window does not lie inside the image, or the image was closed.
        """
        pixels = self._checked(row0, col0, height, width)
        out = np.empty((height, width), np.float32) if out is None else out
        pixels.read(slice(row0, row0 + height), slice(col0, col0 + width), out)
        return out

    def strip(self, row0: int, height: int, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Read full-width rows, the fastest way through a whole image; memory mapped for it is given back at once.

        Parameters
        ----------
        row0, height
            First row and number of rows.
        out
            Native C-contiguous float32 array of shape (height, columns) to write into; None makes a new one.

        Returns
        -------
        numpy.ndarray
            `out`, or a new native C-contiguous float32 array of shape (height, columns).

        Raises
        ------
        InputError
            The rows do not lie inside the image, or the image was closed.
        """
        pixels = self._checked(row0, 0, height, self.shape[1])
        out = np.empty((height, self.shape[1]), np.float32) if out is None else out
        pixels.read(slice(row0, row0 + height), slice(0, self.shape[1]), out)
        pixels.release(slice(row0, row0 + height))
        return out

    def _checked(self, row0: int, col0: int, height: int, width: int) -> Pixels:
        rows, cols = self.shape
        if self._pixels is None:
            raise InputError(f"{self.path}: the image was closed; open it again before reading.")
        if row0 < 0 or col0 < 0 or height < 1 or width < 1 or row0 + height > rows or col0 + width > cols:
            raise InputError(
                f"{self.path}: the window of {height} x {width} px at row {row0}, column {col0} does not lie inside "
                f"the image of {rows} x {cols} px; ask for a window inside."
            )
        return self._pixels

    def close(self) -> None:
        """Let go of the file; reading afterwards is an error."""
        self._pixels = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return open_image, (self.path,)

    def __repr__(self) -> str:
        return f"Image({str(self.path)!r}, shape={self.shape}, dtype={self.dtype.str!r})"


def open_image(path: str | Path) -> Image:
    """Open an image for lazy reading.

    Parameters
    ----------
    path
        ``.fits``, ``.fit`` (mapped), ``.fits.gz``, ``.fit.gz`` (the whole image is unpacked into memory once per
        process, so unpack such files when they are read often), ``.fits.fz`` (tiles are unpacked as they are needed),
        ``.npy`` (mapped) or a ``.zarr`` folder, whose attribute ``fits_header`` may hold a FITS header as one string.

    Returns
    -------
    Image
        2-D; further leading axes must have length 1 and are dropped. Of a FITS file the first HDU that fits is taken.

    Raises
    ------
    InputError
        The file is missing, truncated, of another format, or holds no 2-D image.
    """
    path = Path(path).absolute()
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise InputError(f"{path}: expected a file that ends in one of {', '.join(SUFFIXES)}; convert it or rename it.")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path.")
    if name.endswith(".zarr"):
        return Image(path, *open_zarr(path))
    if path.is_dir():
        raise InputError(f"{path}: expected a file, found a folder; give a file inside it.")
    if name.endswith(".npy"):
        return Image(path, open_npy(path))
    return Image(path, *open_fits(path))
