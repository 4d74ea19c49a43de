"""The best weights are kept, whatever is interrupted."""

import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from skyloom.store.aside import written_aside
from skyloom.trainer.best import BestWeights

NAME = "val/score"


def best_of(folder, mode="max"):
    """A callback, and a function that validates an epoch whose weights are its number."""
    epoch = [0]
    weights = {}
    best = BestWeights(folder, write=written_aside, metric=NAME, mode=mode, weights=lambda: dict(weights))

    def validated(number, **metrics):
        epoch[0] = number
        weights["w"] = torch.full((3,), float(number))
        trainer = SimpleNamespace(
            callback_metrics={k: torch.tensor(v) for k, v in metrics.items()}, current_epoch=number
        )
        best.on_validation_end(trainer, None)

    return best, lambda number, value: validated(number, **({} if value is None else {NAME: value}))


@pytest.mark.parametrize(
    ("mode", "values", "epoch"),
    [
        ("max", [0.1, 0.3, 0.2], 1),
        ("min", [0.1, 0.3, 0.2], 0),
        ("max", [0.1, 0.3, 0.3], 1),
        ("max", [math.nan, 0.0, math.nan], 1),
        ("max", [None, 0.2, None], 1),
        ("max", [-1.0, -0.5], 1),
    ],
)
def test_the_best_epoch_is_kept_alone(tmp_path, mode, values, epoch):
    best, validate = best_of(tmp_path, mode)
    for number, value in enumerate(values):
        validate(number, value)
    assert (best.epoch, best.value) == (epoch, pytest.approx(values[epoch]))
    assert best.load()["w"].tolist() == [epoch] * 3
    assert [path.name for path in tmp_path.iterdir()] == [f"best-{epoch:05d}.safetensors"]


def test_without_a_number_there_is_no_best(tmp_path):
    best, validate = best_of(tmp_path)
    validate(0, math.nan)
    validate(1, None)
    assert best.load() is None
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_goes_on_from_an_older_checkpoint_finds_the_best_of_then(tmp_path):
    best, validate = best_of(tmp_path)
    validate(0, 0.5)
    checkpoint = best.state_dict()
    validate(1, 0.7)  # and then it is killed, before another checkpoint
    again, validate = best_of(tmp_path)
    again.load_state_dict(checkpoint)
    assert (again.epoch, again.value) == (0, 0.5)
    validate(1, 0.4)  # the same epoch on a machine that does not repeat itself bit by bit
    assert again.load()["w"].tolist() == [0, 0, 0]
    validate(2, 0.6)
    assert again.load()["w"].tolist() == [2, 2, 2]


def test_a_file_goes_when_no_checkpoint_needs_it(tmp_path):
    best, validate = best_of(tmp_path)
    for number, value in enumerate((0.1, 0.2, 0.3)):
        validate(number, value)
        best.state_dict()
    assert {path.name for path in tmp_path.iterdir()} == {"best-00001.safetensors", "best-00002.safetensors"}


def test_a_write_that_is_interrupted_leaves_the_former_best(tmp_path, monkeypatch):
    best, validate = best_of(tmp_path)
    validate(0, 0.5)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("skyloom.trainer.best.save_file", die)
    with pytest.raises(KeyboardInterrupt):
        validate(1, 0.7)
    assert (best.epoch, best.value) == (0, 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["best-00000.safetensors"]
    assert load_file(tmp_path / "best-00000.safetensors")["w"].tolist() == [0, 0, 0]
