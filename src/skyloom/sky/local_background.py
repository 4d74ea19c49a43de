"""Level of the background around sources: the median of a ring without the pixels of other sources."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_PIXELS = 20  # free pixels in a ring, below which its median (of 1.25 sigma / sqrt(n)) is too noisy


def ring_median(
    image: NDArray[np.float32],
    x_px: ArrayLike,
    y_px: ArrayLike,
    free: NDArray[np.bool_],
    *,
    inner_px: float,
    outer_px: float,
) -> NDArray[np.float64]:
    """Median of the free pixels of a ring around each source.

    Parameters
    ----------
    image
        float32 (C, H, W); pixels that are not finite are left out.
    x_px, y_px
        Centres of n rings, 0 at the centre of the first pixel.
    free
        bool (H, W): pixels of no source.
    inner_px, outer_px
        Radii of the ring.

    Returns
    -------
    array of float64, shape (n, C)
        In the unit of the pixels. Where a ring has fewer than `LEAST_PIXELS` free pixels, in a crowd or without a
        position, the median of all free pixels of the image; 0 where there are none.

    Notes
    -----
    The local sky of aperture and PSF photometry, e.g. Stetson 1987, PASP 99, 191; a median in the place
    of his mode, as the pixels of all detected sources are left out before.
    """
    xs, ys = (np.atleast_1d(np.asarray(value, float)) for value in (x_px, y_px))
    height, width = free.shape
    level = np.tile(_median(image[:, free], 1), (len(xs), 1))
    reach = int(np.ceil(outer_px))
    for place in np.flatnonzero(np.isfinite(xs) & np.isfinite(ys)):
        row, col = round(float(ys[place])), round(float(xs[place]))
        window = (slice(max(row - reach, 0), max(min(row + reach + 1, height), 0)),
                  slice(max(col - reach, 0), max(min(col + reach + 1, width), 0)))  # fmt: skip
        rows, cols = np.ogrid[window]
        square = (rows - ys[place]) ** 2 + (cols - xs[place]) ** 2
        ring = (square >= inner_px**2) & (square <= outer_px**2) & free[window]
        found = _median(image[(slice(None), *window)][:, ring], LEAST_PIXELS)
        level[place] = np.where(np.isfinite(found), found, level[place])
    return np.nan_to_num(level, nan=0.0)


def _median(pixels: NDArray[np.float32], least: int) -> NDArray[np.float64]:
    """Median of the finite values of each row; NaN where there are fewer than `least`."""
    good = np.isfinite(pixels)
    return np.array(
        [np.median(row[ok]) if np.count_nonzero(ok) >= least else np.nan for row, ok in zip(pixels, good, strict=True)],
        dtype=np.float64,
    )
