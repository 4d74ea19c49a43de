"""PixelMap: the map of two WCS, as astropy has it, wherever on the sky."""

import numpy as np
import pytest
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel

from skyloom.errors import InputError
from skyloom.sky.geometry.pixel_map import PixelMap


def tangent(ra_deg, dec_deg, scale_arcsec, crpix, turn_deg=0.0, frame="ICRS"):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cunit = ["RA---TAN", "DEC--TAN"], ["deg", "deg"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra_deg, dec_deg], crpix
    cos, sin = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    wcs.wcs.cd = scale_arcsec / 3600 * np.array([[-cos, sin], [sin, cos]])
    wcs.wcs.radesys = frame
    wcs.wcs.set()
    return wcs


PAIRS = {
    "neighbouring tangent points": (tangent(53, -40, 0.0575, (99, 64)), tangent(53.4, -40.5, 0.2, (5600, -8900))),
    "turned": (tangent(53, -40, 0.0575, (64, 64)), tangent(53.001, -40, 0.2, (20, 18), 33.0)),
    "across RA 0": (tangent(359.9999, 1, 0.0575, (64, 64)), tangent(0.0001, 1, 0.2, (18, 20))),
    "near the pole": (tangent(10, 89.999, 0.0575, (64, 64)), tangent(200, 89.995, 0.2, (20, 18))),
    "other frame": (tangent(53, -40, 0.0575, (64, 64)), tangent(53, -40, 0.2, (20, 18), frame="FK5")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_map_is_that_of_astropy(name):
    start, end = PAIRS[name]
    shape = (130, 120)
    found = PixelMap.between(start, end, shape)
    true = pixel_to_pixel(start, end, *np.meshgrid(np.arange(120), np.arange(130)))
    np.testing.assert_allclose(found.positions(), true, atol=2e-3)
    x, y = np.array([3.25, 110.0]), np.array([100.5, 7.75])
    np.testing.assert_allclose(found.at(x, y), pixel_to_pixel(start, end, x, y), atol=1e-3)


def test_a_map_of_a_whole_plate_takes_more_terms():
    start, end = tangent(53, 20, 120.0, (600, 500)), tangent(80, 40, 120.0, (300, 300))
    shape = (1000, 1200)
    found = PixelMap.between(start, end, shape)
    assert found.coefficients.shape[1] > 6
    x, y = np.random.default_rng(0).uniform(0, 1000, (2, 200))
    np.testing.assert_allclose(found.at(x, y), pixel_to_pixel(start, end, x, y), atol=2e-3)


def test_there_and_back():
    start, end = PAIRS["turned"]
    to_end, back = PixelMap.between(start, end, (128, 128)), PixelMap.between(end, start, (40, 40))
    x, y = np.random.default_rng(1).uniform(30, 90, (2, 50))
    np.testing.assert_allclose(back.at(*to_end.at(x, y)), (x, y), atol=0.01)


def test_the_area_of_a_pixel():
    start, end = PAIRS["neighbouring tangent points"]
    found = PixelMap.between(start, end, (128, 128))
    x, y = np.array([40.0, 41.0, 40.0]), np.array([70.0, 70.0, 71.0])
    (x0, x1, x2), (y0, y1, y2) = found.at(x, y)
    assert found.area()[70, 40] == pytest.approx(abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)), rel=1e-5)
    assert found.area() == pytest.approx((0.0575 / 0.2) ** 2, rel=1e-3)


def test_the_other_side_of_the_sky_is_refused():
    with pytest.raises(InputError, match="do not overlap on the sky"):
        PixelMap.between(tangent(53, -40, 0.0575, (64, 64)), tangent(233, 40, 0.2, (20, 18)), (128, 128))
