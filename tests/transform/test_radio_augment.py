import math

import pytest
import torch

from skyloom.errors import ConfigError
from skyloom.transform import RadioAugment

OFF = {
    "crop_area_min": 1.0,
    "crop_aspect_max": 1.0,
    "rotation": "none",
    "flip_probability": 0.0,
    "blur_probability": 0.0,
    "stretch_probability": 0.0,
    "noise_fraction_max": 0.0,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 8, channels: int = 1, side: int = 32) -> torch.Tensor:
    return torch.rand(batch, channels, side, side, generator=generator(99))


def test_everything_off_is_the_identity() -> None:
    x = images()
    for view in RadioAugment(**OFF)(x, generator()):
        torch.testing.assert_close(view, x, rtol=0, atol=1e-5)


def test_views_follow_the_generator_and_leave_the_global_state() -> None:
    x, augment = images(channels=2), RadioAugment()
    state = torch.get_rng_state()
    first, again, other = augment(x, generator(1)), augment(x, generator(1)), augment(x, generator(2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == x.shape


def test_images_of_a_batch_get_different_views() -> None:
    x = images(1).expand(6, -1, -1, -1)
    view = RadioAugment().view(x, generator())
    assert all(not torch.allclose(view[0], view[i], atol=1e-3) for i in range(1, 6))


def test_quarter_turns_and_flips_reach_the_eight_orientations_without_loss() -> None:
    x = images(1, side=9).expand(200, -1, -1, -1)
    view = RadioAugment(**OFF | {"rotation": "quarter", "flip_probability": 0.5}).view(x, generator())
    wanted = [torch.rot90(m, k, (1, 2)) for m in (x[0], x[0].flip(2)) for k in range(4)]
    counts = torch.zeros(8)
    for image in view:
        distance = torch.stack([(image - w).abs().max() for w in wanted])
        assert distance.min() < 1e-4
        counts[distance.argmin()] += 1
    assert counts.min() > 8  # 25 expected of each


def test_flip_probability_one_mirrors() -> None:
    x = images()
    view = RadioAugment(**OFF | {"flip_probability": 1.0}).view(x, generator())
    torch.testing.assert_close(view, x.flip(3), rtol=0, atol=1e-5)


def test_rotation_keeps_a_round_source_in_the_centre() -> None:
    axis = torch.arange(33.0) - 16
    source = torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 3.0**2)).expand(5, 1, -1, -1)
    view = RadioAugment(**OFF | {"rotation": "any"}).view(source, generator())
    torch.testing.assert_close(view, source, rtol=0, atol=0.03)


def test_crop_keeps_at_least_its_share_and_lies_inside() -> None:
    side = 64
    ramp = torch.linspace(0, 1, side).view(1, 1, 1, side).expand(300, 1, side, side)
    view = RadioAugment(**OFF | {"crop_area_min": 0.64}).view(ramp, generator())
    first, last = view[:, 0, 0, 0], view[:, 0, 0, -1]
    width = last - first
    assert width.min() > 0.8 - 0.02
    assert width.min() < 0.83
    assert width.max() > 0.97
    assert first.min() >= 0
    assert last.max() <= 1
    assert (first - (1 - last)).std() > 0.02  # not always in the middle


def test_blur_acts_on_its_share_and_keeps_flux() -> None:
    point = torch.zeros(200, 1, 33, 33)
    point[:, 0, 16, 16] = 1.0
    view = RadioAugment(**OFF | {"blur_probability": 0.25, "blur_sigma_px": (1.0, 2.0)}).view(point, generator())
    torch.testing.assert_close(view.sum(dim=(1, 2, 3)), torch.ones(200), rtol=1e-3, atol=0)
    blurred = view[:, 0, 16, 16] < 0.99
    assert 25 < blurred.sum() < 75
    peak = view[blurred][:, 0, 16, 16]  # 1 / (2 pi sigma^2)
    assert peak.max() < 1.05 / (2 * math.pi)
    assert peak.min() > 0.9 / (8 * math.pi)


def test_stretch_keeps_the_order_of_pixels_and_the_range() -> None:
    x = images()
    view = RadioAugment(**OFF | {"stretch_probability": 1.0}).view(x, generator())
    order = x.flatten(1).argsort(1)
    assert (view.flatten(1).gather(1, order).diff(dim=1) > -1e-6).all()
    assert view.min() >= 0
    assert view.max() <= 1
    assert (view - x).abs().max() > 0.05


def test_noise_is_a_fraction_of_the_image_rms() -> None:
    x = images(64, side=48) * torch.linspace(0.01, 1, 64).view(-1, 1, 1, 1)
    view = RadioAugment(**OFF | {"noise_fraction_max": 0.2}).view(x, generator())
    fraction = (view - x).std(dim=(1, 2, 3)) / x.std(dim=(1, 2, 3))
    assert fraction.max() < 0.21
    assert fraction.max() > 0.17
    assert fraction.min() < 0.03


def test_constant_image_stays_finite() -> None:
    view = RadioAugment().view(torch.zeros(4, 1, 16, 16), generator())
    assert (view == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation": "quarters"}, "rotation=quarters is not known.*Did you mean 'quarter'"),
        ({"crop_area_min": 1.5}, "crop_area_min=1.5: expected 0.01 to 1"),
        ({"blur_sigma_px": (2.0, 1.0)}, r"blur_sigma_px\[0\]=2.0"),
        ({"flip_probability": -0.1}, "flip_probability"),
        ({"gamma_max": 0.5}, "gamma_max"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RadioAugment(**options)
