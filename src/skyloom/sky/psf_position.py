"""Where point sources lie: the position at which the PSFs of all bands fit best, from one that is nearly right."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.sky.drawing.psf_stamps import STEPS_PER_PX, PsfStamps
from skyloom.sky.mask.placed import PlacedMask

CORE = 0.05  # of the peak, above which pixels of a PSF are fitted; further out neighbours weigh more than the source
LEAST_SNR = 7.0  # of all bands together, below which a fit is no better than the position it began with
LEAST_REACH_PX = 2.0  # how far from where it began a fit may end, whatever the PSF
STEPS, STEP_PX, DONE_PX = 20, 1.0, 0.005  # most steps, the longest one, and that after which nothing changes

Floats = NDArray[np.float64]


def fwhm_px(stamp: PsfStamps) -> float:
    """Width of the Gaussian that has the noise-equivalent area of a PSF, 1 / sum(P**2) = 4 pi sigma**2."""
    fraction, _, _ = stamp.at(0.0, 0.0)
    return float(np.sqrt(8 * np.log(2) / (4 * np.pi * (fraction**2).sum())))


def refined_positions(
    image: NDArray[np.float32],
    x_px: ArrayLike,
    y_px: ArrayLike,
    stamps: Sequence[PsfStamps | None],
    *,
    variance: ArrayLike,
    level: ArrayLike = 0.0,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Move positions to where a point source fits best in all bands at once.

    Parameters
    ----------
    image
        float32 (C, H, W); pixels that are not finite are left out.
    x_px, y_px
        Where n sources are about, 0 at the centre of the first pixel.
    stamps
        PSF of each band; bands without one (None) take no part.
    variance
        Of the noise of each band (C,), in the unit of the pixels squared; bands without a positive one take no part.
    level
        Background to take off each pixel, (n, C) or what broadcasts to it.

    Returns
    -------
    positions : array of float64, shape (n, 2)
        x and y. Where they began if the source is fainter than `LEAST_SNR`, lies on too few good pixels, or the fit
        left for a place further away than half the widest FWHM and `LEAST_REACH_PX`.
    moved : array of bool, shape (n,)
        Whether the fit was taken.

    Notes
    -----
    Least squares of the model ``f_b P_b(x - x0, y - y0)`` with a flux for each band and one position for all, weighted
    by the noise, as in Stetson 1987, PASP 99, 191, section III. Gauss-Newton steps, which are right for stars and too
    short in galaxies, learn their length from how they change (Broyden 1965, Math. Comp. 19, 577). The error of a
    position is about 1.4 sigma_PSF / SNR (Condon 1997, PASP 109, 166, eq. 21). In the middle of a symmetric galaxy the
    residuals are symmetric, too: the fit ends there, although it is no point.
    """
    began = np.stack([np.atleast_1d(np.asarray(value, float)) for value in (x_px, y_px)], axis=1)
    noise = np.asarray(variance, float)
    levels = np.broadcast_to(np.asarray(level, float), (len(began), len(image)))
    bands = [(c, stamp) for c, stamp in enumerate(stamps) if stamp and np.isfinite(noise[c]) and noise[c] > 0]
    found, moved = began.copy(), np.zeros(len(began), dtype=bool)
    reach_px = max([LEAST_REACH_PX, *(fwhm_px(stamp) / 2 for _, stamp in bands)])
    for place in np.flatnonzero(np.isfinite(began).all(axis=1)) if bands else ():
        end = _fit(image, began[place], bands, noise, levels[place], reach_px)
        if end is not None:
            found[place], moved[place] = end, True
    return found, moved


def _fit(
    image: NDArray[np.float32],
    began: Floats,
    bands: Sequence[tuple[int, PsfStamps]],
    variance: Floats,
    level: Floats,
    reach_px: float,
) -> Floats | None:
    """Where the steps end, (2,); None if they do not, or too far away, or the source is too faint."""
    at, inverse, before = began, -np.eye(2), None
    for _ in range(STEPS):
        drawn = np.round(at * STEPS_PER_PX) / STEPS_PER_PX  # where the stamps can be had
        step, snr = _step(image, drawn, bands, variance, level)
        if snr < LEAST_SNR:
            return None
        if before is not None:
            moved, changed = drawn - before[0], step - before[1]
            scale = float(moved @ inverse @ changed)
            if abs(scale) > 1e-12:
                inverse = inverse + np.outer(moved - inverse @ changed, moved @ inverse) / scale
        before = drawn, step
        longer = -inverse @ step
        last, at = at, drawn + longer * min(1.0, STEP_PX / max(float(np.hypot(*longer)), 1e-9))
        if np.hypot(*(at - began)) > reach_px:
            return None
        if np.hypot(*(at - last)) < DONE_PX:
            return at
    return None


def _step(
    image: NDArray[np.float32],
    at: Floats,
    bands: Sequence[tuple[int, PsfStamps]],
    variance: Floats,
    level: Floats,
) -> tuple[Floats, float]:
    """Next step from a position, (2,) in x and y, and the signal to noise of all bands there."""
    normal, right, signal = np.zeros((2, 2)), np.zeros(2), 0.0
    for channel, stamp in bands:
        fraction, row0, col0 = stamp.at(float(at[0]), float(at[1]))
        window, _ = PlacedMask(np.ones(fraction.shape, bool), row0, col0).on((image.shape[1], image.shape[2]))
        corners = zip(window, (row0, col0), strict=True)
        rows, cols = (slice(part.start - first, part.stop - first) for part, first in corners)
        pixels = image[channel][window].astype(np.float64) - level[channel]
        good = np.isfinite(pixels) & (fraction[rows, cols] > CORE * fraction.max())
        model, light = fraction[rows, cols][good], pixels[good]
        total = float((model**2).sum())
        flux = float((model * light).sum()) / total if total else 0.0
        if flux <= 0:
            continue
        slope = flux * np.stack([_slope(stamp, at, axis)[rows, cols][good] for axis in (0, 1)])
        normal += slope @ slope.T / variance[channel]
        right += slope @ (light - flux * model) / variance[channel]
        signal += flux**2 * total / variance[channel]
    if not np.linalg.det(normal) > 0:
        return np.zeros(2), 0.0
    step: Floats = np.linalg.solve(normal, right).astype(np.float64)
    return step, float(np.sqrt(signal))


def _slope(stamp: PsfStamps, at: Floats, axis: int) -> Floats:
    """Change of a stamp per pixel that its source moves along an axis (0: x), from the two stamps beside it."""
    _, row0, col0 = stamp.at(float(at[0]), float(at[1]))
    shift = np.zeros(2)
    shift[axis] = 1 / STEPS_PER_PX
    (more, row1, col1), (less, row2, col2) = (stamp.at(*(at + sign * shift).tolist()) for sign in (1, -1))
    more = np.roll(more, (row1 - row0, col1 - col0), axis=(0, 1))
    less = np.roll(less, (row2 - row0, col2 - col0), axis=(0, 1))
    made: Floats = (more - less) * (STEPS_PER_PX / 2)
    return made
