"""Overlap of masks against counting pixels, and relative flux errors."""

import numpy as np
import pytest

from skyloom.errors import InputError
from skyloom.metric.deblending import flux_errors, mask_ious
from skyloom.sky.mask.rle import encode


def test_overlap_is_that_of_the_pixels():
    rng = np.random.default_rng(0)
    masks = rng.random((2, 20, 9, 14)) < 0.4
    masks[:, 0] = False  # both empty
    masks[1, 1] = False
    masks[1, 2] = masks[0, 2]
    got = mask_ious(*([encode(mask) for mask in side] for side in masks), np.full((20, 2), [9, 14]))
    one, other = masks
    expected = (one & other).sum((1, 2))[1:] / (one | other).sum((1, 2))[1:]
    assert np.isnan(got[0])
    assert got[1:] == pytest.approx(expected)
    assert (got[1], got[2]) == (0, 1)


def test_none_and_too_few():
    assert len(mask_ious([], [], np.empty((0, 2)))) == 0
    with pytest.raises(InputError, match="1 and 0 masks"):
        mask_ious([encode(np.ones((2, 2), bool))], [], np.array([[2, 2]]))


def test_flux_errors():
    got = flux_errors(np.array([2.0, 4.0, 0.0, -1.0, np.nan]), np.array([3.0, 2.0, 1.0, 1.0, 1.0]))
    assert got[:2].tolist() == [0.5, -0.5]
    assert np.isnan(got[2:]).all()
    with pytest.raises(InputError, match="2 true and 1 measured"):
        flux_errors(np.array([1.0, 2.0]), np.array([1.0]))
