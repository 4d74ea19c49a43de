"""Mosaics with sources in known places, and a stand-in for a detector: connected pixels above a threshold."""

from pathlib import Path

import numpy as np
import polars as pl
from astropy.io import fits
from scipy import ndimage

from skyloom.sky.mask.rle import encode

SCHEMA = {
    "image_row": pl.Int32,
    **dict.fromkeys(("x0_px", "y0_px", "x1_px", "y1_px", "score"), pl.Float32),
    "class": pl.Int8,
    "rle": pl.String,
}


def sky(height: int, width: int, *, spacing_px: float = 14.0, seed: int = 0, sigma_px: float = 1.6) -> np.ndarray:
    """Round sources of 20 to 200 counts on a jittered grid, so that they lie everywhere and apart, without noise."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.arange(0, height, spacing_px), np.arange(0, width, spacing_px), indexing="ij")
    y, x = (axis.ravel() + rng.uniform(-2, 2, axis.size) for axis in (y, x))
    image = np.zeros((height, width))
    rows, cols = np.mgrid[:height, :width]
    for row, col, peak in zip(y, x, rng.uniform(20, 200, y.size), strict=True):
        near = np.s_[max(int(row) - 10, 0) : max(int(row) + 11, 0), max(int(col) - 10, 0) : max(int(col) + 11, 0)]
        image[near] += peak * np.exp(-((rows[near] - row) ** 2 + (cols[near] - col) ** 2) / (2 * sigma_px**2))
    return image.astype("f4")


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    wcs: bool = True,
    unit: str | None = "nJy",
    scale_arcsec: float = 0.2,
    **cards: object,
) -> Path:
    """Write a FITS image around RA 0 (so that it lies on both sides of it), Dec -30."""
    header = fits.Header()
    if unit:
        header["BUNIT"] = unit
    if wcs:
        height, width = pixels.shape
        header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 0.0, "CRVAL2": -30.0})
        header.update({"CRPIX1": (width + 1) / 2, "CRPIX2": (height + 1) / 2})
        header.update({"CDELT1": -scale_arcsec / 3600, "CDELT2": scale_arcsec / 3600})
    header.update(cards)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(pixels.astype(">f4"), header).writeto(path)
    return path


def threshold_detector(image: np.ndarray, row: int, *, threshold: float = 5.0) -> pl.DataFrame:
    """Detections of one image (C, H, W): connected pixels above a threshold, the better the more of them."""
    labels, number = ndimage.label(np.nan_to_num(image[0]) > threshold)
    rows = []
    for place, (ys, xs) in enumerate(ndimage.find_objects(labels, number), start=1):
        mask = labels == place
        score = 1 - 1 / (1 + np.count_nonzero(mask))
        rows.append((row, xs.start, ys.start, xs.stop, ys.stop, score, 0, encode(mask)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def detections(source: object, **options: float) -> pl.DataFrame:
    """Detections of every image of a source."""
    numbers = range(len(source.images))
    return pl.concat([threshold_detector(source.read(row), row, **options) for row in numbers])
