"""The level of a background follows the sky around each source and not the sources in it."""

import numpy as np
import pytest

from skyloom.sky.local_background import LEAST_PIXELS, ring_median


def sloping():
    rows, cols = np.mgrid[:80, :100]
    return np.stack([5.0 + 0.1 * cols, -2.0 + 0.0 * rows]).astype("f4")


def level(image, x, y, free=None, inner=4.0, outer=9.0):
    free = np.ones(image.shape[1:], bool) if free is None else free
    return ring_median(image, x, y, free, inner_px=inner, outer_px=outer)


def test_the_level_is_that_of_the_place():
    found = level(sloping(), [20.0, 70.0], [40.0, 41.0])
    assert found == pytest.approx(np.array([[7.0, -2.0], [12.0, -2.0]]), abs=0.02)


def test_sources_in_the_ring_and_blanks_do_not_count():
    image, free = sloping(), np.ones((80, 100), bool)
    image[:, 30:50, 24:30], free[30:50, 24:30] = 1e4, False
    image[1, :, 10:16] = np.nan
    assert level(image, 20.0, 40.0, free) == pytest.approx(np.array([[7.0, -2.0]]), abs=0.5)


def test_a_crowded_ring_takes_the_level_of_the_image():
    image, free = sloping(), np.ones((80, 100), bool)
    free[30:51, 10:31] = False
    free[40, 11] = True
    assert LEAST_PIXELS > 1
    assert level(image, [20.0, np.nan, 500.0], [40.0, 3.0, 40.0], free)[:, 0] == pytest.approx(10.0, abs=0.5)
    assert np.array_equal(level(image, 20.0, 40.0, np.zeros((80, 100), bool)), [[0.0, 0.0]])
