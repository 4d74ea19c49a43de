"""Which sources of a catalogue lie on an image, and where."""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.sky.files.image import Image

BLOCK = 1 << 18  # sources at a time: the arrays in between stay small


def sources_on(
    image: Image, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Find the positions that lie on an image.

    Parameters
    ----------
    image
        An open image with a WCS, in any celestial frame.
    ra_deg, dec_deg
        (N,) ICRS positions; NaN lies nowhere.

    Returns
    -------
    at, row, col
        Ascending indices of the positions on the image, (M,) int64, and their pixel positions, (M,) float64, 0 at
        the middle of the first pixel.

    Raises
    ------
    InputError
        The image has no celestial WCS.
    """
    if image.wcs is None:
        raise InputError(
            f"{image.path}: the image has no celestial WCS, so that no position of a catalogue can be found on it; "
            "add one, or leave the image out with on_bad_image=skip."
        )
    height, width = image.shape
    near = np.flatnonzero(_near(image, ra_deg, dec_deg))
    sky = SkyCoord(ra_deg[near] * u.deg, dec_deg[near] * u.deg)
    col, row = (np.asarray(part, dtype=np.float64) for part in image.wcs.world_to_pixel(sky))
    with np.errstate(invalid="ignore"):
        inside = (row >= -0.5) & (row < height - 0.5) & (col >= -0.5) & (col < width - 0.5)
    return near[inside], row[inside], col[inside]


def _near(image: Image, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which positions may lie on the image: within the circle about its middle that holds its outline.

    Projecting a whole survey's catalogue onto every image would take seconds for each. It would also be wrong: some
    projections give pixels to the far side of the sky.
    """
    good = np.isfinite(ra_deg) & np.isfinite(dec_deg)
    height, width = image.shape
    edge = np.linspace(-0.5, 0.5, 9)
    rim = np.concatenate([[(x, y), (y, x)] for x in edge for y in (-0.5, 0.5)])
    cols = np.append(rim[:, 0], 0.0) * width + (width - 1) / 2
    rows = np.append(rim[:, 1], 0.0) * height + (height - 1) / 2
    assert image.wcs is not None
    outline = image.wcs.pixel_to_world(cols, rows).icrs
    radius = outline[:-1].separation(outline[-1]).deg.max()
    if not np.isfinite(radius) or radius > 60:  # parts of the sky at which a circle says little
        return good
    middle = outline[-1].cartesian.xyz.value
    limit = np.cos(np.deg2rad(radius * 1.05 + 1e-3))
    for start in range(0, len(good), BLOCK):
        part = slice(start, start + BLOCK)
        ra, dec = np.deg2rad(ra_deg[part]), np.deg2rad(dec_deg[part])
        along = np.cos(dec) * (np.cos(ra) * middle[0] + np.sin(ra) * middle[1]) + np.sin(dec) * middle[2]
        good[part] &= along >= limit
    return good
