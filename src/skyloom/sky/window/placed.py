"""Windows of any size at any place of an image, measured in one pass over its rows."""

import numpy as np
from numpy.typing import NDArray

from skyloom.sky.files.image import Image
from skyloom.sky.noise import robust_rms
from skyloom.sky.window.sliding import WindowStats, sample_step_px

AHEAD_ROWS = 256  # rows read beyond the window at hand: 10 MB of a 10,000 px mosaic


def centred_start(centre: NDArray[np.float64], size_px: NDArray[np.integer] | int, length_px: int) -> NDArray[np.int64]:
    """Return the first pixel of windows along one axis.

    Parameters
    ----------
    centre
        (N,) pixel positions, 0 at the middle of the first pixel.
    size_px
        Sides of the windows, at most `length_px`.
    length_px
        Length of the axis.

    Returns
    -------
    numpy.ndarray
        (N,) int64. The window is centred to half a pixel; near an end it is shifted inwards, never cut.
    """
    # Half-way cases go down, also when the last digits of a WCS put them a hair above.
    start = np.floor(centre - (np.asarray(size_px) - 1) / 2 + 0.5 - 1e-6).astype(np.int64)
    return np.clip(start, 0, length_px - np.asarray(size_px, dtype=np.int64))


def measure_windows_at(
    image: Image,
    row0: NDArray[np.integer],
    col0: NDArray[np.integer],
    size_px: NDArray[np.integer],
    *,
    rms_samples: int = 1024,
) -> WindowStats:
    """Measure windows wherever they lie; numbers are defined as in `skyloom.sky.window.sliding.measure_windows`.

    Parameters
    ----------
    image
        An open image.
    row0, col0, size_px
        (N,) first row, first column and side of each square window; all must lie inside the image.
    rms_samples
        About how many pixels of a window the noise is estimated from.

    Returns
    -------
    WindowStats
        One element per window, in the order given. Every row of the image is read at most once, and only the rows
        that the windows at hand need are in memory.
    """
    number = len(row0)
    blanks = np.zeros(number, np.int64)
    peak, rms = np.full(number, np.nan, np.float32), np.full(number, np.nan, np.float32)
    rows = _Rows(image)
    for i in np.argsort(row0, kind="stable"):
        size = int(size_px[i])
        window = rows.get(int(row0[i]), size)[:, col0[i] : col0[i] + size]
        finite = np.isfinite(window)
        blanks[i] = window.size - np.count_nonzero(finite)
        if blanks[i] < window.size:
            peak[i] = np.max(window, where=finite, initial=-np.inf) if blanks[i] else window.max()
        step = sample_step_px(size, rms_samples)
        rms[i] = robust_rms(window[::step, ::step].reshape(1, -1))[0]
    return WindowStats.of(row0, col0, size_px, blanks, peak, rms)


class _Rows:
    """Rows of an image that are asked for with first rows that never decrease; what lies above is forgotten."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._top = 0
        self._rows = np.empty((0, image.shape[1]), np.float32)

    def get(self, row0: int, height: int) -> NDArray[np.float32]:
        below = self._top + len(self._rows)
        if row0 + height > below:
            block = self._image.block_rows
            first = max(below, row0 // block * block)
            stop = min(-(-(row0 + height + AHEAD_ROWS) // block) * block, self._image.shape[0])
            kept = self._rows[max(row0 - self._top, 0) :] if row0 < below else self._rows[:0]
            self._top = first - len(kept)
            joined = np.empty((stop - self._top, self._image.shape[1]), np.float32)
            joined[: len(kept)] = kept
            self._image.strip(first, stop - first, out=joined[len(kept) :])
            self._rows = joined
        return self._rows[row0 - self._top : row0 - self._top + height]
