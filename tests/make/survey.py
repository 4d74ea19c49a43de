"""Tiny surveys and artifacts for tests, each in the true layout."""

from pathlib import Path

import numpy as np
from astropy.io import fits


def write_image(path: Path, pixels: np.ndarray, *, wcs: bool = True, unit: str | None = "Jy/beam") -> Path:
    """Write a FITS image; with a WCS of 1.5 arcsec per pixel around RA 123, Dec +45."""
    header = fits.Header()
    if unit:
        header["BUNIT"] = unit
    if wcs:
        height, width = pixels.shape[-2:]
        header.update({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRVAL1": 123.0, "CRVAL2": 45.0})
        header.update({"CRPIX1": (width + 1) / 2, "CRPIX2": (height + 1) / 2})
        header.update({"CDELT1": -1.5 / 3600, "CDELT2": 1.5 / 3600, "CUNIT1": "deg", "CUNIT2": "deg"})
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(pixels, header).writeto(path)
    return path


def sky(height: int, width: int, *, seed: int = 0, sources: int = 12) -> np.ndarray:
    """Noise of 1e-4 Jy/beam with Gaussian sources, big-endian float64."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1e-4, (height, width))
    y, x = np.mgrid[:height, :width]
    for row, col, flux in zip(
        rng.uniform(0, height, sources), rng.uniform(0, width, sources), rng.uniform(1, 30, sources), strict=True
    ):
        image += flux * 1e-3 * np.exp(-((y - row) ** 2 + (x - col) ** 2) / (2 * 1.7**2))
    return image.astype(">f8")
