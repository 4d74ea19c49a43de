from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf

from skyloom.backbone import build_backbone
from skyloom.errors import ConfigError, InputError

CONF = Path(__file__).parents[2] / "conf" / "backbone"
CHOICES = sorted(CONF.glob("*.yaml"))
KEYS = {"model", "in_chans", "image_size_px", "weights", "allow_missing"}


@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize("path", CHOICES, ids=lambda p: p.stem)
def test_every_choice_runs_forward_and_backward(path: Path, in_chans: int) -> None:
    options = OmegaConf.to_container(OmegaConf.load(path))
    assert set(options) == KEYS
    options["weights"] = None if options["weights"] == "???" else options["weights"]
    size_px = 28 if path.stem.startswith("dinov2") else 32
    backbone = build_backbone(**(options | {"in_chans": in_chans, "image_size_px": size_px}))
    images = torch.rand(2, in_chans, size_px, size_px)

    features = backbone(images)
    assert features.shape == (2, backbone.num_features)
    features.square().sum().backward()
    gradients = [p.grad for p in backbone.parameters()]
    assert all(g is not None for g in gradients)
    assert any(g.abs().sum() > 0 for g in gradients)

    with torch.no_grad():
        maps = backbone.forward_maps(images)
    strides = [info["stride"] for info in backbone.feature_info]
    assert len(maps) == len(strides) == 4
    assert strides == ([14] * 4 if path.stem.startswith("dinov2") else [4, 8, 16, 32])
    for image_map, info in zip(maps, backbone.feature_info, strict=True):
        side = size_px // info["stride"]
        assert image_map.shape == (2, info["channels"], side, side)


@pytest.mark.parametrize("path", CHOICES, ids=lambda p: p.stem)
def test_every_choice_is_built_for_its_image_size(path: Path) -> None:
    options = OmegaConf.load(path)
    config = timm.get_pretrained_cfg(options.model)
    assert config.has_weights  # so that weights=timm is a choice everywhere
    if path.stem.startswith("dinov2"):
        assert options.image_size_px % 14 == 0
    if path.stem.startswith("swin"):
        assert options.image_size_px == config.input_size[-1]


def test_random_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build_backbone("resnet18", seed=7)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = build_backbone("resnet18", seed=7)
    assert torch.equal(state, torch.get_rng_state())
    assert first.digest() == second.digest()
    assert first.digest() != build_backbone("resnet18", seed=8).digest()


def test_digest_sees_every_weight() -> None:
    backbone = build_backbone("resnet18")
    before = backbone.digest()
    with torch.no_grad():
        backbone.model.layer4[1].bn2.bias[3] += 1e-6
    assert backbone.digest() != before


def test_transformer_weights_have_one_shape_for_every_image_size() -> None:
    shapes = [
        {k: v.shape for k, v in build_backbone("swin_tiny_patch4_window7_224", image_size_px=s).state_dict().items()}
        for s in (64, 224)
    ]
    assert shapes[0] == shapes[1]


def test_images_that_do_not_fit_are_refused_in_one_line() -> None:
    backbone = build_backbone("resnet18", in_chans=1)
    with pytest.raises(InputError, match=r"expects images \(batch, 1, .*found \(2, 3, 32, 32\).*in_chans"):
        backbone(torch.rand(2, 3, 32, 32))
    vit = build_backbone("vit_small_patch14_dinov2.lvd142m", image_size_px=28)
    with pytest.raises(InputError, match="multiples of 14 px, found 30 x 28"):
        vit(torch.rand(1, 1, 30, 28))
    with pytest.raises(ConfigError, match="multiple of 14 px"):
        build_backbone("vit_small_patch14_dinov2.lvd142m", image_size_px=32)
    swin = build_backbone("swin_tiny_patch4_window7_224")
    with pytest.raises(InputError, match=r"built for 224 px images, found 64 x 64.*image_size_px"):
        swin(torch.rand(1, 1, 64, 64))


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"resnet_18 is not a model of timm.*resnet18"):
        build_backbone("resnet_18")


def test_timm_weights_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError("We cannot find the requested files in the local cache")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(InputError, match=r"could not be downloaded.*HF_HOME.*weights=null") as raised:
        build_backbone("resnet18", weights="timm")
    assert "\n" not in str(raised.value)


def test_timm_weights_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"resnet10t\.nothing: timm has no such weights; choose one of: resnet10t"):
        build_backbone("resnet10t.nothing", weights="timm")
    with pytest.raises(ConfigError, match="timm has no weights for vit_base_patch16_18x2_224"):
        build_backbone("vit_base_patch16_18x2_224", weights="timm")
