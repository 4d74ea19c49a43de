"""How pixels lie on the sky at a point of an image."""

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.sky.geometry.sphere import ARCSEC, unit_vectors


def sky_jacobian(wcs: WCS, x_px: NDArray[np.float64], y_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Derivative of the place on the sky by the place in the image.

    Parameters
    ----------
    wcs
        Celestial WCS.
    x_px, y_px
        Pixel positions, the centre of the first pixel is 0, shape (n,).

    Returns
    -------
    array of float64, shape (n, 2, 2)
        Arcsec per pixel: rows west and north (GalSim's sky frame), columns x and y; over one pixel around the position.
        Nothing special happens at RA 0 or at the poles.
    """
    ra, dec = np.radians(wcs.all_pix2world(x_px, y_px, 0))
    west = np.column_stack([np.sin(ra), -np.cos(ra), np.zeros_like(ra)])
    north = np.column_stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    columns = []
    for dx, dy in ((0.5, 0.0), (0.0, 0.5)):
        ahead, behind = (unit_vectors(*wcs.all_pix2world(x_px + s * dx, y_px + s * dy, 0)) for s in (1, -1))
        step = (ahead - behind) / ARCSEC
        columns.append(np.column_stack([(step * west).sum(1), (step * north).sum(1)]))
    return np.stack(columns, axis=2)
