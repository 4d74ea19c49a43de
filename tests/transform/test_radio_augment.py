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


def test_local_views_follow_the_two_global_ones() -> None:
    x, options = images(side=32), {"local_crops": 3, "local_size_px": 12}
    views = RadioAugment(**options)(x, generator(5))
    assert [tuple(view.shape) for view in views] == [(8, 1, 32, 32)] * 2 + [(8, 1, 12, 12)] * 3
    alone = RadioAugment()(x, generator(5))
    assert all(torch.equal(a, b) for a, b in zip(alone, views[:2], strict=True))  # local views are drawn last
    assert not torch.equal(views[2], views[3])


def test_local_views_show_their_share_of_the_image() -> None:
    ramp = torch.linspace(0, 1, 64).view(1, 1, 1, 64).expand(300, 1, 64, 64)
    options = OFF | {"local_crops": 1, "local_size_px": 32, "local_area": (0.04, 0.25)}
    view = RadioAugment(**options)(ramp, generator())[2]
    width = (view[:, 0, 0, -1] - view[:, 0, 0, 0]) * 32 / 31 * 63 / 64
    assert 0.2 - 0.01 < width.min() < 0.22
    assert 0.47 < width.max() < 0.5 + 0.01
    assert view[:, 0, 0, 0].min() < 0.02  # they reach both ends of the image
    assert view[:, 0, 0, -1].max() > 0.98


@pytest.mark.parametrize("padding", ["reflection", "border", "zeros", "circle"])
def test_padding_of_turned_views(padding: str) -> None:
    x = torch.full((50, 1, 33, 33), 0.5)
    view = RadioAugment(**OFF | {"rotation": "any", "padding": padding}).view(x, generator())
    corner = view[:, 0, 0, 0]
    if padding in ("reflection", "border"):
        torch.testing.assert_close(view, x)
    elif padding == "zeros":
        assert (corner == 0).sum() > 25  # turned by more than a little
        assert (corner > 0.4).any()
    else:
        axis = torch.arange(33.0) - 16
        inside = axis[:, None] ** 2 + axis**2 <= 16.5**2
        assert (view[:, 0, ~inside] == 0).all()
        torch.testing.assert_close(view[:, 0, inside], x[:, 0, inside])


def test_circle_stays_empty_after_noise_and_blur_and_shows_nothing_made_up() -> None:
    options = OFF | {"rotation": "any", "padding": "circle", "crop_area_min": 0.3}
    x = torch.ones(50, 1, 32, 32)
    quiet = RadioAugment(**options).view(x, generator())
    assert set(quiet.unique().tolist()) <= {0.0, 1.0} or quiet[quiet > 0].min() > 0.999
    loud = RadioAugment(**options | {"noise_fraction_max": 0.5, "blur_probability": 1.0}).view(x, generator())
    assert (loud[:, 0, 0, 0] == 0).all()
    assert loud[:, 0, 16, 16].std() > 0


def test_oval_beams_lie_at_any_angle_and_keep_flux() -> None:
    point = torch.zeros(100, 1, 41, 41)
    point[:, 0, 20, 20] = 1.0
    options = OFF | {"blur_probability": 1.0, "blur_sigma_px": (2.0, 2.0), "blur_axis_ratio_max": 2.0}
    view = RadioAugment(**options).view(point, generator())[:, 0]
    axis = torch.arange(41.0) - 20
    xx, yy = (view * axis**2).sum((1, 2)), (view * axis[:, None] ** 2).sum((1, 2))
    xy = (view * axis * axis[:, None]).sum((1, 2))
    major = 0.5 * (xx + yy) + (0.25 * (xx - yy) ** 2 + xy**2).sqrt()
    minor = xx + yy - major
    torch.testing.assert_close(view.sum((1, 2)), torch.ones(100), rtol=1e-3, atol=0)
    torch.testing.assert_close(major.sqrt(), torch.full((100,), 2.0), rtol=0.02, atol=0)  # the kernel ends at 3 sigma
    ratio = (major / minor).sqrt()
    assert ratio.min() < 1.1
    assert 1.9 < ratio.max() < 2.1
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    assert angle.std() > 0.5


def test_oval_of_ratio_near_one_is_the_round_blur() -> None:
    x, options = images(), OFF | {"blur_probability": 1.0, "blur_sigma_px": (1.5, 1.5)}
    round_, oval = (
        RadioAugment(**options, blur_axis_ratio_max=ratio).view(x, generator()) for ratio in (1.0, 1.0 + 1e-6)
    )
    torch.testing.assert_close(round_, oval, rtol=0, atol=1e-5)


@pytest.mark.parametrize("curve", ["asinh", "sinh", "log"])
def test_other_curves_keep_ends_and_order(curve: str) -> None:
    ramp = torch.linspace(0, 1, 32).view(1, 1, 1, 32).expand(60, 1, 32, 32)
    options = OFF | {"stretch_probability": 1.0, "contrast_max": 0.0, "stretch_curves": [curve]}
    view = RadioAugment(**options).view(ramp, generator())
    torch.testing.assert_close(view[..., 0], ramp[..., 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(view[..., -1], ramp[..., -1], rtol=0, atol=1e-5)
    assert (view.diff(dim=-1) > 0).all()
    middle = view[:, 0, 0, 16] - ramp[:, 0, 0, 16]
    assert (middle < 1e-4).all() if curve == "sinh" else (middle > -1e-4).all()
    assert middle.abs().max() > 0.1


def test_curves_are_mixed_over_the_images() -> None:
    ramp = torch.linspace(0, 1, 32).view(1, 1, 1, 32).expand(200, 1, 32, 32)
    options = OFF | {"stretch_probability": 0.5, "contrast_max": 0.0, "gamma_max": 1.0}
    view = RadioAugment(**options | {"stretch_curves": ("sinh", "log")}).view(ramp, generator())
    middle = view[:, 0, 0, 16] - ramp[:, 0, 0, 16]
    assert 70 < (middle.abs() < 1e-5).sum() < 130  # not chosen
    assert 20 < (middle > 0.01).sum() < 80  # log
    assert (middle < -0.005).sum() > 10  # sinh


def test_channels_change_by_themselves() -> None:
    x = images(200, channels=3, side=8) * 0.5 + 0.25
    off = OFF | {"channel_brightness_max": 0.1, "channel_contrast_max": 0.0}
    assert torch.allclose(RadioAugment(**off).view(x, generator()), x, atol=1e-5)
    view = RadioAugment(**off | {"channel_jitter_probability": 0.5}).view(x, generator())
    shift = (view - x).mean((2, 3))
    still = (shift.abs() < 1e-6).all(1)
    assert 70 < still.sum() < 130
    assert shift.abs().max() < 0.1 + 1e-5
    assert shift[~still].std(1).min() > 0
    tilt = OFF | {"channel_jitter_probability": 1.0, "channel_brightness_max": 0.0, "channel_contrast_max": 0.3}
    ratio = RadioAugment(**tilt).view(x, generator()).std((2, 3)) / x.std((2, 3))
    assert 0.7 - 1e-3 < ratio.min() < 0.75
    assert 1.25 < ratio.max() < 1.3 + 1e-3


def test_noise_of_the_background_ignores_sources() -> None:
    x = 0.01 * torch.randn(64, 2, 64, 64, generator=generator(7))
    x[:, 1] *= 3
    x[:, :, 20:30, 20:30] += 1.0  # a source
    options = OFF | {"noise_fraction_max": 1.0, "noise_rms_of": "background"}
    view = RadioAugment(**options).view(x, generator())
    sigma = (view - x).std((2, 3))
    assert 0.009 < sigma[:, 0].max() < 0.0115
    torch.testing.assert_close(sigma[:, 1] / sigma[:, 0], torch.full((64,), 3.0), rtol=0.35, atol=0)


def test_noise_of_a_beam_is_correlated_and_as_strong() -> None:
    x = images(64, side=64)
    white, smooth = (
        RadioAugment(**OFF | {"noise_fraction_max": 0.5, "noise_beam_px": beam}).view(x, generator()) - x
        for beam in (0.0, 4.0)
    )
    torch.testing.assert_close(white.std((1, 2, 3)), smooth.std((1, 2, 3)), rtol=0.05, atol=1e-4)
    near = [(n[..., 1:] * n[..., :-1]).mean() / (n * n).mean() for n in (white, smooth)]
    assert abs(near[0]) < 0.05
    assert near[1] == pytest.approx(math.exp(-1 / (4 * (4 / 2.3548) ** 2)), abs=0.05)  # of a Gaussian's autocorrelation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "edge"}, "padding=edge is not known.*border"),
        ({"noise_rms_of": "sky"}, "noise_rms_of=sky.*background"),
        ({"stretch_curves": ["gamma", "asin"]}, "stretch_curves=asin is not known.*Did you mean 'asinh'"),
        ({"stretch_curves": []}, "stretch_curves is empty"),
        ({"local_crops": -1}, "local_crops=-1"),
        ({"local_area": (0.5, 0.1)}, r"local_area\[0\]=0.5"),
        ({"blur_axis_ratio_max": 0.5}, "blur_axis_ratio_max=0.5: expected 1"),
    ],
)
def test_bad_new_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RadioAugment(**options)
