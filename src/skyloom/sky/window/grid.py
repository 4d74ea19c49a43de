"""A regular grid of windows on a tile that keeps out of its border, and which window holds a pixel."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError


def grid_starts(length_px: int, window_px: int, border_px: int) -> NDArray[np.int64]:
    """First pixels of the windows along one axis.

    As many windows as fit side by side between the borders; what is left over becomes equal gaps between them. With
    8,825 px, windows of 512 px and a border of 500 px these are 15 windows, 522 px apart.

    Parameters
    ----------
    length_px
        Length of the axis.
    window_px
        Side of a window.
    border_px
        Pixels at each end that no window touches.

    Returns
    -------
    ndarray
        int64, shape (n,), ascending; empty when no window fits.
    """
    usable = length_px - 2 * border_px
    number = max(0, usable // window_px)
    spacing = (usable - window_px) // (number - 1) if number > 1 else window_px
    return border_px + spacing * np.arange(number, dtype=np.int64)


def tile_windows(
    path: Path, shape: tuple[int, int], window_px: int, border_px: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First rows and first columns of the grid of a tile; the windows are all pairs, row by row.

    Raises
    ------
    InputError
        No window fits; the message names the file.
    """
    rows, cols = (grid_starts(length, window_px, border_px) for length in shape)
    if not len(rows) or not len(cols):
        needed = window_px + 2 * border_px
        raise InputError(
            f"{path}: expected a tile of at least {needed} x {needed} px (one window of {window_px} px and the border "
            f"of {border_px} px), found {shape[0]} x {shape[1]} px; choose smaller window_px or border_px."
        )
    return rows, cols


def window_of(starts: NDArray[np.int64], window_px: int, position_px: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which window of an axis holds each position.

    Parameters
    ----------
    starts
        From `grid_starts`, shape (n,).
    window_px
        Side of a window.
    position_px
        Shape (N,); the centre of the first pixel is 0, so a window from s spans [s - 0.5, s + window_px - 0.5).

    Returns
    -------
    ndarray
        int64, shape (N,); -1 in the border and in gaps.
    """
    edge = np.asarray(position_px) + 0.5
    found = np.searchsorted(starts, edge, side="right") - 1
    inside = (found >= 0) & (edge < starts[found] + window_px)
    return np.where(inside, found, -1)
