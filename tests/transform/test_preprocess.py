from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.visualization import LinearStretch, LogStretch, PowerStretch, SinhStretch, SqrtStretch
from omegaconf import DictConfig, ListConfig, OmegaConf

from skyloom.errors import ConfigError, InputError
from skyloom.transform import Preprocess, RadioAugment
from skyloom.transform.detection_augment import DetectionAugment
from skyloom.transform.stretch import CLIPS, STRETCHES, Stretch

ROOT = Path(__file__).parents[2]
STRETCHED = [s for s in STRETCHES if s != "none"]
RMS = 83e-6  # Jy/beam, of LoTSS


def sky(batch: int = 3, side: int = 32, seed: int = 0) -> torch.Tensor:
    """Noise at LoTSS level with a source of growing flux in the middle."""
    images = RMS * torch.randn(batch, 1, side, side, generator=torch.Generator().manual_seed(seed))
    for i in range(batch):
        images[i, 0, side // 2 - 2 : side // 2 + 2, side // 2 - 2 : side // 2 + 2] += 10.0**i * 1e-3
    return images


FILES = sorted(path for path in (ROOT / "conf/transform").glob("*.yaml") if path.stem != "detection")


def test_the_file_of_detectors_builds_both_parts() -> None:
    """It keeps pixels and size as they are; its changes move boxes along, so they are another class."""
    path = ROOT / "conf/transform/detection.yaml"
    config = OmegaConf.create({"backbone": {"in_chans": 1}, "transform": OmegaConf.load(path)})
    options = OmegaConf.to_container(config.transform, resolve=True)
    images = sky(2)
    assert torch.equal(Preprocess.from_options(options["preprocess"]).scale(images), images)
    DetectionAugment(["Y106", "J129", "H158"], **options["augment"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_conf_file_builds_both_parts(path: Path) -> None:
    config = OmegaConf.create(
        {"backbone": OmegaConf.load(ROOT / "conf/backbone/resnet18.yaml"), "transform": _merged(path)}
    )
    options = OmegaConf.to_container(config.transform, resolve=True)
    preprocess = Preprocess.from_options(options["preprocess"])
    scaled = preprocess.scale(sky(2))
    views = RadioAugment(**options["augment"])(scaled, torch.Generator().manual_seed(0))
    channels = 3 if path.stem == "multistretch" else 1
    assert [tuple(view.shape) for view in views] == [(2, channels, 224, 224)] * 2
    assert preprocess.normalise(scaled).shape == (2, channels, 224, 224)
    assert set(options["preprocess"]) == set(preprocess.config)


def _merged(path: Path) -> DictConfig | ListConfig:
    """A file of the group on top of the one that its defaults list names."""
    own = OmegaConf.load(path)
    base = own.pop("defaults", None)
    return OmegaConf.merge(OmegaConf.load(path.with_name(f"{base[0]}.yaml")), own) if base else own


@pytest.mark.parametrize("stretch", STRETCHED)
def test_output_spans_0_to_1_whatever_the_flux_scale(stretch: str) -> None:
    images = sky()
    result = Preprocess(stretch=stretch)(images)
    assert result.dtype == torch.float32
    assert result.amin() == 0
    torch.testing.assert_close(result.amax(dim=(1, 2, 3)), torch.ones(3))
    torch.testing.assert_close(Preprocess(stretch=stretch)(images * 1e6), result, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("clip", CLIPS)
def test_output_spans_0_to_1_with_every_clip(clip: str) -> None:
    images = sky()
    images[1, 0, :3] = torch.nan
    preprocess = Preprocess(stretch="linear", clip=clip)
    result = preprocess(images)
    low, high = (float(v[0]) for v in preprocess.stretches[0].limits(images))
    assert result.isfinite().all()
    torch.testing.assert_close(result.amax(dim=(1, 2, 3)), torch.ones(3))
    wanted = ((images[0] - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(result[0], wanted)
    torch.testing.assert_close(Preprocess(stretch="linear", clip=clip)(images * 1e6), result, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "peer"),
    [
        ({"stretch": "power", "power": 2.0}, PowerStretch(2)),
        ({"stretch": "power", "power": 0.3}, PowerStretch(0.3)),
        ({"stretch": "log"}, LogStretch(1000)),
        ({"stretch": "log", "log_scale": 50.0}, LogStretch(50)),
        ({"stretch": "sqrt"}, SqrtStretch()),
        ({"stretch": "sinh"}, SinhStretch()),
        ({"stretch": "sinh", "sinh_scale": 5.0}, SinhStretch(0.2)),
        ({"stretch": "linear"}, LinearStretch()),
    ],
)
def test_stretches_are_those_of_astropy(options: dict, peer) -> None:
    images = sky(1)
    unit = Preprocess(stretch="minmax")(images)
    found = Preprocess(**options, clip="none")(images)
    np.testing.assert_allclose(found.numpy(), peer(unit.numpy().astype(np.float64)), rtol=1e-4, atol=1e-5)


def test_channels_with_stretches_of_their_own() -> None:
    images = sky()
    images[0, 0, :3] = torch.nan
    channels = [
        {"stretch": "power", "power": 2.0},
        {"stretch": "minmax"},
        {"stretch": "log", "clip": "sigma", "clip_low_sigma": 1},
    ]
    together = Preprocess(channels=channels, clip_low_percentile=5.0, image_size_px=20, mean=[0.1, 0.2, 0.3], std=0.5)
    result = together(images)
    assert result.shape == (3, 3, 20, 20)
    assert together.scale(images).shape == (3, 3, 20, 20)
    for i, options in enumerate(channels):
        alone = Preprocess(**options, clip_low_percentile=5.0, image_size_px=20)(images)[:, 0]
        torch.testing.assert_close(result[:, i], (alone - 0.1 * (i + 1)) / 0.5)
    again = Preprocess.from_options(together.config)
    assert again.digest == together.digest
    assert Preprocess(channels=3).digest != Preprocess(channels=[{}, {}, {}]).digest
    torch.testing.assert_close(Preprocess(channels=3)(images), Preprocess(channels=[{}, {}, {}])(images))


def test_limits_are_measured_once_for_channels_that_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = Stretch.limits
    monkeypatch.setattr(Stretch, "limits", lambda self, image: calls.append(1) or real(self, image))
    Preprocess(channels=[{"stretch": "linear"}, {"stretch": "sqrt"}, {"stretch": "sqrt", "clip": "zscale"}])(sky())
    assert len(calls) == 2


def test_raw_mean_and_std_for_raw_values() -> None:
    images = sky()
    result = Preprocess(stretch="none", mean=2e-5, std=3e-3, mean_std_of="raw", channels=2)(images)
    torch.testing.assert_close(result, ((images - 2e-5) / 3e-3).expand(-1, 2, -1, -1))


@pytest.mark.parametrize("stretch", STRETCHED)
def test_stretch_keeps_the_order_of_pixels(stretch: str) -> None:
    images = sky()
    order = images.flatten(1).argsort(1)
    assert (Preprocess(stretch=stretch)(images).flatten(1).gather(1, order).diff(dim=1) >= 0).all()


@pytest.mark.parametrize("stretch", STRETCHED)
def test_each_image_stands_for_itself(stretch: str) -> None:
    images = sky()
    images[1, 0, :5] = torch.nan
    preprocess = Preprocess(stretch=stretch, image_size_px=20, clip_high_percentile=99.0)
    together = preprocess(images)
    for i in range(len(images)):
        torch.testing.assert_close(preprocess(images[i : i + 1])[0], together[i])


@pytest.mark.parametrize(("low", "high"), [(0.0, 100.0), (1.0, 99.5), (30.0, 60.0), (2.5, 100.0)])
def test_percentiles_are_those_of_numpy_on_the_finite_pixels(low: float, high: float) -> None:
    images = sky()
    images[0, 0, 3:9] = torch.nan
    images[1, 0, 0, 0] = torch.inf
    images[1, 0, 0, 1] = -torch.inf
    result = Preprocess(stretch="linear", clip_low_percentile=low, clip_high_percentile=high)(images)
    for image, found in zip(images.numpy().astype(np.float64), result.numpy(), strict=True):
        finite = np.isfinite(image)
        lowest, highest = np.percentile(image[finite], [low, high])
        wanted = np.where(finite, np.clip((image - lowest) / (highest - lowest), 0, 1), 0)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_asinh_is_linear_at_the_noise_and_logarithmic_for_sources() -> None:
    images = sky(1, side=64, seed=5)
    images[0, 0, 0, :4] = torch.tensor([1.0, 10.0, 100.0, 1000.0]) * 100 * RMS
    y = Preprocess(clip_low_percentile=0.0)(images)[0, 0]
    steps = y[0, :4].diff()  # equal steps for equal factors of flux
    torch.testing.assert_close(steps, steps[:1].expand(3), rtol=0.05, atol=0)
    x = images[0, 0, 40:].flatten() / RMS
    inner = x.abs() < 1
    noise, stretched = x[inner].numpy(), y[40:].flatten()[inner].numpy()
    slope, offset = np.polyfit(noise, stretched, 1)
    assert np.abs(stretched - (slope * noise + offset)).max() < 0.05 * slope * 2
    # A brighter softening leaves less of the range to the noise.
    soft = Preprocess(clip_low_percentile=0.0, softening_sigma=30.0)(images)[0, 0]
    assert soft[40:].std() < y[40:].std() / 2


def test_asinh_matches_the_published_formula() -> None:
    image = sky(1, side=32)[0, 0].double()
    values = image.flatten().sort().values
    median, below = values[round(0.5 * 1023)], values[round(0.1587 * 1023)]
    t = torch.asinh((image - median) / (3 * (median - below)))
    wanted = (t - t.min()) / (t.max() - t.min())
    found = Preprocess(clip_low_percentile=0.0, softening_sigma=3.0)(image[None, None])[0, 0]
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stretch", STRETCHED)
def test_blank_and_constant_images(stretch: str) -> None:
    images = sky(4)
    images[0] = 3e-4
    images[1] = torch.nan
    images[2, 0, 4:] = torch.nan
    images[3, 0, 8:10] = torch.nan
    result = Preprocess(stretch=stretch, image_size_px=32)(images)
    assert (result[:2] == 0).all()
    assert (result[2, 0, 4:] == 0).all()
    assert result[2].max() == 1
    assert (result[3, 0, 8:10] == 0).all()
    assert result.isfinite().all()


def test_empty_background_without_noise_keeps_its_source() -> None:
    images = torch.zeros(1, 1, 32, 32)
    images[0, 0, 10:12, 10:12] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    result = Preprocess()(images)[0, 0]
    assert (result[10:12, 10:12].flatten().diff() > 0).all()
    assert result[0, 0] == 0
    assert result[11, 11] == 1


def test_shape_channels_mean_and_std() -> None:
    images = sky()[:, :, :24]  # not square: squeezed to a square
    plain = Preprocess(image_size_px=16)(images)
    assert plain.shape == (3, 1, 16, 16)
    result = Preprocess(image_size_px=16, channels=3, mean=[0.1, 0.2, 0.3], std=0.5)(images)
    for channel, mean in enumerate([0.1, 0.2, 0.3]):
        torch.testing.assert_close(result[:, channel], (plain[:, 0] - mean) / 0.5)
    assert not result.requires_grad
    assert Preprocess(channels=2).state_dict() == {}


def test_input_is_left_alone() -> None:
    images = sky()
    images[0, 0, 0, 0] = torch.nan
    before = images.clone()
    Preprocess()(images)
    assert torch.equal(images.nan_to_num(7.0), before.nan_to_num(7.0))


def test_none_passes_raw_values() -> None:
    images = sky(1)
    images[0, 0, 0, 0] = torch.nan
    result = Preprocess(stretch="none")(images)
    assert torch.equal(result[0, 0, 1:], images[0, 0, 1:])
    assert result[0, 0, 0, 0] == images[~images.isnan()].min()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stretch": "asin"}, "stretch=asin is not known.*Did you mean 'asinh'"),
        ({"stretch": "none", "mean": 0.45, "std": 0.225}, "values of 0-1, but stretch=none passes raw values"),
        ({"mean": 0.45}, "give both or neither"),
        ({"mean": [0.1, 0.2], "std": 1.0}, "mean has 2 numbers, expected 1"),
        ({"mean": 0.1, "std": 0.0}, "std=0.0: expected more than 0"),
        ({"clip_low_percentile": 99.0, "clip_high_percentile": 1.0}, "clip_low_percentile < clip_high_percentile"),
        ({"softening_sigma": 0.0}, "softening_sigma=0.0"),
        ({"channels": 0}, "channels=0"),
        ({"channels": []}, r"channels=\[\].*at least 1"),
        ({"channels": [{"stretch": "lgo"}]}, "Did you mean 'log'"),
        ({"channels": [{}, {"powr": 2}]}, r"channels\[1\]: option=powr.*Did you mean 'power'"),
        ({"channels": [{"power": "two"}]}, r"power='two'"),
        ({"clip": "sigmas"}, "clip=sigmas is not known.*Did you mean 'sigma'"),
        ({"clip_high_sigma": 0}, "clip_high_sigma=0"),
        ({"zscale_contrast": 1.5}, "zscale_contrast=1.5"),
        ({"power": -1}, "power=-1"),
        ({"stretch": "none", "mean": 0.45, "std": 0.225}, r"step=stats.*mean_std_of=raw"),
        ({"mean": 2e-5, "std": 3e-3, "mean_std_of": "raw"}, "mean_std_of=raw.*stretch=asinh makes values of 0-1"),
        (
            {"channels": [{"stretch": "none"}, {}], "mean": 0, "std": 1, "mean_std_of": "raw"},
            "stretch=asinh makes values of 0-1",
        ),
        ({"channels": [{"stretch": "none"}, {}], "mean": 0, "std": 1}, "stretch=none passes raw values"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocess(**options)
    with pytest.raises(ConfigError, match=message):
        Preprocess.from_options(options)


def test_unknown_and_ill_typed_options_of_a_mapping_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"transform\.preprocess: option=strech .*Did you mean 'stretch'"):
        Preprocess.from_options({"strech": "log"})
    with pytest.raises(ConfigError, match=r"image_size_px='big'"):
        Preprocess.from_options({"image_size_px": "big"})


def test_bad_shape() -> None:
    with pytest.raises(InputError, match=r"expected raw images \(batch, 1, height, width\), found \(2, 3, 8, 8\)"):
        Preprocess()(torch.rand(2, 3, 8, 8))


def test_digest_follows_the_options_and_the_config_rebuilds() -> None:
    preprocess = Preprocess(image_size_px=32, mean=0, std=1)
    assert Preprocess(**preprocess.config).digest == preprocess.digest
    assert Preprocess(image_size_px=32, mean=0.0, std=[1.0]).digest == preprocess.digest
    assert Preprocess(image_size_px=33, mean=0, std=1).digest != preprocess.digest
    assert len(preprocess.digest) == 64


def test_digest_of_options_of_the_first_release_stays() -> None:
    """Features and models made before there were more options must still be told to be prepared alike."""
    assert Preprocess().digest == "d548d95d1137c3e9f2988307e6e71bb4931046b211b022c1cc76cdcb86726987"
    first = Preprocess(stretch="log", image_size_px=32, channels=3, mean=0.5, std=0.25)
    assert first.digest == "8c0ccfee62f407fac7b31cd2de744eeca40b0663390ca98623c9e250d3398af5"
    assert Preprocess(clip="zscale").digest != Preprocess().digest
    assert Preprocess(stretch="power", power=3).digest != Preprocess(stretch="power").digest
