"""Reddening, blur and noise have the size that was asked for."""

import pytest
import torch

from skyloom.transform.band_changes import REFERENCE_NM, blurred, noisier, reddened


def test_reddening_is_that_of_the_magnitudes():
    image = torch.ones(2, 3, 3)
    made = reddened(image, torch.tensor([4.81, 1.31]), 0.1)
    assert -2.5 * torch.log10(made[:, 0, 0]) == pytest.approx([0.481, 0.131], rel=1e-4)


def test_blur_widens_each_band_by_its_seeing_and_keeps_the_light():
    image = torch.zeros(2, 41, 41)
    image[:, 20, 20] = 1.0
    made = blurred(image, torch.tensor([REFERENCE_NM, REFERENCE_NM / 32]), 2.0)
    offsets = (torch.arange(41.0) - 20) ** 2
    widths = (made.sum(1) * offsets).sum(1).sqrt()
    assert made.sum((1, 2)) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert widths == pytest.approx([2.0, 4.0], rel=5e-3)  # 32 ** 0.2 is 2
    assert torch.allclose(blurred(torch.ones(2, 41, 41), torch.tensor([400.0, 900.0]), 1.0), torch.ones(1))
    assert torch.equal(blurred(image, torch.tensor([400.0, 900.0]), 0.0), image)


def test_noise_is_measured_between_the_sources():
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(2, 128, 128, generator=draw) * torch.tensor([0.1, 3.0]).view(2, 1, 1)
    image[:, 60:70, 60:70] += 1e4
    added = noisier(image, 0.5, draw) - image
    assert added.std((1, 2)) == pytest.approx([0.05, 1.5], rel=0.05)
    assert added.mean((1, 2)) == pytest.approx([0.0, 0.0], abs=0.05)
