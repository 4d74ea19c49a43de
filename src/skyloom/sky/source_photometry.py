"""Fluxes of found sources: summed over their masks, and fitted with a point-spread function."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import InputError, unknown_choice
from skyloom.sky.drawing.psf_stamps import PsfStamps
from skyloom.sky.mask.placed import PlacedMask
from skyloom.sky.noise import robust_rms

NJY_MAG = 31.4  # AB magnitude of 1 nJy (Oke & Gunn 1983, ApJ 266, 713)
LEAST_WEIGHT = 0.1  # part of sum(P**2) on pixels that are there and not blank, below which a fit says nothing
OVERLAPS = ("split", "double")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fluxes:
    """Fluxes of n sources in C bands, float64 (n, C) each, in the unit of the pixels; NaN where nothing is known.

    Attributes
    ----------
    flux
        The flux.
    error
        Its standard deviation from the noise of the background; zeros where none was asked for.
    seen
        Of a mask the part of its pixels, of a PSF the part of its weight, that lies on pixels that are not blank.
    """

    flux: Floats
    error: Floats
    seen: Floats


def mask_flux(
    image: NDArray[np.float32],
    masks: Sequence[PlacedMask],
    *,
    overlap: Literal["split", "double"],
    pixel_area: ArrayLike = 1.0,
    level: ArrayLike = 0.0,
) -> Fluxes:
    """Sum the pixels of masks.

    Parameters
    ----------
    image
        float32 (C, H, W); pixels that are not finite are blank and left out of the sum.
    masks
        Of n sources, the most certain one first.
    overlap
        ``split``: a pixel of several masks is counted for the first of them alone. ``double``: for each, so that the
        fluxes of overlapping sources sum to more than the image has, as DeepDISC's magnitudes do.
    pixel_area
        By band, see `pixel_area_factor`.
    level
        Background to take off each pixel, (n, C) or what broadcasts to it.

    Returns
    -------
    Fluxes
        NaN where all pixels of a mask are blank, outside the image, or another source's.

    Raises
    ------
    ConfigError
        Unknown ``overlap``.
    """
    if overlap not in OVERLAPS:
        raise unknown_choice("overlap", overlap, OVERLAPS)
    number, bands, shape = len(masks), len(image), image.shape[1:]
    owner = np.full(shape, -1, np.int32)
    if overlap == "split":
        for place in range(number - 1, -1, -1):  # so that the first one, which comes last, keeps its pixels
            window, part = masks[place].on(shape)
            owner[window][part] = place
    flux, seen = np.zeros((2, number, bands))
    levels = np.broadcast_to(np.asarray(level, float), (number, bands))
    for place, mask in enumerate(masks):
        window, part = mask.on(shape)
        if overlap == "split":
            part = part & (owner[window] == place)
        pixels = image[(slice(None), *window)][:, part].astype(np.float64)
        good = np.isfinite(pixels)
        flux[place] = np.where(good, pixels - levels[place][:, None], 0.0).sum(axis=1)
        seen[place] = good.sum(axis=1)
    flux[seen == 0] = np.nan
    area = np.array([max(int(mask.pixels.sum()), 1) for mask in masks], float).reshape(-1, 1)
    return Fluxes(flux * np.asarray(pixel_area), np.zeros_like(flux), seen / area)


def psf_flux(
    image: NDArray[np.float32],
    x_px: ArrayLike,
    y_px: ArrayLike,
    stamps: Sequence[PsfStamps | None],
    *,
    variance: ArrayLike,
    pixel_area: ArrayLike = 1.0,
    level: ArrayLike = 0.0,
) -> Fluxes:
    """Fit the flux of a point source at fixed places: ``sum(I P / var) / sum(P**2 / var)``.

    Neighbours are not fitted together: light of another source within a stamp adds to a flux.

    Parameters
    ----------
    image
        float32 (C, H, W); pixels that are not finite, or have no positive variance, are left out of both sums, and so
        is what lies outside the image, so that neither biases a flux.
    x_px, y_px
        Places of n sources, 0 at the centre of the first pixel; NaN gives NaN.
    stamps
        Of each band; None where its PSF is not known, which gives NaN.
    variance
        Of the noise, by band (C,) or by pixel (C, H, W).
    pixel_area
        By band, see `pixel_area_factor`.
    level
        Background to take off each pixel, (n, C) or what broadcasts to it.

    Returns
    -------
    Fluxes
        NaN where less than a tenth of the weight lies on good pixels. The errors take the noise of pixels as
        independent; in images that were resampled it is not, see `noise_factor`.

    Notes
    -----
    The best linear unbiased estimate, e.g. Stetson 1987, PASP 99, 191; DeepDISC's magnitudes take equal variances.
    """
    xs, ys = (np.atleast_1d(np.asarray(value, float)) for value in (x_px, y_px))
    shape = image.shape[1:]
    noise = np.asarray(variance, float)
    if noise.ndim not in (1, 3) or len(noise) != len(image):
        raise InputError(f"expected a variance for each of {len(image)} bands, found an array of shape {noise.shape}")
    flux, error, seen = np.full((3, len(xs), len(image)), np.nan)
    levels = np.broadcast_to(np.asarray(level, float), flux.shape)
    for place in np.flatnonzero(np.isfinite(xs) & np.isfinite(ys)):
        for channel, stamp in enumerate(stamps):
            if stamp is None:
                continue
            fraction, row0, col0 = stamp.at(float(xs[place]), float(ys[place]))
            window, _ = PlacedMask(np.ones(fraction.shape, bool), row0, col0).on(shape)
            rows, cols = window
            part = fraction[rows.start - row0 : rows.stop - row0, cols.start - col0 : cols.stop - col0]
            pixels = image[channel][window].astype(np.float64) - levels[place, channel]
            var = np.broadcast_to(noise[channel] if noise.ndim == 1 else noise[channel][window], part.shape)
            good = np.isfinite(pixels) & (var > 0) & np.isfinite(var)
            weight = part[good] / var[good]
            total = float((weight * part[good]).sum())
            seen[place, channel] = (part[good] ** 2).sum() / (fraction**2).sum()
            if seen[place, channel] >= LEAST_WEIGHT and total > 0:
                flux[place, channel] = (weight * pixels[good]).sum() / total
                error[place, channel] = total**-0.5
    area = np.asarray(pixel_area, float)
    return Fluxes(flux * area, error * area, seen)


def pixel_area_factor(pixel_scale_arcsec: float, native_scale_arcsec: float, *, conserve_flux: bool) -> float:
    """What sums over an image that was resampled are multiplied by: its pixel's area over that of the original pixels.

    An interpolated pixel has the value that an original pixel has there, and there are more (or fewer) of them; an
    image that was resampled with its flux conserved needs no factor. A Rubin image on Roman's grid, 0.2 to 0.0575
    arcsec, would otherwise give fluxes 12.1 times too large.
    """
    return 1.0 if conserve_flux else (pixel_scale_arcsec / native_scale_arcsec) ** 2


def noise_factor(pixel_area: float, noise_kept: float) -> float:
    """What errors in a resampled image are multiplied by, where they took the noise of its pixels as independent.

    Parameters
    ----------
    pixel_area
        Area of a pixel over that of the original pixels.
    noise_kept
        What the interpolation left of the noise, see :func:`skyloom.sky.geometry.resample.noise_kept`.

    Returns
    -------
    float
        ``1 / (noise_kept * sqrt(pixel_area))``: of sources wider than an original pixel there is as much to know in the
        new pixels as in the original ones, whose noise was larger and which were fewer (the same argument as for
        drizzled images: Casertano et al. 2000, AJ 120, 2747, appendix A). At least 1: pixels far apart are independent.
    """
    return max(1.0, 1.0 / (noise_kept * pixel_area**0.5))


def njy(flux: ArrayLike, zero_point_mag: ArrayLike) -> Floats:
    """Fluxes in nJy of fluxes in a unit of which one has an AB magnitude."""
    return np.asarray(flux, float) * 10 ** (0.4 * (NJY_MAG - np.asarray(zero_point_mag, float)))


def ab_mag(flux_njy: ArrayLike) -> Floats:
    """AB magnitudes of fluxes in nJy; NaN where a flux is not above 0."""
    flux = np.asarray(flux_njy, float)
    return NJY_MAG - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))


def noise_of(image: NDArray[np.float32], free: NDArray[np.bool_] | None = None) -> Floats:
    """Noise per pixel of each band (C,), robust against sources, of the pixels that are free of them (H, W)."""
    pixels = image.reshape(len(image), -1) if free is None or not free.any() else image[:, free]
    return robust_rms(pixels).astype(np.float64)
