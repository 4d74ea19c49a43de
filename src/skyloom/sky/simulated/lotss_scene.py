"""Render and write simulated LoTSS mosaics: sources, beam-correlated noise, blanked edges and the island mask."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from astropy.io import fits
from astropy.wcs import WCS
from scipy import ndimage

from skyloom.errors import ConfigError
from skyloom.sky.simulated.lotss_layout import (
    BEAM_ARCSEC,
    FWHM_PER_SIGMA,
    PIXEL_SCALE_ARCSEC,
    Pointing,
    beam_area_px,
    mask_header,
    mosaic_header,
    mosaic_radius_deg,
    mosaic_rng,
    source_rng,
    survey_layout,
)
from skyloom.sky.simulated.lotss_shapes import add_sources
from skyloom.sky.simulated.lotss_sources import MARGIN_DEG, make_sources, unit_vectors

__all__ = [
    "Mosaic",
    "Pointing",
    "beam_area_px",
    "correlated_noise",
    "make_sources",
    "mosaic_rng",
    "render_mosaic",
    "source_rng",
    "survey_layout",
    "write_mosaic",
]

_ROWS_PER_STRIP = 512


@dataclass(frozen=True)
class Mosaic:
    """A rendered mosaic.

    Attributes
    ----------
    name
        Folder name, as LoTSS (``P123+45``).
    image
        (size, size) float64, Jy/beam, NaN where blanked.
    mask
        (size, size) float32, 1 on islands of emission, else 0.
    sources
        The catalogue rows whose position falls on the image, with ``row``, ``col`` (0-based pixel coordinates,
        centre of the first pixel is 0), ``peak_jy_per_beam`` (brightest pixel of this source alone, without noise)
        and ``blanked`` (the position is NaN in the image).
    header
        Header of the image.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    sources: pl.DataFrame
    header: fits.Header


def correlated_noise(
    rng: np.random.Generator, size_px: int, *, rms_jy_per_beam: float, beam_fwhm_px: float
) -> np.ndarray:
    """White noise convolved with the beam and scaled so that a pixel's standard deviation is ``rms_jy_per_beam``.

    The scale is exact, not measured: the variance of filtered white noise is the sum of the squared kernel, which is
    found by filtering a unit impulse. Edges wrap round, so that the statistics are the same everywhere.

    Returns
    -------
    ndarray
        (size_px, size_px) float64, Jy/beam.
    """
    noise = rng.standard_normal((size_px, size_px))
    sigma_px = beam_fwhm_px / FWHM_PER_SIGMA
    impulse = np.zeros(size_px)
    impulse[size_px // 2] = 1
    kernel = ndimage.gaussian_filter1d(impulse, sigma_px, mode="wrap")
    ndimage.gaussian_filter(noise, sigma_px, mode="wrap", output=noise)
    noise *= rms_jy_per_beam / (kernel**2).sum()
    return noise


def render_mosaic(
    rng: np.random.Generator,
    sources: pl.DataFrame,
    pointing: Pointing,
    *,
    size_px: int,
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC,
    beam_arcsec: float = BEAM_ARCSEC,
    rms_jy_per_beam: float = 83e-6,
    blank_fraction: float = 0.23,
) -> Mosaic:
    """Render one mosaic of the simulated survey.

    A point source of S Jy has a peak of S Jy/beam, and the pixel sum of any source over the beam area is its flux.

    Parameters
    ----------
    rng
        The mosaic's own stream (`mosaic_rng`): edge shape and noise. The sources do not depend on it.
    sources
        Catalogue of the survey (`make_sources`).
    pointing
        Name and centre of the mosaic.
    size_px
        Side in pixels.
    pixel_scale_arcsec, beam_arcsec
        Pixel side and circular beam FWHM in arcsec.
    rms_jy_per_beam
        Noise per pixel in Jy/beam; 83 uJy/beam is the median of LoTSS DR2 (Shimwell et al. 2022). 0: no noise.
    blank_fraction
        Part of all pixels that is blanked at the edge. The default leaves about 73 % of the 256 px windows of a
        9,000 px mosaic free of NaN, as DR2 does. The windows of a small mosaic are larger beside it: 0.12 leaves about
        as many at 1,200 px.

    Returns
    -------
    Mosaic
        Image, mask, sources and header.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """
    if size_px < 32 or rms_jy_per_beam < 0 or not 0 <= blank_fraction < 1:
        raise ConfigError(
            f"size_px={size_px}, rms_jy_per_beam={rms_jy_per_beam}, blank_fraction={blank_fraction}: expected at least "
            "32 px, a noise that is not negative, and a fraction of at least 0 and below 1."
        )
    if beam_arcsec < 2 * pixel_scale_arcsec:
        raise ConfigError(
            f"beam_arcsec={beam_arcsec}: must be at least two pixels ({2 * pixel_scale_arcsec} arcsec) for the flux to "
            "be sampled; choose a smaller pixel_scale_arcsec."
        )
    header = mosaic_header(pointing, size_px, pixel_scale_arcsec=pixel_scale_arcsec, beam_arcsec=beam_arcsec)
    edge = _edge_radius(rng)
    image = correlated_noise(
        rng, size_px, rms_jy_per_beam=rms_jy_per_beam, beam_fwhm_px=beam_arcsec / pixel_scale_arcsec
    )
    centre = unit_vectors(np.array(pointing.ra_deg), np.array(pointing.dec_deg))
    near = unit_vectors(sources["ra_deg"].to_numpy(), sources["dec_deg"].to_numpy()) @ centre >= np.cos(
        np.deg2rad(mosaic_radius_deg(size_px, pixel_scale_arcsec) + MARGIN_DEG)
    )
    shown = add_sources(image, sources.filter(near), WCS(header), pixel_scale_arcsec, beam_arcsec)
    _blank_edge(image, edge, blank_fraction)
    at = image[np.rint(shown["row"].to_numpy()).astype(int), np.rint(shown["col"].to_numpy()).astype(int)]
    mask = _island_mask(image, rms_jy_per_beam, beam_area_px(beam_arcsec, pixel_scale_arcsec))
    shown = shown.with_columns(blanked=pl.Series(np.isnan(at), dtype=pl.Boolean))
    return Mosaic(pointing.name, image, mask, shown, header)


def write_mosaic(folder: str | Path, mosaic: Mosaic) -> None:
    """Write ``mosaic-blanked.fits`` and ``mosaic.pybdsmmask.fits`` as LoTSS DR2 lays them out.

    The image is 2-D float64, the mask (1, 1, size, size) float32, both big-endian. Existing files are replaced; the
    same mosaic gives the same bytes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(mosaic.image, mosaic.header).writeto(folder / "mosaic-blanked.fits", overwrite=True)
    mask = fits.PrimaryHDU(mosaic.mask[None, None], mask_header(mosaic.header))
    mask.header.set("EXTEND", True, after="NAXIS4")  # DR2 has it here and not in the image; astropy drops a given one
    mask.writeto(folder / "mosaic.pybdsmmask.fits", overwrite=True)


def _edge_radius(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Angles and relative radii of the corners of an irregular polygon, like the cuts of overlapping primary beams."""
    corners = 24
    angle = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    return angle, rng.uniform(0.95, 1.05, corners)


def _blank_edge(image: np.ndarray, edge: tuple[np.ndarray, np.ndarray], blank_fraction: float) -> None:
    """Set NaN outside the polygon, which is scaled so that ``blank_fraction`` of the pixels lie outside."""
    size_px = image.shape[0]
    angle, radius = edge
    angle = np.concatenate([angle[-1:] - 2 * np.pi, angle, angle[:1] + 2 * np.pi])
    radius = np.concatenate([radius[-1:], radius, radius[:1]])
    middle = (size_px - 1) / 2

    def scaled(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        y, x = (rows - middle)[:, None], cols - middle
        return np.hypot(x, y) / np.interp(np.arctan2(y, x) % (2 * np.pi), angle, radius)

    if blank_fraction == 0:
        return
    pixels = np.arange(size_px)
    sample = pixels[:: max(size_px // 512, 1)]
    limit = np.quantile(scaled(sample, sample), 1 - blank_fraction)
    for start in range(0, size_px, _ROWS_PER_STRIP):
        rows = pixels[start : start + _ROWS_PER_STRIP]
        image[start : start + _ROWS_PER_STRIP][scaled(rows, pixels) > limit] = np.nan


def _island_mask(image: np.ndarray, rms_jy_per_beam: float, beam_px: float) -> np.ndarray:
    """Mark islands of emission in the noisy image, after the rule of PyBDSF (Mohan & Rafferty 2015).

    An island is a connected (8 neighbours) set of pixels above 3 rms that has a pixel above 5 rms and at least a
    third of the beam area and 6 pixels. The true rms takes the place of PyBDSF's local estimate. Blanked pixels are 0.
    """
    labels, n = ndimage.label(image > 3 * rms_jy_per_beam, structure=np.ones((3, 3)))
    wanted = np.zeros(n + 1, dtype=bool)
    wanted[labels[image > 5 * rms_jy_per_beam]] = True
    wanted &= np.bincount(labels[labels > 0], minlength=n + 1) >= max(6, beam_px / 3)
    return wanted.astype(np.float32)[labels]
