"""One-to-one assignment: as many pairs as possible, then the least cost; against the whole matrix at once."""

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.errors import ConfigError
from skyloom.match import assign, close_pairs, mutual_nearest, nearest, sky_points
from skyloom.match.assign import mixed_cost


def on_a_line(*arcsec):
    return sky_points(np.zeros(len(arcsec)), np.array(arcsec, dtype=float) / 3600)


def best(pairs, cost):
    """Most pairs, then least cost, by trying all sets of edges."""
    found = (0, 0.0)
    for size in range(1, min(pairs.sizes) + 1):
        for edges in itertools.combinations(range(len(pairs)), size):
            left, right = pairs.left[list(edges)], pairs.right[list(edges)]
            if len(set(left.tolist())) == size == len(set(right.tolist())):
                found = max(found, (size, -cost[list(edges)].sum()))
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), sparse=st.booleans())
def test_assignment_is_the_best_of_all(seed, sparse):
    module = sys.modules["skyloom.match.assign"]  # the package has the function under this name
    rng = np.random.default_rng(seed)
    pairs = close_pairs(on_a_line(*rng.uniform(0, 6, 5)), on_a_line(*rng.uniform(0, 6, 4)), 1.5)
    cost = rng.normal(size=len(pairs))
    cells, module.DENSE_CELLS = module.DENSE_CELLS, 0 if sparse else module.DENSE_CELLS
    try:
        found = assign(pairs, cost)
    finally:
        module.DENSE_CELLS = cells
    size, total = best(pairs, cost)
    assert len(found) == size
    assert -found.cost.sum() == pytest.approx(total, abs=1e-6)
    assert len(set(found.left.tolist())) == len(set(found.right.tolist())) == size


def test_most_pairs_come_before_short_ones():
    # a chain: b0 is nearest to a1, but then a0 would stay alone
    found = assign(close_pairs(on_a_line(0.0, 1.0), on_a_line(0.9, 1.8), 1.0))
    assert found.of_left.tolist() == [0, 1]
    assert nearest(close_pairs(on_a_line(0.0, 1.0), on_a_line(0.9, 1.8), 1.0)).of_left.tolist() == [0, 0]
    assert mutual_nearest(close_pairs(on_a_line(0.0, 1.0), on_a_line(0.9, 1.8), 1.0)).of_left.tolist() == [-1, 0]
    assert assign(close_pairs(on_a_line(0.0, 1.0), on_a_line(0.9, 1.8), 1.0), max_cost=0.85).of_right.tolist() == [
        1,
        -1,
    ]


def test_magnitudes_decide_where_positions_do_not():
    truth, detected = on_a_line(0.0, 0.3), on_a_line(0.1, 0.2)
    pairs = close_pairs(truth, detected, 1.0)
    assert assign(pairs).of_left.tolist() == [0, 1]
    cost = mixed_cost(pairs, sep_scale_arcsec=0.3, left_mag=np.array([20, 25]), right_mag=np.array([25.1, 20.1]))
    assert assign(pairs, cost).of_left.tolist() == [1, 0]
    unknown = mixed_cost(pairs, sep_scale_arcsec=0.3, left_mag=np.array([np.nan, 25]), right_mag=np.array([25.1, 20]))
    assert np.isfinite(unknown).all()
    overlap = mixed_cost(pairs, sep_scale_arcsec=100.0, iou=np.array([0.0, 0.9, 0.8, 0.0]))
    assert assign(pairs, overlap).of_left.tolist() == [1, 0]


def test_nothing_to_assign_and_costs_that_are_none():
    empty = close_pairs(on_a_line(), on_a_line(1.0), 1.0)
    assert len(assign(empty)) == len(nearest(empty)) == len(mutual_nearest(empty)) == 0
    assert assign(empty).of_right.tolist() == [-1]
    with pytest.raises(ConfigError, match="1 are not finite"):
        assign(close_pairs(on_a_line(0.0), on_a_line(0.0), 1.0), np.array([np.nan]))
