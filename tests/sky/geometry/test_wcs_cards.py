"""World coordinates as cards: a cutout's cards say the same sky as the image's, distortions included."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from make.joint_files import tangent_wcs
from skyloom.sky.geometry.wcs_cards import cards_of, moved_cards, same_grid, wcs_of


def distorted(shape):
    header = tangent_wcs(359.999, -39.9, 0.2, shape).to_header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header["A_ORDER"], header["B_ORDER"], header["A_2_0"], header["B_1_1"] = 2, 2, 1e-5, -2e-5
    header["AP_ORDER"], header["BP_ORDER"], header["AP_2_0"], header["BP_1_1"] = 2, 2, -1e-5, 2e-5
    return WCS(fits.Header(header))


@pytest.mark.parametrize("make", [lambda shape: tangent_wcs(10.0, 89.9, 0.0575, shape), distorted])
def test_a_pixel_of_a_cutout_is_the_same_sky_as_in_the_image(make):
    wcs = make((300, 400))
    moved = wcs_of(moved_cards(cards_of(wcs), -20, 130, (64, 48)))
    x, y = np.array([0.0, 47.0, 10.3]), np.array([0.0, 63.0, 40.7])
    here, there = moved.pixel_to_world(x, y), wcs.pixel_to_world(x + 130, y - 20)
    assert here.separation(there).arcsec.max() < 1e-6
    assert moved.pixel_shape == (48, 64)


def test_grids_that_differ_by_a_part_of_a_pixel_are_told_apart():
    wcs = tangent_wcs(50.0, -40.0, 0.2, (100, 100))
    other = wcs.deepcopy()
    other.wcs.crpix = [wcs.wcs.crpix[0] + 0.3, wcs.wcs.crpix[1]]
    assert same_grid(wcs, wcs.deepcopy(), (100, 100))
    assert not same_grid(wcs, other, (100, 100))
