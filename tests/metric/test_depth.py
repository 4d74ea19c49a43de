"""Magnitude limits: by definition, and found again in counts that were drawn to turn off."""

import numpy as np
import pytest

from skyloom.errors import ConfigError, InputError
from skyloom.metric.depth import coadd_depth, turn_off


def test_depth_of_half_a_survey():
    assert coadd_depth(years=5) == pytest.approx(26.42, abs=0.005)
    assert coadd_depth(years=10) == 26.8
    with pytest.raises(ConfigError, match="years=0"):
        coadd_depth(years=0)


def test_turn_off_is_where_the_counts_fall_below_the_share():
    rng = np.random.default_rng(0)
    mag = 20 + np.log10(1 + rng.uniform(0, 1, 2_000_000) * (10 ** (0.35 * 8) - 1)) / 0.35  # slope 0.35 from 20 to 28
    completeness = 1 / (1 + np.exp((mag - 26.8) / 0.2))  # 0.8 at 26.8 - 0.2 ln 4
    kept = mag[rng.uniform(size=len(mag)) < completeness]
    assert turn_off(kept, fit_range_mag=(21, 25.5)) == pytest.approx(26.8 - 0.2 * np.log(4), abs=0.06)


def test_counts_that_never_fall_and_too_few():
    with pytest.raises(InputError, match="too few"):
        turn_off(np.array([22.0, np.nan]))
    with pytest.raises(ConfigError, match="low < high"):
        turn_off(np.zeros(3), fit_range_mag=(26, 21))
