"""Folders of Hugging Face against a small DINOv2 written here, after its published description, in plain maths."""

import json
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from skyloom.backbone import LayerReader, load_weights
from skyloom.backbone.build import Backbone
from skyloom.errors import InputError

WIDTH, DEPTH, HEADS, PATCH, SIDE = 32, 2, 4, 14, 56


def hf_state(*, channels: int = 3, grid: int = SIDE // PATCH, registers: int = 0, seed: int = 0) -> dict:
    """Random tensors under the names of transformers' Dinov2Model."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    state = {
        "embeddings.cls_token": draw(1, 1, WIDTH),
        "embeddings.mask_token": draw(1, WIDTH),
        "embeddings.position_embeddings": draw(1, 1 + grid**2, WIDTH),
        "embeddings.patch_embeddings.projection.weight": draw(WIDTH, channels, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": draw(WIDTH),
        "layernorm.weight": 1 + draw(WIDTH),
        "layernorm.bias": draw(WIDTH),
    }
    if registers:
        state["embeddings.register_tokens"] = draw(1, registers, WIDTH)
    for i in range(DEPTH):
        at = f"encoder.layer.{i}."
        for name, shape in {
            "norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,), "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,),
            "attention.attention.query.weight": (WIDTH, WIDTH), "attention.attention.query.bias": (WIDTH,),
            "attention.attention.key.weight": (WIDTH, WIDTH), "attention.attention.key.bias": (WIDTH,),
            "attention.attention.value.weight": (WIDTH, WIDTH), "attention.attention.value.bias": (WIDTH,),
            "attention.output.dense.weight": (WIDTH, WIDTH), "attention.output.dense.bias": (WIDTH,),
            "layer_scale1.lambda1": (WIDTH,), "layer_scale2.lambda1": (WIDTH,),
            "mlp.fc1.weight": (4 * WIDTH, WIDTH), "mlp.fc1.bias": (4 * WIDTH,),
            "mlp.fc2.weight": (WIDTH, 4 * WIDTH), "mlp.fc2.bias": (WIDTH,),
        }.items():  # fmt: skip
            state[at + name] = draw(*shape)
    return state


def reference(state: dict, images: torch.Tensor) -> torch.Tensor:
    """The last hidden state (B, tokens, WIDTH): Oquab et al. (2023), registers of Darcet et al. (2024)."""
    patches = F.conv2d(images, state["embeddings.patch_embeddings.projection.weight"],
                       state["embeddings.patch_embeddings.projection.bias"], stride=PATCH)  # fmt: skip
    x = torch.cat([state["embeddings.cls_token"].expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
    x = x + state["embeddings.position_embeddings"]
    if "embeddings.register_tokens" in state:
        registers = state["embeddings.register_tokens"].expand(len(images), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)

    def linear(value: torch.Tensor, name: str) -> torch.Tensor:
        return value @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(value: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(value, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    def heads(value: torch.Tensor) -> torch.Tensor:
        return value.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)

    for i in range(DEPTH):
        at = f"encoder.layer.{i}."
        inner = norm(x, at + "norm1")
        q, k, v = (heads(linear(inner, f"{at}attention.attention.{n}")) for n in ("query", "key", "value"))
        weight = (q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        mixed = linear((weight @ v).transpose(1, 2).flatten(2), at + "attention.output.dense")
        x = x + state[at + "layer_scale1.lambda1"] * mixed
        inner = linear(F.gelu(linear(norm(x, at + "norm2"), at + "mlp.fc1")), at + "mlp.fc2")
        x = x + state[at + "layer_scale2.lambda1"] * inner
    return norm(x, "layernorm")


def folder(path: Path, state: dict, *, kind: str = "dinov2", file: str = "model.safetensors", **config) -> Path:
    path.mkdir()
    if file.endswith("safetensors"):
        save_file(state, path / file)
    else:
        torch.save(state, path / file)
    facts = {"model_type": kind, "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS,
             "patch_size": PATCH, "layer_norm_eps": 1e-6, "image_size": SIDE, **config}  # fmt: skip
    (path / "config.json").write_text(json.dumps(facts))
    return path


def network(*, in_chans: int = 3, registers: int = 0, side_px: int = SIDE, heads: int = HEADS) -> torch.nn.Module:
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    more = {"reg_tokens": registers} if registers else {}
    return timm.create_model(name, num_classes=0, in_chans=in_chans, embed_dim=WIDTH, depth=DEPTH, num_heads=heads,
                             img_size=side_px, dynamic_img_size=True, **more).eval()  # fmt: skip


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("prefix", ["", "dinov2."])
def test_features_equal_those_of_the_published_network(tmp_path, file, registers, prefix):
    state = hf_state(registers=registers)
    kind = "dinov2_with_registers" if registers else "dinov2"
    more = {"num_register_tokens": registers} if registers else {}
    stored = {prefix + key: value for key, value in state.items()}
    if prefix:
        stored |= {"classifier.weight": torch.zeros(2, 2 * WIDTH), "classifier.bias": torch.zeros(2)}
    path = folder(tmp_path / "hf", stored, kind=kind, file=file, **more)
    model = network(registers=registers)
    report = load_weights(model, path)
    assert report.missing == report.skipped == report.adapted == ()
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    expected = reference(state, images)
    with torch.inference_mode():
        torch.testing.assert_close(model.forward_features(images), expected, rtol=1e-4, atol=1e-4)
        backbone = Backbone(model, name="tiny", in_chans=3, image_size_px=SIDE)
        torch.testing.assert_close(LayerReader(backbone, "cls")(images), expected[:, 0], rtol=1e-4, atol=1e-4)


def test_one_channel_checkpoint(tmp_path):
    state = hf_state(channels=1)
    model = network(in_chans=1)
    load_weights(model, folder(tmp_path / "hf", state, num_channels=1))
    images = torch.rand(2, 1, SIDE, SIDE)
    with torch.inference_mode():
        torch.testing.assert_close(model.forward_features(images), reference(state, images), rtol=1e-4, atol=1e-4)


def test_colour_checkpoint_asked_for_one_channel_is_summed_and_said(tmp_path, caplog):
    state = hf_state()
    model = network(in_chans=1)
    report = load_weights(model, folder(tmp_path / "hf", state))
    assert report.adapted == ("patch_embed.proj.weight",)
    assert "is summed over them for one" in caplog.text
    images = torch.rand(2, 1, SIDE, SIDE)
    with torch.inference_mode():
        found = model.forward_features(images)
        torch.testing.assert_close(found, reference(state, images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_one_channel_checkpoint_asked_for_three_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"made for 1 input channel.*asked for with 3.*in_chans=1"):
        load_weights(network(), folder(tmp_path / "hf", hf_state(channels=1)))


def test_another_grid_of_positions_is_kept_and_resampled_for_the_images(tmp_path):
    state = hf_state(grid=4)
    model = network(side_px=140)  # built for 10 x 10 patches
    load_weights(model, folder(tmp_path / "hf", state))
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.inference_mode():  # at the size of the checkpoint nothing is resampled
        torch.testing.assert_close(model.forward_features(images), reference(state, images), rtol=1e-4, atol=1e-4)
        assert model.forward_features(torch.rand(1, 3, 140, 140)).shape == (1, 101, WIDTH)
    again = network(side_px=140)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    load_weights(again, tmp_path / "own.safetensors")  # and our own file of it comes back
    with torch.inference_mode():
        assert torch.equal(again(images), model(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 8}, r"config\.json: num_attention_heads 8 \(this network: 4\)"),
        ({"hidden_size": 768, "num_hidden_layers": 12}, r"backbone\.model=vit_base_patch14_dinov2\.lvd142m"),
        ({"kind": "vit"}, r"model_type is vit, expected one of dinov2"),
        ({"kind": "dinov2_with_registers"}, r"num_register_tokens 4 \(this network: 0\)"),
    ],
)
def test_another_network_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as raised:
        load_weights(network(), folder(tmp_path / "hf", hf_state(), **change))
    assert "\n" not in str(raised.value)


def test_damaged_and_foreign_folders_are_refused(tmp_path):
    state = hf_state()
    odd = state | {"encoder.layer.0.mixer.weight": torch.zeros(2)}
    with pytest.raises(InputError, match=r"'encoder\.layer\.0\.mixer\.weight' is not a tensor of a DINOv2"):
        load_weights(network(), folder(tmp_path / "odd", odd))
    del state["encoder.layer.1.attention.attention.key.bias"]
    with pytest.raises(InputError, match="layer 1 has only query, value of query, key and value"):
        load_weights(network(), folder(tmp_path / "lacking", state))
    with pytest.raises(InputError, match=r"does not fit resnet18; use backbone=dinov2_hf"):
        load_weights(timm.create_model("resnet18"), folder(tmp_path / "whole", hf_state()), name="resnet18")
    broken = folder(tmp_path / "broken", hf_state())
    (broken / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        load_weights(network(), broken)
