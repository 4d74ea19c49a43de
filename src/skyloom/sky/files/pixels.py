"""Where pixels come from: one small interface over mapped files, arrays in memory and chunked Zarr arrays."""

import mmap
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError


class Pixels(Protocol):
    """A 2-D image of which parts can be read as native float32; reading is safe from several threads and after a fork.

    Attributes
    ----------
    shape
        Rows and columns.
    dtype
        Element type on disk, with its byte order.
    block_rows
        Number of rows that are decoded together; reading in multiples of it repeats no work.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    block_rows: int

    def read(self, rows: slice, cols: slice, out: NDArray[np.float32]) -> None:
        """Write the part into `out`, which has its shape and is native float32."""

    def release(self, rows: slice) -> None:
        """Give back the memory that was mapped to read these full rows."""


def copy_as_float32(raw: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Copy into native float32; float64 beyond the range of float32 becomes inf without a warning."""
    with np.errstate(over="ignore"):
        np.copyto(out, raw, casting="same_kind" if raw.dtype.kind == "f" else "unsafe")


@dataclass(frozen=True)
class Scaling:
    """Linear scaling of stored numbers (FITS BSCALE, BZERO) and the stored integer that means "no value" (BLANK)."""

    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None

    def apply(self, raw: NDArray[Any]) -> NDArray[np.float64]:
        """Return ``raw * scale + zero`` with blanks as NaN."""
        values = raw.astype(np.float64) * self.scale + self.zero
        if self.blank is not None:
            values[raw == self.blank] = np.nan
        return values


class ArrayPixels:
    """Pixels of a numpy array: a view of a mapped file (nothing is read before it is asked for) or plain memory."""

    block_rows = 1

    def __init__(
        self, array: NDArray[Any], *, scaling: Scaling | None = None, mapped: mmap.mmap | None = None, offset: int = 0
    ) -> None:
        self._array, self._scaling, self._mapped, self._offset = array, scaling, mapped, offset
        self.shape = (int(array.shape[0]), int(array.shape[1]))
        self.dtype = array.dtype

    def read(self, rows: slice, cols: slice, out: NDArray[np.float32]) -> None:
        """Write the part into `out`, which has its shape and is native float32."""
        raw = self._array[rows, cols]
        copy_as_float32(self._scaling.apply(raw) if self._scaling else raw, out)

    def release(self, rows: slice) -> None:
        """Unmap the pages of these rows, so that a pass over a large file does not keep the whole of it resident."""
        if self._mapped is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        row_bytes = self.shape[1] * self.dtype.itemsize
        first = -(-(self._offset + rows.start * row_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (self._offset + rows.stop * row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._mapped.madvise(mmap.MADV_DONTNEED, first, last - first)


def leading_ones(shape: tuple[int, ...], what: str) -> int:
    """Return how many leading axes of length 1 come before the two image axes.

    Raises
    ------
    InputError
        Fewer than two axes, an empty image, or a further axis that is longer than 1. `what` names the file.
    """
    if len(shape) < 2 or any(n != 1 for n in shape[:-2]) or 0 in shape[-2:]:
        raise InputError(
            f"{what}: expected a 2-D image (further leading axes only with length 1), found shape {tuple(shape)}; "
            "write each plane to a file of its own."
        )
    return len(shape) - 2
