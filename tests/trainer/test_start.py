"""ckpt=… goes on with a finished fit, and refuses what does not fit, in one line."""

import csv
import io
import shutil
from pathlib import Path

import pytest
import torch

from make.fit_kills import Kill, contents, kill_at
from make.tiny_fit import BACKBONE, BATCH, CUTOUTS, PREPROCESS, make_cutouts, request
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.store import Store
from skyloom.task.byol import ByolTask
from skyloom.trainer import fit as fitting
from skyloom.trainer.train import train

EVERY = {"log_every_n_steps": 1}
PER_EPOCH = CUTOUTS // BATCH


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A fit of two epochs."""
    return train(**request(tmp_path_factory.mktemp("short") / "store", trainer={**EVERY, "max_epochs": 2}))


def more(short, **changes):
    trainer = {**EVERY, "max_epochs": 4, **changes.pop("trainer", {})}
    return request(short.path.parents[1], trainer=trainer, **changes)


def steps_of(monkeypatch):
    steps, step = [], ByolTask.training_step
    monkeypatch.setattr(
        ByolTask, "training_step", lambda self, batch, i: (steps.append(self.global_step), step(self, batch, i))[1]
    )
    return steps


def test_it_goes_on_where_the_other_fit_ended(short, monkeypatch):
    steps = steps_of(monkeypatch)
    model = train(**more(short, ckpt=short.id))
    assert steps == list(range(2 * PER_EPOCH, 4 * PER_EPOCH))
    assert model.id != short.id
    assert short.id in {artifact.id for artifact in Store(short.path.parents[1]).ancestors(model)}
    assert model.counts["images"] == 2 * CUTOUTS
    with model.file("metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["step"]) for row in table] == list(range(2 * PER_EPOCH, 4 * PER_EPOCH))
    whole = train(**more(short))
    with whole.file("metrics.csv").open(newline="") as file:
        rates = [row["monitor/learning_rate"] for row in csv.DictReader(file)]
    assert [row["monitor/learning_rate"] for row in table] == rates[2 * PER_EPOCH :], "the schedule of four epochs"
    assert train(**more(short, ckpt=short.id), dry_run=True).exists


def test_an_id_a_path_and_last_are_one_model(short, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(short.path.parents[1], store)
    plans = [
        train(**{**more(short, ckpt=ckpt), "store": store}, dry_run=True).id
        for ckpt in (short.id, short.id[:5], str(short.path))
    ]
    for model in Store(store).find("model"):
        if model.id != short.id:
            shutil.rmtree(model.path)
    plans.append(train(**{**more(short, ckpt="last"), "store": store}, dry_run=True).id)
    assert len(set(plans)) == 1
    copy = tmp_path / "copy.ckpt"
    shutil.copy(short.file("last.ckpt"), copy)
    assert train(**more(short, ckpt=str(copy)), dry_run=True).id not in plans, "a file is known by its content alone"


def test_killed_it_still_ends_with_the_same_bytes(short, tmp_path, monkeypatch):
    whole = train(**more(short, ckpt=short.id))
    shutil.copytree(short.path.parents[1], tmp_path / "store")
    store = Store(tmp_path / "store")
    shutil.rmtree(store.path("model", whole.id))
    options = {**more(short, ckpt=short.id, trainer={"checkpoint_every_min": 1e-9}), "store": store}
    usual = kill_at(monkeypatch, 2, 3)
    with pytest.raises(Kill):
        train(**options)
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    model = train(**options)
    assert model.history["attempts"] == 2
    assert contents(model) == contents(whole)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"backbone": {**BACKBONE, "model": "test_vit"}}, InputError,
         ["another network", "backbone.model=test_resnet"]),
        ({"backbone": {**BACKBONE, "in_chans": 3}, "preprocess": {**PREPROCESS, "channels": 3}}, InputError,
         ["another network", "backbone.in_chans=1"]),
        ({"task": {"projection_dim": 16}}, InputError, ["another task", "task.projection_dim=8"]),
        ({"trainer": {"max_epochs": 2}}, ConfigError, ["2 epochs behind it", "max_epochs=2"]),
        ({"trainer": {"limit_train_batches": 3}}, ConfigError, ["5 optimiser steps per epoch", "would have 3"]),
        ({"ckpt": "nowhere.ckpt"}, InputError, ["nowhere.ckpt", "no such file"]),
        ({"ckpt": "nothere"}, StoreError, ["nothere"]),
    ],
    ids=["architecture", "channels", "task", "epochs", "steps", "file", "id"],
)  # fmt: skip
def test_what_does_not_fit_is_refused(short, changes, error, words):
    with pytest.raises(error) as caught:
        train(**more(short, **{"ckpt": short.id, **changes}))
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


class Evil:
    def __reduce__(self):
        return (print, ("this code must not run",))


def spoil(short, path, how):
    checkpoint = torch.load(short.file("last.ckpt"), weights_only=True)
    if how == "truncated":
        path.write_bytes(short.file("last.ckpt").read_bytes()[:5000])
    elif how == "text":
        path.write_text("not a checkpoint")
    elif how == "code":
        torch.save({**checkpoint, "evil": Evil()}, path)
    elif how == "foreign":
        del checkpoint["skyloom"]
        torch.save(checkpoint, path)
    elif how == "old":
        del checkpoint["skyloom"]["version"]
        torch.save(checkpoint, path)
    elif how == "part":
        del checkpoint["skyloom"]["facts"], checkpoint["loops"]
        torch.save(checkpoint, path)
    elif how == "tensors":
        del checkpoint["state_dict"]["projection.layers.0.weight"]
        torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "not a whole checkpoint"),
        ("text", "not a whole checkpoint"),
        ("code", "could run any code"),
        ("foreign", "not written by skyloom's train.py"),
        ("old", "has version 0 of the checkpoints, this skyloom reads 1"),
        ("part", "it lacks loops, facts"),
        ("tensors", "1 of .* tensors differ, such as projection.layers.0.weight with nothing there"),
    ],
)
def test_a_bad_file_is_refused_and_nothing_in_it_runs(short, tmp_path, capfd, how, words):
    file = tmp_path / "bad.ckpt"
    spoil(short, file, how)
    with pytest.raises(InputError, match=words) as caught:
        train(**more(short, ckpt=str(file)))
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    assert "must not run" not in capfd.readouterr().out


def test_a_full_disk_is_said_to_be_full(short, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    def full(path, mode="r", **options):
        return Full() if path.name.endswith(".ckpt") and mode == "wb" else usual(path, mode, **options)

    usual = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError, match="the disk is full"):
        train(**more(short, ckpt=short.id, trainer={"max_epochs": 5}))


def test_last_of_an_empty_store(tmp_path):
    make_cutouts(tmp_path / "store")
    with pytest.raises(InputError, match="no finished model of task byol"):
        train(**request(tmp_path / "store", ckpt="last"))
