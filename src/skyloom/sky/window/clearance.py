"""How far positions in an image are from its edges and from its blanked parts."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from skyloom.sky.files.image import Image

BLOCK_PX = 16  # blanks are mapped to this precision: a mosaic of 10,000 px becomes 625 x 625 blocks
STRIP_ROWS = 16 * BLOCK_PX


def clearance(
    image: Image, row: NDArray[np.float64], col: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Measure how deep inside the good part of an image positions lie, in one pass.

    Parameters
    ----------
    image
        An open image.
    row, col
        (N,) pixel positions inside the image, 0 at the middle of the first pixel.

    Returns
    -------
    margin_px
        (N,) float32, the smaller of the distances to the nearest edge and to the nearest block of 16 x 16 px that
        holds a blank (NaN or infinite) pixel, the latter between the middles of blocks.
    blank
        (N,) bool, whether the pixel at the position itself is blank.
    """
    height, width = image.shape
    at_row = np.clip(np.rint(row).astype(np.int64), 0, height - 1)
    at_col = np.clip(np.rint(col).astype(np.int64), 0, width - 1)
    blank = np.zeros(len(row), bool)
    holed = np.zeros((-(-height // BLOCK_PX), -(-width // BLOCK_PX)), bool)
    by_row = np.argsort(at_row, kind="stable")
    for row0 in range(0, height, STRIP_ROWS):
        stop = min(row0 + STRIP_ROWS, height)
        blanks = ~np.isfinite(image.strip(row0, stop - row0))
        low, high = np.searchsorted(at_row, [row0, stop], sorter=by_row)
        here = by_row[low:high]
        blank[here] = blanks[at_row[here] - row0, at_col[here]]
        rows = np.logical_or.reduceat(blanks, np.arange(0, stop - row0, BLOCK_PX), axis=0)
        part = np.logical_or.reduceat(rows, np.arange(0, width, BLOCK_PX), axis=1)
        holed[row0 // BLOCK_PX :][: len(part)] = part
    margin = np.minimum.reduce([row + 0.5, height - 0.5 - row, col + 0.5, width - 0.5 - col])
    if holed.any():
        to_hole = distance_transform_edt(~holed) * BLOCK_PX
        margin = np.minimum(margin, to_hole[at_row // BLOCK_PX, at_col // BLOCK_PX])
    return margin.astype(np.float32), blank
