"""Close pairs of two catalogues and their connected components."""

import numpy as np
import pytest

from skyloom.errors import ConfigError
from skyloom.match import close_pairs, sky_points


def test_pairs_are_those_within_the_radius_the_radius_included():
    left = sky_points(np.array([0.0, 0.0]), np.array([0.0, 1.0]))
    right = sky_points(np.zeros(3), np.array([0.0, 1.0, 1.001]) / 3600)
    pairs = close_pairs(left, right, 1.0)
    assert (pairs.left.tolist(), pairs.right.tolist()) == ([0, 0], [0, 1])
    assert pairs.sep_arcsec == pytest.approx([0, 1], abs=1e-9)
    assert close_pairs(left, right, 0.0).right.tolist() == [0]


def test_components_join_what_edges_join():
    left = sky_points(np.zeros(3), np.array([0, 1.5, 50]) / 3600)
    right = sky_points(np.zeros(3), np.array([0.8, 100, 50.1]) / 3600)
    of_left, of_right = close_pairs(left, right, 1.0).components()
    assert of_left[0] == of_left[1] == of_right[0]
    assert of_left[2] == of_right[2]
    assert len({*of_left.tolist(), *of_right.tolist()}) == 3


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
def test_an_empty_catalogue_has_no_pairs(sizes):
    left, right = (sky_points(np.zeros(n), np.zeros(n)) for n in sizes)
    pairs = close_pairs(left, right, 1.0)
    assert len(pairs) == 0
    assert [len(part) for part in pairs.components()] == list(sizes)


def test_radius_out_of_range():
    with pytest.raises(ConfigError, match="radius_arcsec=-1"):
        close_pairs(sky_points(np.zeros(1), np.zeros(1)), sky_points(np.zeros(1), np.zeros(1)), -1)
