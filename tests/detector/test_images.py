"""Images are normalised before they are padded, so that padding is the mean."""

import pytest
import torch

from skyloom.detector.images import normalised
from skyloom.errors import InputError

SCALE = {"mean": torch.tensor([2.0]), "std": torch.tensor([4.0])}


def test_padding_and_gaps_are_the_mean():
    small = torch.full((1, 3, 5), 6.0)
    small[0, 0, 0] = torch.nan
    batch = normalised([small, torch.full((1, 6, 4), 10.0)], **SCALE, multiple_px=4, pad_to_px=None)
    assert batch.pixels.shape == (2, 1, 8, 8)
    assert batch.sizes == [(3, 5), (6, 4)]
    assert batch.pixels[0, 0, :3, :5].sum() == 14 == batch.pixels[0].sum()
    assert batch.pixels[1].sum() == 2 * 24


def test_squares_of_a_least_side():
    image = torch.zeros(2, 1, 8, 12)
    assert normalised(image, **SCALE, multiple_px=4, pad_to_px=18).pixels.shape == (2, 1, 20, 20)
    assert normalised(image, **SCALE, multiple_px=4, pad_to_px=10).pixels.shape == (2, 1, 12, 12)


def test_no_image_is_refused():
    with pytest.raises(InputError, match="found none"):
        normalised([], **SCALE, multiple_px=4, pad_to_px=None)
    with pytest.raises(InputError, match=r"\(1, 0, 5\)"):
        normalised([torch.zeros(1, 0, 5)], **SCALE, multiple_px=4, pad_to_px=None)
