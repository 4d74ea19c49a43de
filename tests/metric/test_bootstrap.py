import math

import numpy as np
import pytest

from skyloom.errors import InputError
from skyloom.metric.bootstrap import bootstrap_interval, bootstrap_weights


def share_of(right):
    return lambda weight: float(weight @ right / weight.sum())


def test_the_interval_of_a_share_is_that_of_the_binomial():
    right = np.arange(400) < 300
    weights = bootstrap_weights(np.arange(400), 2000, np.random.default_rng(0))
    low, high = bootstrap_interval([share_of(right)], weights)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)


def test_copies_in_one_group_are_no_evidence():
    right, group = np.repeat(np.arange(40) < 30, 10), np.repeat(np.arange(40), 10)
    widths = []
    for given in (group, np.arange(400)):
        low, high = bootstrap_interval([share_of(right)], bootstrap_weights(given, 500, np.random.default_rng(0)))
        widths.append(high - low)
    assert widths[0] == pytest.approx(widths[1] * math.sqrt(10), rel=0.15)


def test_items_of_a_group_are_drawn_together():
    weights = bootstrap_weights(np.array([5, 5, 9, 7]), 50, np.random.default_rng(1))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 1:].sum(1) == 3).all()


def test_nothing_to_draw_is_refused_and_nothing_to_score_is_nan():
    with pytest.raises(InputError):
        bootstrap_weights(np.empty(0), 5, np.random.default_rng(0))
    assert np.isnan(bootstrap_interval([lambda w: float("nan")], np.ones((3, 2)))).all()
