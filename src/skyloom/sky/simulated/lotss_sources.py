"""Catalogue of a simulated radio sky: one for the whole survey, whatever mosaics show of it."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from skyloom.errors import ConfigError
from skyloom.sky.simulated.lotss_layout import PIXEL_SCALE_ARCSEC, Pointing, mosaic_radius_deg

MARGIN_DEG = 0.05  # sources this far outside a mosaic may still reach into it (largest source: 120" across)
_KINK_JY, _FAINT_SLOPE, _BRIGHT_SLOPE = 0.88, 1.75, 2.5


def sample_fluxes(rng: np.random.Generator, n: int, min_flux_jy: float | np.ndarray) -> np.ndarray:
    """Draw flux densities from broken power-law counts at 150 MHz.

    ``dN/dS ~ S**-1.75`` below 0.88 Jy and the Euclidean ``S**-2.5`` above: the fit of Di Matteo et al. (2002, ApJ
    564, 576) to the 6C counts. Their normalisation gives about 600 sources per square degree above 0.3 mJy, near the
    780 that LoTSS DR2 catalogues (Shimwell et al. 2022).

    Parameters
    ----------
    rng
        Source of randomness.
    n
        Number of fluxes.
    min_flux_jy
        Faintest flux density in Jy, one value or one per source (n,).

    Returns
    -------
    ndarray
        (n,) float64, Jy.
    """
    faint, bright = _FAINT_SLOPE - 1, _BRIGHT_SLOPE - 1

    def counts_above(flux_jy: np.ndarray) -> np.ndarray:
        x = flux_jy / _KINK_JY
        below = (np.minimum(x, 1) ** -faint - 1) / faint + 1 / bright
        return np.where(x < 1, below, np.maximum(x, 1) ** -bright / bright)

    left = counts_above(np.broadcast_to(np.asarray(min_flux_jy, dtype=np.float64), (n,))) * (1 - rng.random(n))
    below_kink = (np.maximum(faint * (left - 1 / bright), 0) + 1) ** (-1 / faint)
    return _KINK_JY * np.where(left > 1 / bright, below_kink, (bright * left) ** (-1 / bright))


def make_sources(
    rng: np.random.Generator,
    pointings: Sequence[Pointing],
    *,
    size_px: int,
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC,
    sources_per_deg2: float = 780.0,
    double_fraction: float = 0.06,
    bent_fraction: float = 0.02,
    diffuse_fraction: float = 0.01,
    min_flux_jy: float = 0.3e-3,
    min_double_flux_jy: float = 5e-3,
) -> pl.DataFrame:
    """Draw one catalogue for the whole survey, so that overlapping mosaics show the same sources.

    Positions are uniform on the sphere over the cap that holds all mosaics; those which no mosaic can show are left
    out. Extended sources are drawn from the same counts as compact ones, but above a higher limit, since fainter ones
    would not be seen as extended.

    Parameters
    ----------
    rng
        The survey's source stream (`lotss_layout.source_rng`).
    pointings
        All mosaics of the survey.
    size_px, pixel_scale_arcsec
        Side of a mosaic in pixels, and of a pixel in arcsec.
    sources_per_deg2
        Mean density of all kinds together, per square degree; the number is Poisson. Default: LoTSS DR2.
    double_fraction, bent_fraction, diffuse_fraction
        Share of straight double-lobed, bent (wide-angle-tail-like) and diffuse sources; the rest is compact.
    min_flux_jy, min_double_flux_jy
        Faintest compact and faintest double or bent source in Jy. Diffuse ones start at four times the latter.

    Returns
    -------
    polars.DataFrame
        ``source_id`` (int64, 0..n-1), ``kind`` (compact, double, bent or diffuse), ``ra_deg``, ``dec_deg`` (ICRS),
        ``flux_jy`` (whole source), ``size_arcsec`` (compact: FWHM before the beam, 0 for a point; others: extent),
        ``pa_deg`` (north through east), and the shape: ``flux_ratio`` (second lobe over first), ``core_fraction``,
        ``hotspot_fraction``, ``bend_deg`` (by which each arm turns), all 0 where they have no meaning.

    Raises
    ------
    ConfigError
        If a fraction, density or flux is out of range.
    """
    shares = (double_fraction, bent_fraction, diffuse_fraction)
    if min(shares) < 0 or sum(shares) > 1:
        raise ConfigError(
            f"double_fraction={double_fraction}, bent_fraction={bent_fraction}, diffuse_fraction={diffuse_fraction}: "
            "each must be at least 0 and their sum at most 1."
        )
    if sources_per_deg2 < 0 or min_flux_jy <= 0 or min_double_flux_jy <= 0:
        raise ConfigError(
            f"sources_per_deg2={sources_per_deg2}, min_flux_jy={min_flux_jy}, min_double_flux_jy={min_double_flux_jy}: "
            "the density must not be negative and the fluxes must be positive."
        )
    if not pointings:
        raise ConfigError("pointings is empty: a sky needs at least one mosaic; see survey_layout.")
    xyz = _draw_positions(rng, pointings, mosaic_radius_deg(size_px, pixel_scale_arcsec) + MARGIN_DEG, sources_per_deg2)
    n = len(xyz)
    kind_index = np.searchsorted(np.cumsum(shares), rng.random(n), side="right")
    bent, compact = kind_index == 1, kind_index == 3
    lobed = (kind_index == 0) | bent
    flux = sample_fluxes(rng, n, np.select([compact, lobed], [min_flux_jy, min_double_flux_jy], 4 * min_double_flux_jy))
    pa = rng.uniform(0, 360, n)
    extent = 20 * 6 ** rng.random(n)  # log-uniform, 20" to 120"
    # Most LoTSS sources are unresolved at 6"; the others are given a few arcsec.
    compact_size = np.where(rng.random(n) < 0.7, 0.0, rng.uniform(2, 8, n))
    core = np.where(rng.random(n) < 0.5, 0.0, rng.uniform(0.03, 0.3, n))
    ratio, hotspot, bend = rng.uniform(0.3, 1, n), rng.uniform(0, 0.7, n), rng.uniform(25, 60, n)
    return pl.DataFrame(
        {
            "source_id": np.arange(n),
            "kind": np.array(["double", "bent", "diffuse", "compact"])[kind_index],
            "ra_deg": np.rad2deg(np.arctan2(xyz[:, 1], xyz[:, 0])) % 360,
            "dec_deg": np.rad2deg(np.arcsin(np.clip(xyz[:, 2], -1, 1))),
            "flux_jy": flux,
            "size_arcsec": np.where(compact, compact_size, extent),
            "pa_deg": pa,
            "flux_ratio": np.where(lobed, ratio, 0.0),
            "core_fraction": np.where(lobed, core, 0.0),
            "hotspot_fraction": np.where(lobed, hotspot, 0.0),
            "bend_deg": np.where(bent, bend, 0.0),
        }
    )


def unit_vectors(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 3) of sky positions in degrees (n,)."""
    ra, dec = np.deg2rad(ra_deg), np.deg2rad(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _draw_positions(
    rng: np.random.Generator, pointings: Sequence[Pointing], radius_deg: float, per_deg2: float
) -> np.ndarray:
    """Unit vectors (n, 3), uniform over the cap around all pointings, kept within ``radius_deg`` of one of them."""
    centres = unit_vectors(np.array([p.ra_deg for p in pointings]), np.array([p.dec_deg for p in pointings]))
    axis = centres.sum(axis=0)
    axis /= np.linalg.norm(axis)
    reach = min(np.arccos(np.clip(centres @ axis, -1, 1).min()) + np.deg2rad(radius_deg), np.pi)
    area_deg2 = 2 * np.pi * (1 - np.cos(reach)) * np.rad2deg(1) ** 2
    n = rng.poisson(per_deg2 * area_deg2)
    height = 1 - rng.random(n) * (1 - np.cos(reach))
    angle = rng.uniform(0, 2 * np.pi, n)
    # Two vectors at right angles to the axis; the helper is the coordinate axis that lies furthest from it.
    east = np.cross(np.eye(3)[np.argmin(np.abs(axis))], axis)
    east /= np.linalg.norm(east)
    north = np.cross(axis, east)
    across = np.sqrt(1 - height**2)
    xyz = height[:, None] * axis + across[:, None] * (np.cos(angle)[:, None] * east + np.sin(angle)[:, None] * north)
    distance, _ = cKDTree(centres).query(xyz)
    return xyz[distance <= 2 * np.sin(np.deg2rad(radius_deg) / 2)]
