"""The two-sample test is at chance for one distribution, sees a shift, and is not misled by groups."""

import numpy as np
import pytest

from skyloom.errors import InputError
from skyloom.metric.two_sample import logistic_fit, two_sample_test


def test_one_distribution_is_at_chance_and_its_interval_holds_a_half():
    inside = 0
    for seed in range(20):
        a, b = np.random.default_rng(seed).normal(size=(2, 200, 5))
        found = two_sample_test(a, b, rng=np.random.default_rng(seed))
        inside += found.low <= 0.5 <= found.high
        assert found.verdict == "alike"
    assert inside >= 16


def test_the_accuracy_for_a_known_shift_is_that_of_the_best_classifier():
    a, b = np.random.default_rng(0).normal(size=(2, 4000, 3))
    b[:, 0] += 2  # the best one reaches Phi(1) = 0.841
    found = two_sample_test(a, b, rng=np.random.default_rng(0))
    assert found.accuracy == pytest.approx(0.841, abs=0.01)
    assert found.verdict == "caution"
    assert found.p_value < 1e-6


def test_groups_are_not_recognised_in_place_of_the_set():
    rng = np.random.default_rng(1)
    a, b = (np.repeat(rng.normal(size=(20, 40)), 20, axis=0) + 0.1 * rng.normal(size=(400, 40)) for _ in "ab")
    group = np.repeat(np.arange(20), 20)
    singly = two_sample_test(a, b, rng=np.random.default_rng(0))
    grouped = two_sample_test(a, b, rng=np.random.default_rng(0), groups=(group, group))
    assert (singly.grouped, grouped.grouped) == (False, True)
    assert singly.accuracy > 0.9
    assert grouped.accuracy < 0.75


def test_the_fit_is_at_the_minimum():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 4))
    y = (x[:, 0] + 0.5 * rng.normal(size=300) > 0.3).astype(float)
    weights = logistic_fit(x, y)
    margin = (2 * y - 1) * (x @ weights[:-1] + weights[-1])
    slope = -(2 * y - 1) / (1 + np.exp(margin))
    np.testing.assert_allclose(slope @ x + weights[:-1], 0, atol=1e-2)
    assert abs(slope.sum()) < 1e-2


def test_sets_of_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"found \(3, 2\) and \(3, 2\)"):
        two_sample_test(np.ones((3, 2)), np.ones((3, 2)), rng=np.random.default_rng(0))
