"""A loss that is no number stops the fit and leaves the ids, or costs one step."""

import json
from collections import Counter

import pytest
import torch

from make.fit_kills import Kill, contents, kill_at
from make.tiny_fit import BATCH, request
from skyloom.errors import InputError
from skyloom.store import Store
from skyloom.task.byol import ByolTask
from skyloom.trainer import fit as fitting
from skyloom.trainer.train import train


@pytest.fixture
def poison(monkeypatch):
    """Makes the loss or only the gradient of some steps NaN; returns the ids of each step."""

    def start(steps, how="loss"):
        step, seen = ByolTask.training_step, {}

        def poisoned(self, batch, i):
            loss = step(self, batch, i)
            seen[self.global_step] = batch["id"].tolist()
            if self.global_step not in steps:
                return loss
            if how == "loss":
                return loss * float("nan")
            weight = next(self.backbone.parameters())
            return loss + (weight - weight.detach()).abs().sqrt().sum()  # 0, with an infinite slope

        monkeypatch.setattr(ByolTask, "training_step", poisoned)
        return seen

    return start


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_it_stops_and_leaves_the_ids(tmp_path, poison, how):
    seen = poison({7}, how)
    options = request(tmp_path / "store")
    with pytest.raises(InputError, match=f"the {how} became .*nan in epoch 1, step 7") as caught:
        train(**options)
    assert "\n" not in str(caught.value)
    file = tmp_path / "runs" / "not_finite" / f"{train(**options, dry_run=True).id}.json"
    assert str(file) in str(caught.value)
    said = json.loads(file.read_text())
    assert (said["epoch"], said["step"], said["ids"]) == (1, 7, seen[7])
    assert not list(Store(tmp_path / "store").find("model"))


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_skip_leaves_the_step_out_and_counts_it(tmp_path, poison, how):
    seen = poison({4, 7}, how)
    model = train(**request(tmp_path / "store", trainer={"on_nan": "skip", "max_nan_fraction": 0.2}))
    assert model.counts["images"] == 13 * BATCH
    dropped = model.counts["dropped"]["not_finite"]
    assert dropped["number"] == 2 * BATCH
    assert Counter(dropped["examples"]) == Counter(str(i) for step in (4, 7) for i in seen[step])
    state = torch.load(model.file("last.ckpt"), weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values()), "running statistics are clean too"


def test_a_step_that_is_left_out_changes_no_weight(tmp_path, monkeypatch, poison):
    poison({0}, "loss")
    first = {}
    start = ByolTask.on_train_start
    monkeypatch.setattr(
        ByolTask, "on_train_start",
        lambda self: (first.update({k: v.clone() for k, v in self.backbone.state_dict().items()}), start(self))[1],
    )  # fmt: skip
    trainer = {"on_nan": "skip", "max_nan_fraction": 1.0, "max_epochs": 1, "limit_train_batches": 1}
    model = train(**request(tmp_path / "store", trainer=trainer))
    state = torch.load(model.file("last.ckpt"), weights_only=True)["state_dict"]
    assert first
    assert all(torch.equal(value, state[f"backbone.{key}"]) for key, value in first.items())


def test_too_many_stop_it(tmp_path, poison):
    poison({4, 7})
    with pytest.raises(InputError, match="2 of 15 steps were to be left out"):
        train(**request(tmp_path / "store", trainer={"on_nan": "skip", "max_nan_fraction": 0.1}))


def test_skip_survives_a_kill(tmp_path, monkeypatch, poison):
    poison({4, 8})
    options = {"on_nan": "skip", "max_nan_fraction": 0.2, "checkpoint_every_min": 1e-9}
    whole = train(**request(tmp_path / "whole" / "store", trainer=options))
    usual = kill_at(monkeypatch, 1, 4)
    with pytest.raises(Kill):
        train(**request(tmp_path / "store", trainer=options))
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    model = train(**request(tmp_path / "store", trainer=options))
    assert contents(model) == contents(whole)
    assert model.counts == whole.counts


def test_without_trouble_both_ways_train_the_same_weights(tmp_path):
    stop = train(**request(tmp_path / "store", trainer={"max_epochs": 1}))
    skip = train(**request(tmp_path / "store", trainer={"max_epochs": 1, "on_nan": "skip"}))
    assert stop.id != skip.id
    assert stop.file("model.safetensors").read_bytes() == skip.file("model.safetensors").read_bytes()
