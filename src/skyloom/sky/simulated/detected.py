"""Finds and measures objects in a simulated image, as survey pipelines do it to make their tables of detections."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

THRESHOLD, PEAK = 2.5, 5.0  # times the noise of the smoothed image: of a pixel of an object, and of its peak
CONTRAST = 0.005  # a second peak in an object is an object of its own when it is at least this part of the highest,
RISE, AROUND = 4.0, 2.5  # and rises by this many times the noise above a smoothing this many times wider
MIN_PIXELS = 5
STEPS = 6  # of the windowed centroid


@dataclass(frozen=True)
class Found:
    """Objects in an image.

    Attributes
    ----------
    segments
        Number of the object of each pixel, from 1; 0 is background; (H, W) int32.
    x_px, y_px
        Centroids, the centre of the first pixel is 0; (n,).
    parent
        Number of the connected area an object shares with others, 0 when it is alone; (n,).
    """

    segments: NDArray[np.int32]
    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    parent: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.x_px)


def find_objects(image: NDArray[np.float32], sigma: float, fwhm_px: float) -> Found:
    """Find connected areas above the noise, and share those with several peaks out among them.

    Parameters
    ----------
    image
        Pixels; NaN is taken as background.
    sigma
        Noise per pixel.
    fwhm_px
        Width of the PSF, which is the width of the filter.

    Returns
    -------
    Found
        Objects row by row of their peaks.

    Notes
    -----
    The steps of Source Extractor (Bertin & Arnouts 1996, A&AS 117, 393) in their simplest form; each pixel of a blend
    goes to its nearest peak. Centroids are windowed by a Gaussian as its ``XWIN_IMAGE`` are.
    """
    width = fwhm_px / 2.3548
    pixels = np.nan_to_num(image, nan=0.0)
    smooth = ndimage.gaussian_filter(pixels, width, truncate=4.0)
    noise = sigma / (2 * width * np.sqrt(np.pi))
    labels, number = ndimage.label(smooth > THRESHOLD * noise, structure=np.ones((3, 3)))
    highest = np.zeros(number + 1, smooth.dtype)
    np.maximum.at(highest, labels.ravel(), smooth.ravel())
    reach = 2 * round(fwhm_px) + 1
    top = (smooth == ndimage.maximum_filter(smooth, size=reach)) & (labels > 0) & (smooth > PEAK * noise)
    top &= smooth - ndimage.gaussian_filter(pixels, AROUND * width, truncate=4.0) > RISE * noise
    large = np.bincount(labels.ravel(), minlength=number + 1) >= MIN_PIXELS
    row, col = np.nonzero(top & (smooth >= CONTRAST * highest[labels]) & large[labels])
    area = labels[row, col]
    segments = _share(labels, row, col, area)
    together = np.bincount(area, minlength=number + 1) > 1
    x, y = _centroids(pixels, row, col, width)
    return Found(segments, x, y, np.where(together[area], area, 0).astype(np.int64))


def psf_flux(
    image: NDArray[np.float32], x_px: NDArray[np.float64], y_px: NDArray[np.float64], kernel: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Flux of a point source at each place: ``sum(I P) / sum(P**2)``, shape (n,)."""
    filtered = signal.fftconvolve(np.nan_to_num(image, nan=0.0), kernel[::-1, ::-1], mode="same")
    at: NDArray[np.float64] = ndimage.map_coordinates(filtered, [y_px, x_px], order=3, mode="nearest")
    return at / (kernel**2).sum()


def aperture_flux(
    image: NDArray[np.float32], x_px: NDArray[np.float64], y_px: NDArray[np.float64], radius_px: float
) -> tuple[NDArray[np.float64], float]:
    """Flux within a circle around each place, shape (n,), and the number of pixels in it."""
    disc = disc_of(radius_px)
    summed = signal.fftconvolve(np.nan_to_num(image, nan=0.0), disc, mode="same")
    at: NDArray[np.float64] = ndimage.map_coordinates(summed, [y_px, x_px], order=3, mode="nearest")
    return at, float(disc.sum())


def disc_of(radius_px: float) -> NDArray[np.float64]:
    """Square of ones within a circle around its middle pixel, zeros outside."""
    half = int(np.ceil(radius_px))
    y, x = np.ogrid[-half : half + 1, -half : half + 1]
    return (x**2 + y**2 <= radius_px**2).astype(float)


def _share(
    labels: NDArray[np.int32], row: NDArray[np.intp], col: NDArray[np.intp], area: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Numbers of the peaks, by pixel: of the only peak of its area, or of the nearest."""
    owner = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    owner[area] = np.arange(1, len(row) + 1)
    out = owner[labels]
    boxes = ndimage.find_objects(labels)
    shared, count = np.unique(area, return_counts=True)
    for number in shared[count > 1]:
        box = boxes[number - 1]
        mine = np.flatnonzero(area == number)
        y, x = np.nonzero(labels[box] == number)
        away = (y[:, None] + box[0].start - row[mine]) ** 2 + (x[:, None] + box[1].start - col[mine]) ** 2
        out[y + box[0].start, x + box[1].start] = mine[away.argmin(axis=1)] + 1
    return out.astype(np.int32)


def _centroids(
    pixels: NDArray[np.float32], row: NDArray[np.intp], col: NDArray[np.intp], width: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    half = int(np.ceil(4 * width))
    padded = np.pad(pixels, half)
    grid = np.arange(-half, half + 1)
    stamps = padded[row[:, None, None] + half + grid[:, None], col[:, None, None] + half + grid]
    dx, dy = np.zeros((2, len(row)))
    for _ in range(STEPS):
        x, y = grid - dx[:, None], grid - dy[:, None]
        weight = np.exp(-(x[:, None, :] ** 2 + y[:, :, None] ** 2) / (2 * width**2)) * stamps
        total = np.maximum(weight.sum(axis=(1, 2)), 1e-9)
        dx = np.clip(dx + 2 * (weight * x[:, None, :]).sum(axis=(1, 2)) / total, -width, width)
        dy = np.clip(dy + 2 * (weight * y[:, :, None]).sum(axis=(1, 2)) / total, -width, width)
    return col + dx, row + dy
