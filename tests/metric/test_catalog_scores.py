"""Completeness and purity: what a cut must not do, known counts, intervals, bins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyloom.errors import ConfigError, InputError
from skyloom.metric.catalog_scores import binned, brighter_than, counted, scores, wilson


@given(limit=st.floats(20, 28), seed=st.integers(0, 1000))
def test_a_perfect_catalogue_is_pure_and_complete_for_any_cut(limit, seed):
    mag = np.random.default_rng(seed).uniform(20, 28, 30)
    order = np.arange(30)
    kept = brighter_than(mag, limit, unknown=False)
    got = scores(counted(order, order, truth_kept=kept, alone_kept=brighter_than(mag, limit, unknown=True)))
    assert got["detections"] == got["truths"] == kept.sum()
    if kept.any():
        assert got["purity"] == got["completeness"] == got["f1"] == 1


def test_a_shallow_truth_does_not_make_deep_detections_false():
    # truths 24, 26, 27 mag; all found; a shred of 24.5 mag, one of 26.5 mag, and one of unknown magnitude
    truth_mag, own = np.array([24.0, 26.0, 27.0]), np.array([24.0, 26.0, 27.0, 24.5, 26.5, np.nan])
    of_truth, of_detected = np.array([0, 1, 2]), np.array([0, 1, 2, -1, -1, -1])
    judged = counted(
        of_truth, of_detected,
        truth_kept=brighter_than(truth_mag, 25.0, unknown=False), alone_kept=brighter_than(own, 25.0, unknown=True),
    )  # fmt: skip
    assert judged.detected.tolist() == [True, False, False, True, False, True]
    got = scores(judged)
    assert (got["found"], got["true"], got["false"], got["not_judged"]) == (1, 1, 2, 3)
    assert got["purity"] == pytest.approx(1 / 3)


def test_counts_and_bins():
    of_truth, of_detected = np.array([1, -1, 0, -1]), np.array([2, 0, -1])
    truth, own = np.array([20.5, 20.6, 21.5, np.nan]), np.array([20.1, 21.2, 22.0])
    got = binned(counted(of_truth, of_detected), truth_value=truth, detected_value=own, edges=[20, 21, 22])
    assert got["truths"].to_list() == [2, 1]
    assert got["found"].to_list() == [1, 1]
    assert got["completeness"].to_list() == [0.5, 1.0]
    assert got["detections"].to_list() == [1, 2]  # 22.0 is in the last bin, which includes its end
    assert got["purity"].to_list() == [1.0, 0.5]
    assert got["f1"].to_list() == pytest.approx([2 / 3, 2 / 3])
    assert scores(counted(of_truth, of_detected))["f1"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))


def test_wilson_is_that_of_astropy():
    from astropy.stats import binom_conf_interval

    k, n = np.array([0, 1, 5, 10]), np.array([10, 10, 10, 10])
    low, high = binom_conf_interval(k, n, confidence_level=0.95, interval="wilson")
    got = wilson(k, n)
    assert got[0] == pytest.approx(low, abs=1e-12)
    assert got[1] == pytest.approx(high, abs=1e-12)
    assert np.isnan(wilson(np.array([0]), np.array([0]))).all()


def test_empty_sides():
    none = np.empty(0, dtype=np.int64)
    got = scores(counted(none, np.array([-1])))
    assert got["purity"] == 0
    assert np.isnan(got["completeness"])
    assert np.isnan(got["f1"])
    assert scores(counted(np.array([-1]), none))["completeness"] == 0


def test_sides_that_contradict_each_other():
    with pytest.raises(InputError, match="do not point at each other"):
        counted(np.array([-1]), np.array([0]))
    with pytest.raises(InputError, match="beyond its catalogue"):
        counted(np.array([3]), np.array([0]))
    with pytest.raises(InputError, match="cuts of 2 truths"):
        counted(np.array([0]), np.array([0]), truth_kept=np.array([True, False]))
    with pytest.raises(ConfigError, match="rising"):
        binned(counted(np.array([0]), np.array([0])), truth_value=[1], detected_value=[1], edges=[2, 1])
    with pytest.raises(InputError, match="2 values for 1 rows"):
        binned(counted(np.array([0]), np.array([0])), truth_value=[1, 2], detected_value=[1], edges=[1, 2])
