"""Points on the sphere: unit vectors, chords, HEALPix cells and the borders between them."""

import astropy.units as u
import numpy as np
from astropy_healpix import HEALPix

ARCSEC = np.pi / 180 / 3600
EXTRA_SCALE = 1.02  # margin on a measured pixel scale, for its change between the windows that it was measured on


def unit_vectors(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 3) of positions (N,); nothing special happens at RA 0 or at the poles."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def chord(angle_arcsec: np.ndarray | float) -> np.ndarray:
    """Straight distance between unit vectors that are this angle apart."""
    return 2 * np.sin(np.minimum(np.asarray(angle_arcsec) * ARCSEC, np.pi) / 2)


def angle_arcsec(chords: np.ndarray) -> np.ndarray:
    """Angle between unit vectors at this straight distance: the inverse of :func:`chord`."""
    return 2 * np.arcsin(np.clip(np.asarray(chords) / 2, 0, 1)) / ARCSEC


def cells(level: int) -> HEALPix:
    """Nested HEALPix grid (Górski et al. 2005, ApJ 622, 759) with ``12 * 4**level`` cells, on RA and Dec."""
    return HEALPix(nside=2**level, order="nested")


def cell_of(ra_deg: np.ndarray, dec_deg: np.ndarray, level: int) -> np.ndarray:
    """Nested cell of each position, int64 (N,)."""
    found = cells(level).lonlat_to_healpix(np.asarray(ra_deg) * u.deg, np.asarray(dec_deg) * u.deg)
    return np.asarray(found, dtype=np.int64)


def cell_size_arcsec(level: int) -> float:
    """Square root of the area of a cell, in arcsec."""
    return float(cells(level).pixel_resolution.to_value(u.arcsec))


def with_neighbours(cell: np.ndarray, level: int) -> np.ndarray:
    """The given cells and those that touch them, sorted, each once."""
    with np.errstate(invalid="ignore"):  # astropy-healpix warns of the 24 cells that have seven neighbours, not eight
        around = cells(level).neighbours(cell).ravel()
    return np.unique(np.concatenate([cell, around[around >= 0]])).astype(np.int64)


def border_points(cell: np.ndarray, level: int, points_per_side: int) -> tuple[np.ndarray, float]:
    """Points on the borders of cells.

    Parameters
    ----------
    cell
        Nested cells, shape (M,).
    level
        Their level.
    points_per_side
        Points on each of the four sides of a cell.

    Returns
    -------
    points : (M, 4 * points_per_side, 3)
        Unit vectors, in order around each cell.
    spacing : float
        Largest straight distance between two that follow each other: no point of a border is farther from its
        nearest one than this (half of it would do for straight sides).
    """
    longitude, latitude = cells(level).boundaries_lonlat(cell, step=points_per_side)
    flat = unit_vectors(longitude.to_value(u.deg).ravel(), latitude.to_value(u.deg).ravel())
    points = flat.reshape(len(cell), 4 * points_per_side, 3)
    steps = np.linalg.norm(points - np.roll(points, 1, axis=1), axis=2)
    return points, float(steps.max(initial=0.0))


def local_scale_arcsec(row0: np.ndarray, col0: np.ndarray, size_px: np.ndarray, vectors: np.ndarray) -> float:
    """Largest pixel scale met between windows of one image, in arcsec; 0 for fewer than two windows.

    The scale in a header holds at its reference pixel for square pixels; towards the edge of a projection, or along
    the longer side of a pixel, a pixel spans more of the sky. Positions and pixels of neighbouring windows tell.

    Parameters
    ----------
    row0, col0, size_px
        Windows, shape (N,).
    vectors
        Unit vectors of their centres, shape (N, 3).
    """
    row, col = row0 + size_px / 2, col0 + size_px / 2
    largest = 0.0
    for order in (np.lexsort((col, row)), np.lexsort((row, col))):
        pixels = np.hypot(np.diff(row[order]), np.diff(col[order]))
        apart = angle_arcsec(np.linalg.norm(np.diff(vectors[order], axis=0), axis=1))
        different = pixels > 0
        largest = max(largest, float((apart[different] / pixels[different]).max(initial=0.0)))
    return largest * EXTRA_SCALE
