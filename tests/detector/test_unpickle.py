"""Checkpoint files give arrays, and never run."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from skyloom.detector.unpickle import read_checkpoint
from skyloom.errors import InputError

WEIGHTS = {"backbone.bottom_up.norm0.weight": np.arange(4, dtype=np.float32), "roi_heads.x.bias": np.ones((2, 3))}


def written(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_zoo_pickle_is_read(tmp_path, protocol):
    file = written(tmp_path / "model.pkl", {"model": WEIGHTS, "__author__": "Detectron2 Model Zoo"}, protocol)
    found = read_checkpoint(file)
    assert {key: value.tolist() for key, value in found.items()} == {k: v.tolist() for k, v in WEIGHTS.items()}


def test_a_pickle_of_old_numpy_is_read(tmp_path):
    """numpy 1 wrote its modules under another name, and Python 2 its bytes as text."""
    content = pickle.dumps({"model": WEIGHTS}, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    file = tmp_path / "old.pkl"
    file.write_bytes(content)
    assert b"numpy.core.multiarray" in content
    assert len(read_checkpoint(file)) == 2


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "trace"
    file = written(tmp_path / "evil.pkl", {"model": WEIGHTS | {"x": Evil(trace)}})
    with pytest.raises(InputError, match="expected arrays only; such a file can run any code") as raised:
        read_checkpoint(file)
    assert "\n" not in str(raised.value)
    assert not trace.exists()


def test_code_in_a_torch_file_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"model": {"x": torch.ones(1)}, "hook": Evil(trace)}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="not a whole torch file of tensors and numbers"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_a_trainer_is_read(tmp_path, zipped):
    state = {f"module.{key}": torch.from_numpy(value) for key, value in WEIGHTS.items()}
    content = {"model": state, "iteration": 3, "scheduler": {"last": np.float64(0.5)}}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "model.pth")
    assert set(found) == set(WEIGHTS)


def test_a_network_alone_gets_its_place(tmp_path):
    table = "layers.0.blocks.0.attn.relative_position_index"
    content = {"model": {"patch_embed.proj.bias": np.ones(2), table: np.ones(2)}}
    found = read_checkpoint(written(tmp_path / "swin.pkl", content))
    assert list(found) == ["backbone.bottom_up.patch_embed.proj.bias"]


def test_what_is_no_weight_is_left_out(tmp_path):
    extra = {"pixel_mean": np.ones(3), "proposal_generator.anchor_generator.cell_anchors.0": np.ones(4)}
    found = read_checkpoint(written(tmp_path / "model.pkl", {"model": WEIGHTS | extra}))
    assert set(found) == set(WEIGHTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole"),
        (b"\x80\x02}q\x00(X\x05", "not a whole"),
        (pickle.dumps([1, 2]), "expected weights by name"),
        (pickle.dumps({"model": {}}), "holds no weights"),
        (pickle.dumps({"blobs": {"conv1_w": np.ones(1)}}), "another layout"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    file = tmp_path / "bad.pkl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"bad.pkl: .*{message}"):
        read_checkpoint(file)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_checkpoint(tmp_path / "none.pkl")
