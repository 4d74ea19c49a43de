"""Pixels on the sky: rotated and mirrored images, RA 0 and the poles."""

import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.sky.geometry.local_frame import sky_jacobian


def image(ra_deg, dec_deg, cd_arcsec):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra_deg, dec_deg], [50.5, 50.5]
    wcs.wcs.cd = np.array(cd_arcsec) / 3600
    return wcs


@pytest.mark.parametrize(("ra", "dec"), [(50.9, -39.9), (0.0, 0.0), (359.9999, 70.0), (120.0, -89.9999), (7.0, 90.0)])
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.5])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_derivative_is_that_of_the_projection(ra, dec, angle, mirrored):
    turn = 0.2 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn = turn @ np.diag([1, -1])
    wcs = image(ra, dec, np.diag([-1, 1]) @ turn)  # the first axis of a WCS runs to the east
    middle = np.array([49.5])
    if abs(dec) == 90:  # north is not defined at the pole itself; beside it the pixel is as large
        middle = middle + 3.0
        jacobian = sky_jacobian(wcs, middle, middle)
        np.testing.assert_allclose(np.abs(np.linalg.det(jacobian)), 0.04, rtol=1e-3)
    else:
        np.testing.assert_allclose(sky_jacobian(wcs, middle, middle)[0], turn, atol=2e-5)
