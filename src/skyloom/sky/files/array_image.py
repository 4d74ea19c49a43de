"""npy and Zarr images as lazy pixels."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from astropy.io import fits
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.sky.files.pixels import ArrayPixels, Pixels, copy_as_float32, leading_ones

# numpy reads the header by Python's own parser, which fails now and then when threads call it at the same time
# (SystemError "AST constructor recursion depth mismatch", https://github.com/python/cpython/issues/106905).
_PARSING = threading.Lock()


class ZarrPixels:
    """Pixels of a 2-D (or N-D with leading axes of length 1) Zarr array."""

    def __init__(self, array: Any, lead: int) -> None:
        self._array, self._lead = array, (0,) * lead
        self.shape = (int(array.shape[-2]), int(array.shape[-1]))
        self.dtype = np.dtype(array.dtype)
        self.block_rows = int((getattr(array, "shards", None) or array.chunks)[-2])

    def read(self, rows: slice, cols: slice, out: NDArray[np.float32]) -> None:
        """Write the part into `out`, which has its shape and is native float32."""
        copy_as_float32(np.asarray(self._array[(*self._lead, rows, cols)]), out)

    def release(self, rows: slice) -> None:
        """Do nothing: no memory outlives a read."""


def open_npy(path: Path) -> Pixels:
    """Map a npy file; InputError if it is damaged or holds no 2-D array of real numbers."""
    try:
        with _PARSING:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: expected a whole npy file, found something else ({error}).") from error
    _check_numbers(path, array.dtype)
    return ArrayPixels(array[(0,) * leading_ones(array.shape, str(path))])


def open_zarr(path: Path) -> tuple[Pixels, fits.Header | None]:
    """Open a Zarr array and the FITS header in its attribute ``fits_header``; InputError if it holds no 2-D array."""
    try:
        array = zarr.open_array(path, mode="r")
    except (OSError, ValueError, KeyError, zarr.errors.BaseZarrError) as error:
        raise InputError(f"{path}: expected one readable Zarr array, found something else ({error}).") from error
    _check_numbers(path, np.dtype(array.dtype))
    text = array.attrs.get("fits_header")
    header = fits.Header.fromstring(str(text), sep="\n" if "\n" in str(text) else "") if text else None
    return ZarrPixels(array, leading_ones(array.shape, str(path))), header


def _check_numbers(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "fiu":
        raise InputError(f"{path}: expected real numbers, found elements of type {dtype}; convert the file to float32.")
