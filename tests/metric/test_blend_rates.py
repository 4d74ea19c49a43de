"""Rates of blend flags on a case made by hand, under a cut, and their bootstrap against drawing every item."""

import numpy as np
import polars as pl
import pytest

from skyloom.errors import InputError
from skyloom.match import assign, blend_flags
from skyloom.match.pairs import Pairs
from skyloom.metric.blend_rates import RATES, blend_rates
from skyloom.metric.bootstrap import bootstrap_sums, bootstrap_weights


@pytest.fixture
def flags():
    """Truths 0 and 1 share detection 0; 2 has 1 and the shred 2; 3 and 4 are resolved by 3 and 4; 5 missed; 5 false."""
    edges = [(0, 0, 0.1), (1, 0, 0.2), (2, 1, 0.1), (2, 2, 0.3), (3, 3, 0.1), (3, 4, 0.4), (4, 4, 0.1)]
    left, right, sep = (np.array(values) for values in zip(*edges, strict=True))
    pairs = Pairs(left, right, sep.astype(float), (6, 6))
    return blend_flags(pairs, assign(pairs))


def test_rates_are_those_counted_by_hand(flags):
    got = {name: entry["value"] for name, entry in blend_rates(*flags).items()}
    assert got == pytest.approx({
        "completeness": 4 / 6, "missed_frac": 1 / 6, "blend_loss_frac": 1 / 6, "unrec_blend_frac_total": 2 / 6,
        "unrec_blend_frac_blended": 2 / 4, "unrec_blend_frac_matched": 1 / 4, "resolved_frac": 2 / 4,
        "shred_frac": 1 / 6, "purity": 4 / 6, "spurious_frac": 1 / 6, "shred_det_frac": 1 / 6,
        "unrec_blend_frac_detections": 1 / 6, "f1": 4 / 6,
    })  # fmt: skip


def test_a_cut_changes_parts_and_wholes(flags):
    kept = np.array([True, False, True, True, True, True])
    got = blend_rates(*flags, truth_kept=kept)
    assert (got["completeness"]["part"], got["completeness"]["whole"]) == (4, 5)
    assert (got["unrec_blend_frac_total"]["part"], got["blend_loss_frac"]["part"]) == (1, 0)
    with pytest.raises(InputError, match="cuts of 5 truths"):
        blend_rates(*flags, truth_kept=kept[:5])


def test_bootstrap_intervals_hold_the_value_and_need_a_stream(flags):
    got = blend_rates(*flags, samples=200, rng=np.random.default_rng(0))
    assert got["completeness"]["bootstrap_low"] < 4 / 6 < got["completeness"]["bootstrap_high"]
    assert 0 < got["completeness"]["low"] < 4 / 6 < got["completeness"]["high"] < 1
    with pytest.raises(InputError, match="give rng"):
        blend_rates(*flags, samples=2)


def test_without_anything_all_is_unknown(flags):
    none = [table.clear() for table in flags]
    got = blend_rates(*none, samples=10, rng=np.random.default_rng(0))
    assert set(got) == {*RATES, "f1"}
    assert all(np.isnan(entry["value"]) for entry in got.values())
    assert isinstance(flags[0], pl.DataFrame)


def test_sums_over_groups_are_those_of_weights_on_items():
    rng = np.random.default_rng(1)
    group, values = rng.integers(0, 40, 200), rng.integers(0, 3, (200, 2))
    sums = bootstrap_sums(group, values, 4000, np.random.default_rng(2))
    weights = bootstrap_weights(group, 4000, np.random.default_rng(3)) @ values
    assert sums.shape == (4000, 2)
    assert sums.mean(0) == pytest.approx(weights.mean(0), rel=0.01)
    assert np.cov(sums.T).ravel() == pytest.approx(np.cov(weights.T).ravel(), rel=0.1)
    with pytest.raises(InputError, match="at least one"):
        bootstrap_sums(group[:0], values[:0], 3, rng)
