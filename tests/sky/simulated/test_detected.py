"""Objects in drawn images: found, told apart and measured."""

import numpy as np
import pytest

from skyloom.sky.simulated.detected import aperture_flux, find_objects, psf_flux

FWHM_PX, SIGMA = 4.0, 1.0
WIDTH = FWHM_PX / 2.3548


def picture(places, fluxes, *, shape=(80, 90), seed=0):
    y, x = np.indices(shape)
    image = np.random.default_rng(seed).normal(0, SIGMA, shape)
    for (x0, y0), flux in zip(places, fluxes, strict=True):
        image += flux / (2 * np.pi * WIDTH**2) * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * WIDTH**2))
    return image.astype(np.float32)


def kernel(half=10):
    y, x = np.indices((2 * half + 1, 2 * half + 1)) - half
    p = np.exp(-(x**2 + y**2) / (2 * WIDTH**2))
    return p / p.sum()


def test_a_source_is_found_at_its_place_and_its_segment_holds_it():
    found = find_objects(picture([(30.3, 40.7)], [2000.0]), SIGMA, FWHM_PX)
    assert len(found) == 1
    assert (found.x_px[0], found.y_px[0]) == pytest.approx((30.3, 40.7), abs=0.1)
    assert found.segments[41, 30] == 1
    assert found.parent[0] == 0


def test_two_sources_that_touch_are_two_objects_of_one_parent():
    found = find_objects(picture([(30, 40), (38, 40)], [3000.0, 2000.0]), SIGMA, FWHM_PX)
    assert len(found) == 2
    assert found.parent[0] == found.parent[1] > 0
    assert {found.segments[40, 30], found.segments[40, 38]} == {1, 2}


def test_empty_sky_holds_next_to_nothing_and_blank_pixels_are_sky():
    image = picture([], [], shape=(200, 200))
    image[50:80, 50:80] = np.nan
    assert len(find_objects(image, SIGMA, FWHM_PX)) <= 1
    assert len(find_objects(np.full((20, 20), np.nan, np.float32), SIGMA, FWHM_PX)) == 0


def test_numbers_are_those_of_the_segments():
    rng = np.random.default_rng(1)
    places = [(x, y) for x in (15, 40, 70) for y in (15, 60)]
    found = find_objects(picture(places, rng.uniform(800, 4000, 6)), SIGMA, FWHM_PX)
    assert len(found) == 6
    rows, cols = np.rint(found.y_px).astype(int), np.rint(found.x_px).astype(int)
    assert found.segments[rows, cols].tolist() == [1, 2, 3, 4, 5, 6]
    assert found.segments.max() == 6


def test_fluxes_of_a_point_source():
    image = picture([(40.4, 40.2)], [5000.0])
    at = (np.array([40.4]), np.array([40.2]))
    assert psf_flux(image, *at, kernel())[0] == pytest.approx(5000, rel=0.03)
    flux, pixels = aperture_flux(image, *at, 7.0)
    assert flux[0] == pytest.approx(5000, rel=0.03)
    assert pixels == pytest.approx(np.pi * 49, rel=0.05)
