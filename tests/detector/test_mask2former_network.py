"""Weights of transformers from a folder: what fits is taken, what does not is said, and nothing is fetched."""

import logging
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers", reason="the extra 'detection' is not installed")
from transformers.utils import logging as spoken

from make.mask2former import SWIN, tiny_mask2former
from skyloom.errors import InputError

UNUSED = ".swin.layernorm."


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection to another machine")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder as published ones are: without the normalisation that Swin ends in, with the index of the windows."""
    folder = tmp_path_factory.mktemp("mask2former")
    detector = tiny_mask2former(seed=5)
    detector.network.save_pretrained(folder)
    tensors = {key: value for key, value in load_file(folder / "model.safetensors").items() if UNUSED not in key}
    place = "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.attention.self."
    assert f"{place}query.weight" in tensors, "transformers no longer writes the names of published files"
    tensors[f"{place}relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return detector, folder


def differing(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    return {key for key in mine if mine[key].shape != theirs[key].shape or not torch.equal(mine[key], theirs[key])}


def test_weights_of_a_folder_are_taken_without_a_word(saved, caplog, capfd):
    detector, folder = saved
    level, bars = spoken.get_verbosity(), spoken.is_progress_bar_enabled()
    with caplog.at_level(logging.INFO, logger="skyloom"):
        found = tiny_mask2former(weights=str(folder))
    assert differing(found, detector) == set()
    assert found.training
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert (spoken.get_verbosity(), spoken.is_progress_bar_enabled()) == (level, bars)
    learns = {name for name, weight in found.named_parameters() if not weight.requires_grad}
    assert all(UNUSED in name for name in learns)


def test_weights_in_half_precision_become_float32(saved, tmp_path):
    detector, folder = saved
    tensors = {key: value.half() if value.is_floating_point() else value
               for key, value in load_file(folder / "model.safetensors").items()}  # fmt: skip
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text().replace("float32", "float16"))
    found = tiny_mask2former(weights=str(tmp_path))
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}
    weight = "network.model.transformer_module.queries_features.weight"
    torch.testing.assert_close(found.state_dict()[weight], detector.state_dict()[weight].half().float())


def test_what_was_not_taken_is_listed(saved, tmp_path, caplog):
    detector, folder = saved
    tensors = load_file(folder / "model.safetensors") | {"model.extra.weight": torch.zeros(3)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with caplog.at_level(logging.WARNING, logger="skyloom"):
        found = tiny_mask2former(weights=str(tmp_path), queries=12, in_chans=5)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "3 weights of another shape, left at random values" in said[0]
    for what in ("patch_embeddings.projection.weight (12, 2, 4, 4) for (12, 5, 4, 4)", "queries_embedder.weight (10,"):
        assert what in said[0]
    assert said[1].endswith("1 weights in the folder but not used: model.extra.weight")
    assert len(differing(found.network, detector.network)) == 3
    again = tiny_mask2former(weights=str(tmp_path), queries=12, in_chans=5)
    assert differing(found, again) == set(), "what is random follows the seed"
    assert all(torch.isfinite(value).all() for value in found.state_dict().values())
    assert len(found.raw(torch.randn(1, 5, 40, 40))) == 1


@pytest.mark.parametrize(
    "changes",
    [{"network": SWIN | {"embed_dim": 24}}, {"network": SWIN | {"depths": [1, 1, 2, 1]}}, {"decoder": {"layers": 3}}],
)
def test_another_network_is_refused(saved, changes):
    with pytest.raises(
        InputError, match=r"set detector\.network and detector\.decoder as in its config\.json"
    ) as error:
        tiny_mask2former(weights=str(saved[1]), **changes)
    assert "\n" not in str(error.value)


def test_folders_without_usable_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no folder with model\.safetensors"):
        tiny_mask2former(weights="facebook/mask2former-swin-tiny-coco-instance")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a whole Mask2Former") as error:
        tiny_mask2former(weights=str(tmp_path))
    assert "\n" not in str(error.value)
