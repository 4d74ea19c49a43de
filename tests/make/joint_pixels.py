"""Pixels of a tiny sky: tangent planes, round sources, and FITS files with several planes."""

from pathlib import Path

import numpy as np
import polars as pl
from astropy.io import fits
from astropy.wcs import WCS

ROMAN_NOISE, LSST_NOISE = 2.0, 0.05


def tangent_wcs(ra_deg: float, dec_deg: float, scale_arcsec: float, shape: tuple[int, int]) -> WCS:
    """Tangent plane around the middle of an image of this shape, north up and east to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra_deg, dec_deg]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cdelt = [-scale_arcsec / 3600, scale_arcsec / 3600]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.set()
    return wcs


def draw(
    sources: pl.DataFrame, wcs: WCS, shape: tuple[int, int], sigma_px: float, zero_point_mag: float
) -> tuple[np.ndarray, np.ndarray]:
    """Round Gaussians of all sources: their sum (H, W), and which is brightest where Roman sees one, else -1 (H, W)."""
    x0, y0 = wcs.all_world2pix(sources["ra"].to_numpy(), sources["dec"].to_numpy(), 0)
    flux = 10 ** ((zero_point_mag - sources["mag"].to_numpy()) / 2.5) / (2 * np.pi * sigma_px**2)
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])
    total, best, owner = np.zeros(shape), np.zeros(shape), np.full(shape, -1)
    for i in range(len(sources)):
        one = (
            flux[i] * np.exp(-((y - y0[i]) ** 2) / (2 * sigma_px**2)) * np.exp(-((x - x0[i]) ** 2) / (2 * sigma_px**2))
        )
        total += one
        owner[one > best] = i
        np.maximum(best, one, out=best)
    return total, np.where(best > 5 * ROMAN_NOISE, owner, -1)


def write_images(path: Path, wcs: WCS, planes: dict[str, np.ndarray]) -> None:
    hdus = [fits.PrimaryHDU()]
    hdus += [fits.ImageHDU(pixels, wcs.to_header(), name=name) for name, pixels in planes.items()]
    fits.HDUList(hdus).writeto(path, overwrite=True)
