"""FITS images as lazy pixels: plain ones are mapped, gzipped ones unpacked once, tile-compressed ones read by tiles."""

import gzip
import io
import mmap
import os
import threading
import warnings
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.sky.files.pixels import ArrayPixels, Pixels, Scaling, copy_as_float32, leading_ones

_DTYPE_OF_BITPIX = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Real maps break the letter of the standard without harm: BLANK on float images (Miriad), lower-case or
        # over-long cards. astropy mends them when it reads; the user can do nothing about them.
        warnings.simplefilter("ignore", VerifyWarning)
        # A file that is too short is refused below with the number of bytes that are missing.
        warnings.filterwarnings("ignore", message="File may have been truncated")
        yield


class CompressedPixels:
    """Pixels of a tile-compressed FITS image (fpack); only the tiles that a read touches are decompressed."""

    def __init__(self, path: Path, hdu_index: int) -> None:
        self._path, self._hdu_index = path, hdu_index
        self._open()
        shape = self._hdu.shape
        self._lead = (0,) * leading_ones(shape, str(path))
        self.shape = (int(shape[-2]), int(shape[-1]))
        self.dtype = np.dtype(_DTYPE_OF_BITPIX[self._hdu.header["BITPIX"]])
        self.block_rows = int(self._hdu.tile_shape[-2])

    def _open(self) -> None:
        with _quiet():
            hdus = fits.open(self._path)
            self._hdu: Any = hdus[self._hdu_index]
        weakref.finalize(self, hdus.close)
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def read(self, rows: slice, cols: slice, out: NDArray[np.float32]) -> None:
        """Write the part into `out`, which has its shape and is native float32."""
        if self._pid != os.getpid():
            self._open()  # a forked process would share, and move, the file position of its parent
        try:
            with self._lock:  # astropy seeks and reads in two steps
                part = self._hdu.section[(*self._lead, rows, cols)]
        except (OSError, ValueError, RuntimeError, zlib.error) as error:
            raise InputError(f"{self._path}: cannot decompress rows {rows.start} to {rows.stop} ({error}).") from error
        copy_as_float32(np.asarray(part), out)

    def release(self, rows: slice) -> None:
        """Do nothing: no memory outlives a read."""


def open_fits(path: Path) -> tuple[Pixels, fits.Header]:
    """Open the first HDU that holds a 2-D image.

    Parameters
    ----------
    path
        A FITS file; plain, gzipped as a whole, or with tile-compressed images.

    Returns
    -------
    tuple
        The pixels and the header of that HDU.

    Raises
    ------
    InputError
        Not a FITS file, truncated, or without a 2-D image.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            # The length is asked from the file that is mapped, so that the two cannot disagree.
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise InputError(f"{path}: expected a FITS image, found an empty file; copy it again.")
            if packed:
                file.seek(0)
                buffer: Any = gzip.GzipFile(fileobj=file).read()
            else:
                buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the gzip stream is damaged or cut short ({error}); copy it again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    try:
        with _quiet(), fits.open(io.BytesIO(buffer) if packed else path) as hdus:
            return _first_image(path, hdus, buffer, len(buffer))
    except OSError as error:
        raise InputError(f"{path}: expected a FITS file, found something else ({error}).") from error


def _first_image(path: Path, hdus: fits.HDUList, buffer: Any, size: int) -> tuple[Pixels, fits.Header]:
    seen = []
    for index, hdu in enumerate(hdus):
        if not hdu.is_image or not hdu.shape:
            continue
        shape = tuple(hdu.shape)
        if len(shape) < 2 or any(n != 1 for n in shape[:-2]) or 0 in shape[-2:]:
            seen.append(f"HDU {index} has shape {shape}")
            continue
        if isinstance(hdu, fits.CompImageHDU):
            info = hdu.fileinfo()
            _check_size(path, size, info["datLoc"] + info["datSpan"])
            return CompressedPixels(path, index), hdu.header
        return _plain_pixels(path, hdu, shape, buffer, size), hdu.header
    found = "; ".join(seen) if seen else "no image at all"
    raise InputError(
        f"{path}: expected a 2-D image (further leading axes only with length 1), found {found}; "
        "write each plane to a file of its own."
    )


def _plain_pixels(path: Path, hdu: Any, shape: tuple[int, ...], buffer: Any, size: int) -> ArrayPixels:
    # The raw header: astropy replaces BITPIX, BSCALE and BZERO of `hdu.header` only when it loads the data itself.
    header = hdu.header
    dtype = np.dtype(_DTYPE_OF_BITPIX[header["BITPIX"]])
    offset = hdu.fileinfo()["datLoc"]
    count = shape[-2] * shape[-1]
    _check_size(path, size, offset + count * dtype.itemsize)
    array = np.frombuffer(buffer, dtype, count, offset).reshape(shape[-2:])
    blank = header.get("BLANK") if dtype.kind in "iu" else None  # the standard gives BLANK no meaning for floats
    scaling = Scaling(header.get("BSCALE", 1.0), header.get("BZERO", 0.0), blank)
    return ArrayPixels(
        array,
        scaling=None if scaling == Scaling() else scaling,
        mapped=buffer if isinstance(buffer, mmap.mmap) else None,
        offset=offset,
    )


def _check_size(path: Path, size: int, needed: int) -> None:
    if size < needed:
        raise InputError(
            f"{path}: truncated, expected {needed} bytes up to the end of the image, found {size}; copy it again."
        )
