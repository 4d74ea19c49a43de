"""Shapes of simulated radio sources: the Gaussians each one is made of, and drawing them into an image."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from skyloom.sky.simulated.lotss_layout import FWHM_PER_SIGMA, beam_area_px

_STAMP_SIGMAS = 6.0  # a Gaussian is 1.5e-8 of its peak there: below the noise even for a 1,000 Jy source


class Components(NamedTuple):
    """Elliptical Gaussians that make up sources, grouped by source; 1-D arrays of equal length.

    ``source`` int64 is the row in the catalogue; the offset from the source's position is ``offset_arcsec`` towards
    ``offset_pa_deg``; ``major_arcsec`` and ``minor_arcsec`` are FWHM before convolution with the beam. Position
    angles are degrees from north through east.
    """

    source: np.ndarray
    offset_arcsec: np.ndarray
    offset_pa_deg: np.ndarray
    flux_jy: np.ndarray
    major_arcsec: np.ndarray
    minor_arcsec: np.ndarray
    pa_deg: np.ndarray


def source_components(sources: pl.DataFrame) -> Components:
    """Split sources into Gaussians, from their table columns alone, so that every mosaic draws the same shape.

    A compact source is one Gaussian. Each arm of a double or bent source has a bridge, a lobe and a hotspot at
    0.35, 0.72 and 1.0 of the arm's length; a bent source turns both arms to the same side, in proportion to that
    length. The core sits at the source's position. A diffuse source is a broad Gaussian with four smaller ones round
    it. Fluxes of the parts add up to ``flux_jy``.
    """
    kind = sources["kind"].to_numpy()
    column = {name: sources[name].to_numpy() for name in sources.columns if name not in ("source_id", "kind")}
    parts: list[tuple[np.ndarray, ...]] = []

    def add(rows: np.ndarray, *values: np.ndarray | float) -> None:
        parts.append((rows, *(np.broadcast_to(np.asarray(v, dtype=np.float64), rows.shape) for v in values)))

    rows = np.flatnonzero(kind == "compact")
    size, pa, flux = (column[name][rows] for name in ("size_arcsec", "pa_deg", "flux_jy"))
    add(rows, 0.0, 0.0, flux, size, 0.6 * size, pa)

    rows = np.flatnonzero((kind == "double") | (kind == "bent"))
    size, pa, flux = (column[name][rows] for name in ("size_arcsec", "pa_deg", "flux_jy"))
    ratio, core, hotspot, bend = (
        column[name][rows] for name in ("flux_ratio", "core_fraction", "hotspot_fraction", "bend_deg")
    )
    add(rows, 0.0, 0.0, flux * core, 0.0, 0.0, 0.0)
    for turn, share in ((1, 1 / (1 + ratio)), (-1, ratio / (1 + ratio))):
        arm_flux = flux * (1 - core) * share
        start = pa if turn == 1 else pa + 180
        # (place along the arm, share of its flux, length and width as part of the source's size)
        for t, part, length, width in (
            (0.35, 0.15, 0.30, 0.06),
            (0.72, 0.85 * (1 - hotspot), 0.26, 0.15),
            (1.0, 0.85 * hotspot, 0.04, 0.04),
        ):
            angle = start + turn * bend * t
            tangent = angle + turn * np.rad2deg(np.arctan(np.deg2rad(bend) * t))
            add(rows, t * size / 2, angle, arm_flux * part, length * size, width * size, tangent)

    rows = np.flatnonzero(kind == "diffuse")
    size, pa, flux = (column[name][rows] for name in ("size_arcsec", "pa_deg", "flux_jy"))
    add(rows, 0.0, 0.0, 0.5 * flux, 0.5 * size, 0.35 * size, pa)
    for k in range(4):
        angle = pa + 137.5 * k  # the golden angle spreads the clumps without a pattern
        add(rows, (0.18 + 0.05 * k) * size, angle, 0.125 * flux, 0.3 * size, 0.2 * size, angle + 60)

    joined = [np.concatenate(values) for values in zip(*parts, strict=True)]
    keep = np.flatnonzero(joined[3] > 0)
    order = keep[np.argsort(joined[0][keep], kind="stable")]
    return Components(*(values[order] for values in joined))


def add_sources(
    image: np.ndarray, sources: pl.DataFrame, wcs: WCS, pixel_scale_arcsec: float, beam_arcsec: float
) -> pl.DataFrame:
    """Add sources, convolved with a circular Gaussian beam, to an image.

    Each source is drawn on a stamp of its own, so the cost follows the number of sources. A Gaussian convolved with a
    Gaussian beam is a Gaussian whose variances add, so no image is convolved and flux is kept exactly.

    Parameters
    ----------
    image
        (H, W) float64, Jy/beam; changed in place. Parts of sources that lie outside are cut off.
    sources
        Rows of `lotss_sources.make_sources`; none may be more than 90 deg from the image's centre.
    wcs
        Celestial WCS of the image.
    pixel_scale_arcsec, beam_arcsec
        Pixel side and beam FWHM in arcsec.

    Returns
    -------
    polars.DataFrame
        The rows whose position is on the image, with ``row``, ``col`` and ``peak_jy_per_beam`` added.
    """
    size_px = image.shape[0]
    sky = SkyCoord(sources["ra_deg"].to_numpy(), sources["dec_deg"].to_numpy(), unit="deg")
    col, row = wcs.world_to_pixel(sky) if sources.height else (np.empty(0), np.empty(0))
    peak = np.zeros(sources.height)
    if sources.height:
        parts = source_components(sources)
        place = sky[parts.source].directional_offset_by(parts.offset_pa_deg * u.deg, parts.offset_arcsec * u.arcsec)
        x, y = wcs.world_to_pixel(place)
        # The axis of a part is followed over 10" on the sky: near the pole, north is not up in the image.
        x1, y1 = wcs.world_to_pixel(place.directional_offset_by(parts.pa_deg * u.deg, 10 * u.arcsec))
        angle = np.arctan2(y1 - y, x1 - x)
        major, minor = (
            np.hypot(fwhm, beam_arcsec) / pixel_scale_arcsec / FWHM_PER_SIGMA
            for fwhm in (parts.major_arcsec, parts.minor_arcsec)
        )
        amplitude = parts.flux_jy * beam_area_px(beam_arcsec, pixel_scale_arcsec) / (2 * np.pi * major * minor)
        reach = np.ceil(_STAMP_SIGMAS * major)
        starts = np.searchsorted(parts.source, np.arange(sources.height + 1))
        for i, (first, last) in enumerate(pairwise(starts)):
            s = slice(first, last)
            rows = _clip(y[s] - reach[s], y[s] + reach[s], size_px)
            cols = _clip(x[s] - reach[s], x[s] + reach[s], size_px)
            if len(rows) == 0 or len(cols) == 0:
                continue
            stamp = np.zeros((len(rows), len(cols)))
            for k in range(first, last):
                dx, dy = np.arange(cols.start, cols.stop) - x[k], (np.arange(rows.start, rows.stop) - y[k])[:, None]
                along = dx * np.cos(angle[k]) + dy * np.sin(angle[k])
                across = dy * np.cos(angle[k]) - dx * np.sin(angle[k])
                stamp += amplitude[k] * np.exp(-0.5 * ((along / major[k]) ** 2 + (across / minor[k]) ** 2))
            image[rows.start : rows.stop, cols.start : cols.stop] += stamp
            peak[i] = stamp.max()
    inside = (row > -0.5) & (row < size_px - 0.5) & (col > -0.5) & (col < size_px - 0.5)
    placed = sources.with_columns(row=pl.Series(row), col=pl.Series(col), peak_jy_per_beam=pl.Series(peak))
    return placed.filter(inside)


def _clip(low: np.ndarray, high: np.ndarray, size_px: int) -> range:
    """Whole pixels between the lowest and the highest bound, kept within the image."""
    return range(max(int(np.floor(low.min())), 0), min(int(np.ceil(high.max())) + 1, size_px))
