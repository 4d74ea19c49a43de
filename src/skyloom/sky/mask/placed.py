"""Small masks at places of large images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyloom.sky.mask import rle


@dataclass(frozen=True)
class PlacedMask:
    """A small mask and where its first pixel lies in an image; it may reach beyond the image's edges.

    Attributes
    ----------
    pixels
        bool (h, w).
    row0, col0
        Row and column of the image under the mask's first pixel; may be negative.
    """

    pixels: NDArray[np.bool_]
    row0: int
    col0: int

    @classmethod
    def from_rle(cls, counts: str, shape: tuple[int, int], *, row0: int = 0, col0: int = 0) -> "PlacedMask":
        """The box around the mask of run lengths in an image of a shape whose first pixel lies at row0 and col0."""
        x, y, width, height = (int(value) for value in rle.box(counts, shape))
        return cls(rle.decode(counts, shape)[y : y + height, x : x + width], row0 + y, col0 + x)

    def on(self, shape: tuple[int, int]) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
        """The window of an image of a shape that the mask covers, and the part of the mask in it; both may be empty."""
        rows, cols = (
            slice(min(max(first, 0), size), min(max(first + length, 0), size))
            for first, length, size in zip((self.row0, self.col0), self.pixels.shape, shape, strict=True)
        )
        row, col = rows.start - self.row0, cols.start - self.col0
        part = self.pixels[max(row, 0) :, max(col, 0) :][: rows.stop - rows.start, : cols.stop - cols.start]
        return (rows, cols), part
