"""Sliding windows over an image and what is in each of them, measured in one pass over the file.

A naive index cuts every window out and looks at each pixel once per window that covers it. The pass that replaces it
lives in `skyloom.sky.window.scan`.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import ConfigError, InputError
from skyloom.sky.files.image import Image
from skyloom.sky.window.scan import Axis, scan


@dataclass(frozen=True)
class WindowStats:
    """What `measure_windows` found, one element per window, in row-major order of the windows.

    Attributes
    ----------
    row0, col0
        int32, first row and column of the window.
    nan_frac
        float32, fraction of blank pixels (NaN or infinite); exactly 0 only if there is none.
    rms
        float32, robust noise level in image units; NaN if none of the sampled pixels is finite.
    peak
        float32, largest finite pixel in image units; NaN if the window is wholly blank.
    peak_snr
        float32, `peak` / `rms`; NaN where either is NaN or `rms` is 0, because nothing is known of the noise there.
    size_px
        int32, side of the window.
    """

    row0: NDArray[np.int32]
    col0: NDArray[np.int32]
    nan_frac: NDArray[np.float32]
    rms: NDArray[np.float32]
    peak: NDArray[np.float32]
    peak_snr: NDArray[np.float32]
    size_px: NDArray[np.int32]

    @classmethod
    def of(
        cls,
        row0: NDArray[np.integer],
        col0: NDArray[np.integer],
        size_px: NDArray[np.integer],
        blanks: NDArray[np.int64],
        peak: NDArray[np.float32],
        rms: NDArray[np.float32],
    ) -> Self:
        """Finish what was counted per window, each of shape (windows,); every way to measure windows ends here."""
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = np.where(rms > 0, peak / rms, np.nan).astype(np.float32)
        nan_frac = (blanks / size_px.astype(np.int64) ** 2).astype(np.float32)
        int32 = np.int32
        return cls(row0.astype(int32), col0.astype(int32), nan_frac, rms, peak, snr, size_px.astype(int32))

    def __len__(self) -> int:
        return len(self.row0)


def stride_px(window_px: int, overlap: float) -> int:
    """Return the step between windows in pixels, ``round(window_px * (1 - overlap))`` and at least 1."""
    if window_px < 1:
        raise ConfigError(f"window_px={window_px}: expected a window of at least 1 px.")
    if not 0.0 <= overlap < 1.0:
        raise ConfigError(f"overlap={overlap}: expected a fraction from 0 (side by side) to below 1.")
    return max(1, round(window_px * (1.0 - overlap)))


def window_starts(length_px: int, window_px: int, stride_px: int, *, cover_edge: bool = False) -> NDArray[np.int64]:
    """Return the first pixel of every window that fits into an axis.

    A remainder at the far end is not covered, unless `cover_edge` adds one more window that ends with the axis.
    """
    starts = np.arange(0, length_px - window_px + 1, stride_px, dtype=np.int64)
    if cover_edge and len(starts) and starts[-1] + window_px < length_px:
        starts = np.append(starts, length_px - window_px)
    return starts


def sample_step_px(window_px: int, rms_samples: int) -> int:
    """Return the step of the regular grid in a window that holds about `rms_samples` pixels."""
    return -(-window_px // max(1, round(rms_samples**0.5)))


def measure_windows(
    image: Image,
    window_px: int,
    overlap: float,
    *,
    cover_edge: bool = False,
    rms_samples: int = 1024,
    threads: int = 2,
) -> WindowStats:
    """Measure every sliding window of an image in one pass.

    Blank are the pixels that are NaN or infinite in float32, which is what `Image.read` returns.

    Parameters
    ----------
    image
        An open image.
    window_px
        Side of the square windows in pixels.
    overlap
        Fraction of a window's side that it shares with the next one, 0 to below 1; see `stride_px`.
    cover_edge
        Whether a last row and column of windows, flush with the far edges, covers what the stride leaves over.
    rms_samples
        About how many pixels of a window the noise is estimated from. They lie on a regular grid that starts at the
        window's first pixel, with a step of ``ceil(window_px / sqrt(rms_samples))`` in both axes. Neighbouring pixels
        share a beam, so that taking all of them would add little.
    threads
        Number of threads; the result does not depend on it. Each holds a few strips of the image.

    Returns
    -------
    WindowStats
        One element per window, row by row. Noise is `skyloom.sky.noise.robust_rms` of the sampled pixels.

    Raises
    ------
    ConfigError
        An option is outside its range.
    InputError
        The image is smaller than a window.
    """
    if rms_samples < 1 or threads < 1:
        raise ConfigError(f"rms_samples={rms_samples}, threads={threads}: expected at least 1 of each.")
    stride = stride_px(window_px, overlap)
    height, width = image.shape
    if window_px > min(height, width):
        raise InputError(
            f"{image.path}: expected an image of at least {window_px} x {window_px} px (one window), found {height} x "
            f"{width} px; choose window_px <= {min(height, width)} or leave this image out."
        )
    sample_step = sample_step_px(window_px, rms_samples)
    row_starts = window_starts(height, window_px, stride, cover_edge=cover_edge)
    col_starts = window_starts(width, window_px, stride, cover_edge=cover_edge)
    rows = Axis.of(row_starts, window_px, sample_step)
    cols = Axis.of(col_starts, window_px, sample_step)
    peak, blanks, rms = scan(image, rows, cols, threads=threads)
    row0, col0 = (part.ravel() for part in np.meshgrid(row_starts, col_starts, indexing="ij"))
    size_px = np.full(len(row0), window_px)
    return WindowStats.of(row0, col0, size_px, blanks.ravel(), peak.ravel(), rms.ravel())
