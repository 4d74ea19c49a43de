"""Outlines of masks: there and back without a pixel changed; the reading of COCO differs in the known way."""

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, gaussian_filter

from skyloom.sky.mask.polygon import fill_coco, fill_outlines, outlines


@pytest.mark.parametrize("smooth_px", [0.0, 0.7, 2.0])
def test_masks_with_holes_come_back(smooth_px):
    rng = np.random.default_rng(0)
    holes = 0
    for _ in range(20):
        mask = gaussian_filter(rng.normal(size=(40, 50)), smooth_px) > 0.02
        holes += int((binary_fill_holes(mask) & ~mask).sum())
        assert np.array_equal(fill_outlines(outlines(mask), mask.shape), mask)
    assert holes > 20
    assert not fill_outlines([], (4, 5)).any()


def test_outlines_beyond_the_image_are_cut_at_its_border():
    mask = fill_outlines([[-5, -5, 3, -5, 3, 3, -5, 3]], (6, 7))
    assert np.array_equal(np.argwhere(mask).max(0), [3, 3])
    assert mask.sum() == 16


def test_coco_reads_edges_of_pixels():
    square = [[2.0, 1.0, 5.0, 1.0, 5.0, 4.0, 2.0, 4.0]]
    assert fill_coco(square, (8, 9)).sum() == 9
    assert fill_outlines(square, (8, 9)).sum() == 16
    assert not fill_coco([[2.0, 1.0, 5.0, 1.0]], (8, 9)).any()
    assert not fill_coco([], (8, 9)).any()
