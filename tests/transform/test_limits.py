"""Limits against astropy, which works on one image at a time and in float64."""

import numpy as np
import pytest
import torch
from astropy.stats import sigma_clip
from astropy.visualization import ZScaleInterval

from skyloom.transform.limits import percentile_limits, sigma_limits, zscale_limits


def images(count: int = 40) -> list[np.ndarray]:
    """Noise with bright pixels and holes, of many shapes; the first ones are as plain as can be."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(count):
        image = rng.normal(0, 1e-4, rng.integers(2, 90, size=2))
        if i % 3:
            image += rng.choice([0, 1], p=[0.9, 0.1], size=image.shape) * rng.exponential(1e-2, image.shape)
        if i % 2:
            image[rng.random(image.shape) < 0.6 * rng.random()] = np.nan
            image.flat[0] = 0.0
        made.append(image.astype(np.float32))
    return made


@pytest.mark.parametrize("contrast", [0.1, 0.25, 1.0])
def test_zscale_is_that_of_astropy(contrast: float) -> None:
    for image in images():
        wanted = ZScaleInterval(contrast=contrast).get_limits(image.astype(np.float64))
        found = zscale_limits(torch.from_numpy(image)[None, None], contrast)
        np.testing.assert_allclose([float(v) for v in found], wanted, rtol=1e-5, atol=1e-9)


def test_zscale_takes_a_batch_with_images_of_all_kinds() -> None:
    rng = np.random.default_rng(0)
    batch = rng.normal(0, 1e-4, (6, 1, 50, 60)).astype(np.float32)
    batch[1, 0, :20] = np.nan
    batch[2] = np.nan
    batch[3] = 7.0
    batch[4, 0, 10:] = np.nan
    batch[4, 0, 0, 4:] = np.nan
    batch[5, 0, ::2] += 1.0
    low, high = zscale_limits(torch.from_numpy(batch), 0.25)
    for i in (0, 1, 3, 4, 5):
        wanted = ZScaleInterval().get_limits(batch[i, 0].astype(np.float64))
        np.testing.assert_allclose([float(low[i]), float(high[i])], wanted, rtol=1e-5, atol=1e-9)
    assert float(low[2]) == float(high[2]) == 0


@pytest.mark.parametrize(("below", "above"), [(5.0, 30.0), (2.0, 3.0), (3.0, 10.0)])
def test_sigma_is_that_of_astropy_within_the_range_of_the_image(below: float, above: float) -> None:
    for image in images():
        if image.size >= 4096:
            continue  # of larger images only a grid is measured
        finite = image[np.isfinite(image)].astype(np.float64)
        _, low, high = sigma_clip(finite, sigma_lower=below, sigma_upper=above, maxiters=5, return_bounds=True)
        wanted = [max(low, finite.min()), min(high, finite.max())]
        found = sigma_limits(torch.from_numpy(image)[None, None], below, above)
        np.testing.assert_allclose([float(v) for v in found], wanted, rtol=1e-5, atol=1e-9)


def test_sigma_of_a_large_image_is_its_noise_whatever_the_sources() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(2e-4, 1e-4, (256, 256)).astype(np.float32)
    image[100:110, 100:110] += 5.0
    low, high = sigma_limits(torch.from_numpy(image)[None, None], 3.0, 3.0)
    assert abs(float(high - low) / 6e-4 - 1) < 0.1
    assert abs(float(high + low) / 4e-4 - 1) < 0.1


@pytest.mark.parametrize("limits", [lambda x: zscale_limits(x, 0.25), lambda x: sigma_limits(x, 3.0, 3.0)])
def test_blank_images_have_equal_finite_limits(limits) -> None:
    low, high = limits(torch.full((2, 1, 16, 16), torch.nan))
    assert torch.equal(low, torch.zeros(2, 1, 1, 1))
    assert torch.equal(high, low)


def test_percentiles_of_one_pixel() -> None:
    low, high = percentile_limits(torch.tensor([[[[3.0, torch.nan]]]]), 1.0, 99.0)
    assert float(low) == float(high) == 3.0
