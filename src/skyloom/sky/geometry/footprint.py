"""Where a rectangle of pixels lies on the sky, and which pixels of another image cover it."""

from collections.abc import Iterable

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame
from scipy.spatial import cKDTree

from skyloom.sky.geometry.sphere import unit_vectors
from skyloom.sky.geometry.wcs_cards import wcs_of

POINTS_PER_SIDE = 8  # of an outline: a side of 30" bends by far less than 0.01 px between them in any projection


def outline(
    row0: np.ndarray, col0: np.ndarray, height_px: np.ndarray, width_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points around rectangles of pixels: the outer corners of their corner pixels, and points on the edges between.

    Parameters
    ----------
    row0, col0
        First pixel, shape (N,).
    height_px, width_px
        Sides in pixels, shape (N,).

    Returns
    -------
    x, y
        Pixel coordinates, shape (N, 4 * POINTS_PER_SIDE); the centre of the first pixel of the image is 0.
    """
    step = np.arange(POINTS_PER_SIDE) / POINTS_PER_SIDE
    zero, one = np.zeros(POINTS_PER_SIDE), np.ones(POINTS_PER_SIDE)
    along = np.concatenate([step, one, 1 - step, zero])
    up = np.concatenate([zero, step, one, 1 - step])
    x = np.asarray(col0)[:, None] - 0.5 + np.asarray(width_px)[:, None] * along
    y = np.asarray(row0)[:, None] - 0.5 + np.asarray(height_px)[:, None] * up
    return x, y


def sky_of(wcs: WCS, x_px: np.ndarray, y_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ICRS positions in degrees of pixel coordinates; arrays of any one shape."""
    sky = wcs.pixel_to_world(np.ravel(x_px), np.ravel(y_px)).icrs
    return sky.ra.deg.reshape(np.shape(x_px)), sky.dec.deg.reshape(np.shape(x_px))


def pixels_of(wcs: WCS, ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates of ICRS positions in degrees; NaN for those more than 90 degrees from the reference point."""
    frame, axes = wcs_to_celestial_frame(wcs), (wcs.wcs.lng, wcs.wcs.lat)
    ra, dec = np.ravel(ra_deg), np.ravel(dec_deg)
    reference = SkyCoord(*(wcs.wcs.crval[axis] for axis in axes), unit="deg", frame=frame).icrs
    towards = unit_vectors(np.array([reference.ra.deg]), np.array([reference.dec.deg]))[0]
    near = unit_vectors(ra, dec) @ towards > 0  # a tangent plane would give pixels to the far side of the sky
    sky = SkyCoord(ra[near], dec[near], unit="deg")
    sky = sky if sky.frame.is_equivalent_frame(frame) else sky.transform_to(frame)
    world = np.empty((len(sky), 2))
    world[:, axes[0]], world[:, axes[1]] = sky.spherical.lon.deg, sky.spherical.lat.deg
    found = np.full((2, len(ra)), np.nan)
    # quiet: far outside a distorted image the distortion has no inverse; what comes back lies in no rectangle.
    found[:, near] = wcs.all_world2pix(world, 0, quiet=True).T
    return found[0].reshape(np.shape(ra_deg)), found[1].reshape(np.shape(ra_deg))


def pixel_boxes(x_px: np.ndarray, y_px: np.ndarray) -> np.ndarray:
    """Smallest rectangles of whole pixels that hold outlines.

    Parameters
    ----------
    x_px, y_px
        Points around each shape, (N, P).

    Returns
    -------
    ndarray
        int64 (N, 4): row0, col0, height, width; zeros where a point is NaN.
    """
    known = np.isfinite(x_px).all(axis=1) & np.isfinite(y_px).all(axis=1)
    boxes = np.zeros((len(x_px), 4), np.int64)
    for column, values in ((0, y_px[known]), (1, x_px[known])):
        if len(values):
            # An edge that falls on the border of two pixels, but for rounding, does not need the next one.
            first = np.floor(values.min(axis=1) + 0.5 + 1e-6).astype(np.int64)
            boxes[known, column] = first
            boxes[known, column + 2] = np.ceil(values.max(axis=1) + 0.5 - 1e-6).astype(np.int64) - first
    return boxes


def inside(x_px: np.ndarray, y_px: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Whether points lie on an image of this height and width: [-0.5, width - 0.5) and [-0.5, height - 0.5)."""
    height, width = shape
    found: np.ndarray = (x_px >= -0.5) & (x_px < width - 0.5) & (y_px >= -0.5) & (y_px < height - 0.5)
    return found


def in_images(ra_deg: np.ndarray, dec_deg: np.ndarray, images: Iterable[tuple[str, int, int]]) -> np.ndarray:
    """Whether positions lie in one of several images.

    Parameters
    ----------
    ra_deg, dec_deg
        ICRS degrees, shape (N,); what is not finite lies nowhere.
    images
        FITS cards of the WCS, height and width in pixels of each.

    Returns
    -------
    ndarray
        bool, shape (N,).
    """
    found = np.zeros(len(ra_deg), dtype=bool)
    valid = np.flatnonzero(np.isfinite(ra_deg) & np.isfinite(dec_deg))
    if not len(valid):
        return found
    tree = cKDTree(unit_vectors(ra_deg[valid], dec_deg[valid]))
    for cards, height, width in images:
        wcs = wcs_of(cards)
        edge = outline(*(np.array([side]) for side in (0, 0, height, width)))
        middle = unit_vectors(*sky_of(wcs, np.array([(width - 1) / 2]), np.array([(height - 1) / 2])))[0]
        rim = unit_vectors(*(one[0] for one in sky_of(wcs, *edge)))
        radius = np.linalg.norm(rim - middle, axis=1).max() * 1.1  # images are nearly flat
        near = valid[tree.query_ball_point(middle, radius)]
        if len(near):
            found[near] |= inside(*pixels_of(wcs, ra_deg[near], dec_deg[near]), (height, width))
    return found
