"""Run lengths: back to the same mask, the same text from a small mask in a large image, areas and boxes."""

import numpy as np
import pytest

from skyloom.sky.mask import rle


@pytest.mark.parametrize("seed", range(40))
def test_there_and_back_from_the_image_and_from_the_small_mask(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    h, w = rng.integers(1, height + 1), rng.integers(1, width + 1)
    row, col = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    small = rng.random((h, w)) < rng.choice([0.0, 0.3, 0.9, 1.0])
    whole = np.zeros((height, width), bool)
    whole[row : row + h, col : col + w] = small
    counts = rle.encode(whole)
    assert rle.encode_at(small, row, col, (height, width)) == counts
    np.testing.assert_array_equal(rle.decode(counts, (height, width)), whole)
    assert rle.area(counts, (height, width)) == whole.sum()


def test_a_hole_stays_a_hole_and_the_box_holds_whole_pixels():
    mask = np.zeros((9, 12), bool)
    mask[2:7, 3:10] = True
    mask[4, 5] = False
    counts = rle.encode(mask)
    assert not rle.decode(counts, mask.shape)[4, 5]
    assert rle.box(counts, mask.shape) == (3.0, 2.0, 7.0, 5.0)
    assert rle.box(rle.encode(np.zeros((3, 4), bool)), (3, 4)) == (0.0, 0.0, 0.0, 0.0)
