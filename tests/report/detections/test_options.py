"""Bins of the report on detections have the ends that were asked for, or are refused."""

import numpy as np
import pytest
from pydantic import ValidationError

from skyloom.report.detections.options import Bins

NONE = {"mag": None, "snr": None, "size": None, "separation": None, "colour": None}


@pytest.mark.parametrize(("low", "high", "step"), [(18, 28, 0.5), (0, 1, 0.1), (18, 25.3, 0.1), (-1, 4, 5)])
def test_bins_of_one_width_reach_from_low_to_high(low, high, step):
    edges = Bins(**NONE | {"mag": {"low": low, "high": high, "step": step}}).edges("mag")
    assert edges[[0, -1]] == pytest.approx([low, high])
    np.testing.assert_allclose(np.diff(edges), step)


@pytest.mark.parametrize(("low", "high", "step"), [(18, 28, 0.3), (18, 28, 0.6), (0, 3, 5)])
def test_a_step_that_does_not_divide_the_range_is_refused(low, high, step):
    with pytest.raises(ValidationError, match=f"bins.size: {low} to {high} is not a whole number of steps of {step}"):
        Bins(**NONE | {"size": {"low": low, "high": high, "step": step}})


@pytest.mark.parametrize("high", [float("inf"), float("nan"), 18, 17])
def test_ends_that_are_no_range_are_refused(high):
    with pytest.raises(ValidationError, match=r"finite number|low below high"):
        Bins(**NONE | {"mag": {"low": 18, "high": high, "step": 0.5}})
