import logging
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from skyloom.backbone import build_backbone, save_weights
from skyloom.errors import InputError


class Opaque:
    """Stands for the configuration objects that other projects keep in their checkpoints."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(build_backbone("resnet18", seed=3), path)
    return path


def lightning(path: Path, state: dict, **more: object) -> Path:
    torch.save({"state_dict": state, "epoch": 1, **more}, path)
    return path


def test_our_own_file_round_trips(saved: Path) -> None:
    backbone = build_backbone("resnet18", weights=saved, seed=4)
    assert backbone.digest() == build_backbone("resnet18", seed=3).digest()
    assert backbone.weights is not None
    assert backbone.weights.missing == backbone.weights.skipped == ()
    assert build_backbone("resnet18", weights=saved.parent).digest() == backbone.digest()  # the folder stands for it


def test_lightning_checkpoint_of_a_task(tmp_path: Path) -> None:
    source = build_backbone("resnet18", seed=3)
    state = {f"backbone.{key}": value for key, value in source.state_dict().items()}
    state |= {f"target_{key}": torch.zeros_like(value) for key, value in state.items()}
    path = lightning(tmp_path / "last.ckpt", state | {"projection.layers.0.weight": torch.zeros(2)})
    assert build_backbone("resnet18", weights=path, seed=4).digest() == source.digest()


def test_solo_learn_checkpoint_with_torchvision_names(tmp_path: Path) -> None:
    source = torchvision.models.resnet18(num_classes=5)
    state = {f"backbone.{key}": value for key, value in source.state_dict().items()}
    path = lightning(tmp_path / "byol.ckpt", state | {"projector.0.weight": torch.zeros(2)})
    backbone = build_backbone("resnet18", in_chans=3, weights=path).eval()
    assert backbone.weights is not None
    assert backbone.weights.skipped == ("fc.weight", "fc.bias")
    source.fc = torch.nn.Identity()
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(backbone(images), source.eval()(images), rtol=1e-4, atol=1e-4)


def test_missing_input_layer_is_accepted_and_said(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = load_file(saved)
    del state["conv1.weight"]
    save_file(state, tmp_path / "headless.safetensors")
    with caplog.at_level(logging.WARNING):
        backbone = build_backbone("resnet18", weights=tmp_path / "headless.safetensors", seed=9)
    assert backbone.weights is not None
    assert backbone.weights.missing == ("conv1.weight",)
    assert "kept at their initial values: conv1.weight" in caplog.text
    assert torch.equal(backbone.model.conv1.weight, build_backbone("resnet18", seed=9).model.conv1.weight)
    assert torch.equal(backbone.model.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])


def test_more_than_the_input_layer_missing_needs_leave(saved: Path, tmp_path: Path) -> None:
    state = load_file(saved)
    del state["layer2.0.conv1.weight"]
    path = tmp_path / "holes.safetensors"
    save_file(state, path)
    with pytest.raises(InputError, match=r"1 of 120 tensors are missing.*layer2\.0\.conv1\.weight.*allow_missing=true"):
        build_backbone("resnet18", weights=path)
    backbone = build_backbone("resnet18", weights=path, allow_missing=True)
    assert backbone.weights is not None
    assert backbone.weights.missing == ("layer2.0.conv1.weight",)


def test_other_number_of_channels_is_refused(saved: Path) -> None:
    with pytest.raises(InputError, match=r"made for 1 input channel.*asked for with 3.*in_chans=1.*conv1\.weight"):
        build_backbone("resnet18", in_chans=3, weights=saved)
    backbone = build_backbone("resnet18", in_chans=3, weights=saved, allow_missing=True)
    assert backbone.weights is not None
    assert backbone.weights.missing == ("conv1.weight",)


def test_wrong_architecture_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds weights of resnet18, expected resnet34.*model=resnet18"):
        build_backbone("resnet34", weights=saved)
    # Without the name in the file: every tensor of ResNet-18 has its like in ResNet-34, so the surplus must tell.
    state = {f"backbone.{key}": value for key, value in build_backbone("resnet34").model.state_dict().items()}
    path = lightning(tmp_path / "r34.ckpt", state)
    with pytest.raises(InputError, match=r"does not fit resnet18: 0 of 120 .* and 96 have no place"):
        build_backbone("resnet18", weights=path)
    with pytest.raises(InputError, match="none of its 216 tensors fits"):
        build_backbone("swin_tiny_patch4_window7_224", weights=path, allow_missing=True)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = lightning(tmp_path / "foreign.ckpt", {"backbone.a": torch.zeros(1)}, hyper_parameters=Opaque())
    with pytest.raises(InputError, match=r"foreign\.ckpt: holds Python objects besides tensors \(.*Opaque\)") as raised:
        build_backbone("resnet18", weights=path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
@pytest.mark.parametrize("keep", [0, 1000, 0.5])
def test_damaged_files(name: str, keep: float, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    state = {"backbone.conv1.weight": torch.zeros(64, 1, 7, 7)}
    if name.endswith("ckpt"):
        torch.save({"state_dict": state}, whole)
    else:
        save_file(state, whole)
    content = whole.read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(InputError, match="not a whole") as raised:
        build_backbone("resnet18", weights=path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_text_and_odd_contents(tmp_path: Path) -> None:
    text = tmp_path / "page.ckpt"
    text.write_text("<html>404</html>")
    with pytest.raises(InputError, match="not a whole torch checkpoint"):
        build_backbone("resnet18", weights=text)
    numbers = tmp_path / "numbers.pt"
    torch.save([1, 2, 3], numbers)
    with pytest.raises(InputError, match="expected a Lightning checkpoint with 'state_dict'"):
        build_backbone("resnet18", weights=numbers)
    with pytest.raises(InputError, match="no such file; expected null, timm"):
        build_backbone("resnet18", weights=tmp_path / "none.ckpt")
    with pytest.raises(InputError, match=r"without any of model\.safetensors"):
        build_backbone("resnet18", weights=tmp_path)


def test_colour_checkpoint_asked_for_one_channel_is_summed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = torchvision.models.resnet18(num_classes=5)
    path = lightning(tmp_path / "byol.ckpt", {f"backbone.{key}": value for key, value in source.state_dict().items()})
    backbone = build_backbone("resnet18", in_chans=1, weights=path).eval()
    assert backbone.weights is not None
    assert backbone.weights.adapted == ("conv1.weight",)
    assert "conv1.weight was made for several channels" in caplog.text
    source.fc = torch.nn.Identity()
    images = torch.rand(2, 1, 64, 64)
    expected = source.eval()(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(backbone(images), expected, rtol=1e-4, atol=1e-4)


def test_an_input_layer_of_another_size_is_refused(tmp_path: Path) -> None:
    """solo-learn makes it 3 px wide for CIFAR; it would start from random values without a word in the features."""
    state = torchvision.models.resnet18().state_dict() | {"conv1.weight": torch.zeros(64, 3, 3, 3)}
    path = lightning(tmp_path / "cifar.ckpt", {f"backbone.{key}": value for key, value in state.items()})
    with pytest.raises(InputError, match=r"conv1\.weight has the shape \(64, 3, 3, 3\).*is \(64, 3, 7, 7\)"):
        build_backbone("resnet18", in_chans=3, weights=path)


def test_resnet50_checkpoint_with_torchvision_names(tmp_path: Path) -> None:
    source = torchvision.models.resnet50(num_classes=5)
    path = lightning(tmp_path / "byol.ckpt", {f"backbone.{key}": value for key, value in source.state_dict().items()})
    backbone = build_backbone("resnet50", in_chans=3, weights=path).eval()
    source.fc = torch.nn.Identity()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(backbone(images), source.eval()(images), rtol=1e-4, atol=1e-4)
