"""Footprints: outlines through two WCS, across RA 0, at a pole and between frames; boxes that hold them."""

import numpy as np
import pytest
from astropy.coordinates import FK5, SkyCoord
from astropy.wcs import WCS

from skyloom.sky.geometry.footprint import (
    POINTS_PER_SIDE,
    in_images,
    inside,
    outline,
    pixel_boxes,
    pixels_of,
    sky_of,
)
from skyloom.sky.geometry.wcs_cards import cards_of, wcs_of


def tangent(ra_deg, dec_deg, scale_arcsec, turn_deg=0.0, *, frame="ICRS", swapped=False):
    wcs = WCS(naxis=2)
    names = ["DEC--TAN", "RA---TAN"] if swapped else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.ctype = names
    wcs.wcs.crval = [dec_deg, ra_deg] if swapped else [ra_deg, dec_deg]
    wcs.wcs.crpix = [50.5, 50.5]
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale_arcsec / 3600
    wcs.wcs.radesys = frame
    if frame == "FK5":
        wcs.wcs.equinox = 2000.0
    wcs.wcs.set()
    return wcs


def test_an_outline_runs_along_the_outer_edges_of_the_pixels():
    x, y = outline(np.array([10]), np.array([20]), np.array([4]), np.array([8]))
    assert x.shape == (1, 4 * POINTS_PER_SIDE)
    assert (x.min(), x.max(), y.min(), y.max()) == (19.5, 27.5, 9.5, 13.5)
    on_edge = np.isin(x, [19.5, 27.5]) | np.isin(y, [9.5, 13.5])
    assert on_edge.all()
    corners = {(19.5, 9.5), (27.5, 9.5), (27.5, 13.5), (19.5, 13.5)}
    assert corners <= set(zip(x[0].tolist(), y[0].tolist(), strict=True))


@pytest.mark.parametrize("place", [(0.001, 30.0), (359.9999, -40.0), (123.0, 89.999), (7.0, -89.9995)])
def test_the_box_on_another_image_holds_every_pixel_of_the_rectangle(place):
    fine, coarse = (
        tangent(*place, 0.0575, turn_deg=7),
        tangent(place[0], place[1] - 0.001 * np.sign(place[1]), 0.2, turn_deg=-20),
    )
    x, y = outline(np.array([-60]), np.array([5]), np.array([120]), np.array([100]))
    row0, col0, height, width = pixel_boxes(*pixels_of(coarse, *sky_of(fine, x, y)))[0]
    rows, cols = np.mgrid[-60.5:59.5:49j, 4.5:104.5:49j]
    px, py = coarse.world_to_pixel(fine.pixel_to_world(cols, rows))
    assert px.min() >= col0 - 0.5 - 1e-3
    assert px.max() <= col0 + width - 0.5 + 1e-3
    assert py.min() >= row0 - 0.5 - 1e-3
    assert py.max() <= row0 + height - 0.5 + 1e-3
    # and not one row or column more than is needed
    assert px.min() < col0 + 0.51
    assert px.max() > col0 + width - 1.51
    assert py.min() < row0 + 0.51
    assert py.max() > row0 + height - 1.51


def test_positions_are_icrs_whatever_the_frame_and_order_of_the_axes():
    sky = SkyCoord([10.01, 10.02], [20.0, 20.01], unit="deg")
    for wcs in (tangent(10, 20, 0.5, frame="FK5"), tangent(10, 20, 0.5, swapped=True)):
        x, y = pixels_of(wcs, sky.ra.deg, sky.dec.deg)
        assert np.allclose([x, y], wcs.world_to_pixel(sky), atol=1e-6)
        ra, dec = sky_of(wcs, x, y)
        assert SkyCoord(ra, dec, unit="deg").separation(sky).arcsec.max() < 1e-6
    shifted = SkyCoord(10, 20, unit="deg", frame=FK5()).icrs.separation(SkyCoord(10, 20, unit="deg")).arcsec
    assert shifted > 0.001  # the frames do differ: the test can fail


def test_the_far_side_of_the_sky_has_no_pixels():
    x, y = pixels_of(tangent(10, 20, 0.5), np.array([10.0, 190.0]), np.array([20.0, -20.0]))
    assert np.isfinite([x[0], y[0]]).all()
    assert np.isnan([x[1], y[1]]).all()
    assert pixel_boxes(np.array([[0.0, np.nan]]), np.array([[0.0, 1.0]])).tolist() == [[0, 0, 0, 0]]


def test_an_edge_on_the_border_of_two_pixels_needs_no_further_pixel():
    assert pixel_boxes(np.array([[9.5 + 1e-9, 29.5 + 1e-9]]), np.array([[-0.5, 3.5]])).tolist() == [[0, 10, 4, 20]]


def test_a_point_belongs_to_the_pixels_it_is_in():
    x = np.array([-0.5, -0.51, 9.4999, 9.5, np.nan])
    assert inside(x, np.zeros(5), (5, 10)).tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("place", [(0.001, 30.0), (123.0, 89.999), (53.0, -40.0)])
def test_positions_in_one_of_several_images(place):
    images = [(cards_of(tangent(*place, 1.0, turn_deg=turn)), 60, 100) for turn in (0, 35)]
    rng = np.random.default_rng(0)
    middle = tangent(*place, 1.0)
    ra, dec = sky_of(middle, *rng.uniform(-60, 160, (2, 500)))
    expected = np.zeros(500, bool)
    for cards, height, width in images:
        expected |= inside(*pixels_of(wcs_of(cards), ra, dec), (height, width))
    assert 0 < expected.sum() < 500
    assert (in_images(ra, dec, images) == expected).all()
    assert not in_images(np.array([np.nan, place[0] + 180]), np.array([1.0, -place[1]]), images).any()
    assert in_images(np.empty(0), np.empty(0), images).shape == (0,)
