"""Images in units of their noise, bright sources compressed: each band of each image by itself."""

import numpy as np
import pytest
import torch

from skyloom.detector.images import normalised

MEAN, STD = torch.tensor([1.0, -2.0]), torch.tensor([50.0, 5.0])


def sky(*, bright=1000.0, unit=1.0, seed=0):
    """Noise of one unit, a faint source of five and a bright one, two bands of 32 x 32 px."""
    image = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 32, 32)).astype(np.float32))
    image[:, 8, 8] = 5.0
    image[:, 20:23, 20:23] = bright
    return image * unit


def taken(images, softening_sigma=3.0, pad_to_px=None):
    options = {"mean": MEAN, "std": STD, "multiple_px": 1, "pad_to_px": pad_to_px}
    return normalised(images, softening_sigma=softening_sigma, **options).pixels


def test_a_faint_source_stands_out_whatever_the_bright_ones_do():
    pixels = taken(sky()[None])[0]
    assert pixels[:, 8, 8].numpy() == pytest.approx(np.arcsinh(5 / 3), rel=0.15)  # the noise is known to some per cent
    assert pixels[:, 21, 21].numpy() == pytest.approx(np.arcsinh(1000 / 3), rel=0.05)
    fainter = taken(sky(bright=10.0)[None])[0]
    assert fainter[:, 8, 8].numpy() == pytest.approx(pixels[:, 8, 8].numpy(), rel=1e-5)


def test_the_unit_of_the_pixels_does_not_matter():
    assert torch.allclose(taken(sky(unit=1e-6)[None]), taken(sky()[None]), atol=1e-5)


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    noisy, quiet = sky(seed=1) * 7, sky(seed=2)
    both = taken(torch.stack([noisy, quiet]))
    assert torch.equal(both[1:], taken(quiet[None]))
    assert torch.equal(taken([noisy, quiet]), both)


def test_without_a_softening_mean_and_std_decide():
    pixels = taken(sky()[None], softening_sigma=None)[0]
    assert torch.allclose(pixels, (sky() - MEAN[:, None, None]) / STD[:, None, None])


def test_pixels_that_are_not_finite_are_left_out_of_median_and_noise():
    image = sky()
    image[:, :12] = torch.nan
    image[0, 0, 0] = torch.inf
    pixels = taken(image[None])[0]
    assert (pixels[:, :12] == 0).all()
    assert torch.allclose(pixels[:, 21, 21], taken(sky()[None])[0, :, 21, 21], rtol=0.02)


def test_a_band_that_is_mostly_constant_falls_back_on_the_std_of_the_data():
    image = torch.zeros(2, 32, 32)
    image[1, 4, 4] = 30.0
    pixels = taken(image[None])[0]
    assert pixels[1, 4, 4].item() == pytest.approx(np.arcsinh(30 / (3 * 5)))
    assert pixels[0].abs().max() == 0
    assert taken(torch.full_like(image, torch.nan)[None]).abs().max() == 0


def test_padding_is_zero_and_moves_no_pixel():
    narrow = sky()[None, :, :, :30]
    pixels = taken(narrow, pad_to_px=40)
    assert pixels.shape == (1, 2, 40, 40)
    assert pixels[..., 32:, :].abs().max() == 0
    assert pixels[..., 30:].abs().max() == 0
    assert torch.equal(pixels[0, :, :32, :30], taken(narrow)[0])
