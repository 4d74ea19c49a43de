"""Noise level of an image from its pixels, hardly moved by the sources in it."""

import numpy as np
from numpy.typing import NDArray

MAD_TO_SIGMA = 1.4826  # 1 / 0.6745, the third quartile of the standard normal distribution


def robust_rms(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1.4826 times the median absolute deviation about the median, for every row.

    Parameters
    ----------
    samples
        (N, M) pixels, row by row; those that are NaN or infinite are left out.

    Returns
    -------
    numpy.ndarray
        (N,) float32 in the unit of the pixels; for Gaussian noise it estimates the standard deviation. NaN for a row
        without a finite pixel, 0 if more than half of them are equal.

    Notes
    -----
    The factor and the estimator: Rousseeuw & Croux 1993, J. Am. Stat. Assoc. 88, 1273.
    """
    out = np.full(len(samples), np.nan, np.float32)
    finite = np.isfinite(samples)
    whole = finite.all(axis=1)
    out[whole] = _rms_without_blanks(samples[whole])
    for i in np.flatnonzero(~whole & finite.any(axis=1)):
        out[i] = _rms_without_blanks(samples[i, finite[i]][None])[0]
    return out


def _rms_without_blanks(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    ordered = np.sort(samples, axis=1)
    low, high = (ordered.shape[1] - 1) // 2, ordered.shape[1] // 2
    median = ((ordered[:, low].astype(np.float64) + ordered[:, high]) / 2).astype(np.float32)[:, None]

    def nearest(k: int) -> NDArray[np.float32]:
        """Distance from the median to its k-th nearest pixel."""
        # The k nearest pixels are neighbours in the sorted row, so the distance is the smallest, over all runs of k
        # neighbours, of the distance to the farther end. Much cheaper than to sort the distances.
        farther = np.maximum(median - ordered[:, : ordered.shape[1] - k + 1], ordered[:, k - 1 :] - median)
        return farther.min(axis=1)

    return MAD_TO_SIGMA * (nearest(low + 1).astype(np.float64) + nearest(high + 1)) / 2
