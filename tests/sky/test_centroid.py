"""Measured positions: right to a small part of a pixel, and refused where nothing can be measured."""

import numpy as np
import pytest

from skyloom.sky.centroid import centroid, lone


def gaussian(x, y, shape=(41, 43), flux=1000.0, sigma=1.8, noise=0.05, seed=0):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    light = flux / (2 * np.pi * sigma**2) * np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / (2 * sigma**2))
    return light + 3.0 + np.random.default_rng(seed).normal(0, noise, shape)


@pytest.mark.parametrize("place", [(20.0, 20.0), (20.37, 18.81), (22.5, 21.49)])
def test_the_centre_is_found_from_a_start_beside_it(place):
    found = centroid(gaussian(*place), place[0] + 0.8, place[1] - 0.6)
    assert found == pytest.approx(place, abs=0.01)


def test_nothing_is_measured_where_it_cannot_be():
    pixels = gaussian(20, 20)
    assert centroid(pixels, 3.0, 20.0) is None  # too near the edge
    assert centroid(gaussian(20, 20, flux=0.5), 20.0, 20.0) is None  # too faint
    assert centroid(pixels, 29.0, 20.0) is None  # another object's light
    pixels[17, 22] = np.nan
    assert centroid(pixels, 20.0, 20.0) is None


def test_lone_objects_have_no_neighbour_that_matters():
    x, mag = np.array([0.0, 5.0, 40.0, 45.0, 90.0]), np.array([20.0, 21.0, 20.0, 24.0, 22.0])
    alone = lone(x, np.zeros(5), mag, apart_px=10, fainter_mag=3)
    assert alone.tolist() == [False, False, True, False, True]
    assert lone(np.empty(0), np.empty(0), np.empty(0), apart_px=10, fainter_mag=3).tolist() == []
