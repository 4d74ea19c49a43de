"""A fit of a detector is validated, keeps its best weights, and gives the same bytes whenever it is killed."""

import csv
import json
import math
import os
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from make.fit_kills import SAME, Kill, KillAt, KillInValidation, kill_at
from make.joint_data import joint_stats
from make.tiny_detect_fit import IMAGES, request, tiny_data
from make.tiny_fit import TRAINER
from skyloom.errors import ConfigError, InputError
from skyloom.store import Store
from skyloom.task.detect import DetectTask
from skyloom.trainer import fit as fitting
from skyloom.trainer.detect import detect

OVERLAYS = {**TRAINER["validation"], "overlays_every_n_epochs": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A fit that nobody disturbed."""
    return detect(**request(tmp_path_factory.mktemp("whole") / "store", trainer={"validation": OVERLAYS}))


def rows(artifact):
    with artifact.file("metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(artifact):
    pictures = [name for name in artifact.manifest["files"] if name.startswith("overlays/")]
    return {name: artifact.file(name).read_bytes() for name in (*SAME, *pictures)}


def test_the_artifact_says_how_to_build_the_detector_again(whole):
    assert whole.kind == "model"
    assert set(whole.manifest["files"]) == {*SAME, "last.ckpt", "overlays/epoch-0001.png"}
    facts = json.loads(whole.file("model.json").read_text())
    assert facts["classes"] == ["galaxy", "star"]
    assert facts["detector"]["name"] == "mask_rcnn"
    assert facts["backbone"]["in_chans"] == 6, "of the data, not of the configuration"
    assert [survey for survey, _ in facts["bands"]] == ["lsst"] * 6
    assert len(facts["units"]) == len(facts["zero_point_mag"]) == 6
    assert facts["pixel_scale_arcsec"] == pytest.approx(0.2)
    assert facts["task"]["name"] == "detect"
    assert facts["datamodule"]["surveys"] == ["lsst"]
    assert facts["preprocess"]["stretch"] == "none"
    assert whole.counts["images"] == 3 * IMAGES
    assert not whole.notes["normalised"]


def test_each_epoch_is_validated_once_in_one_continuous_record(whole):
    table = rows(whole)
    judged = [row for row in table if row["val/mask_ap"]]
    assert [(int(row["epoch"]), int(row["step"])) for row in judged] == [(0, 3), (1, 7), (2, 11)]
    trained = [int(row["step"]) for row in table if row["train/loss"]]
    assert trained == list(range(3 * IMAGES))
    assert all(math.isfinite(float(row["val/loss"])) for row in judged)
    assert whole.notes["final"]["val/loss"] == float(judged[-1]["val/loss"])


@pytest.mark.parametrize(("every", "judged"), [(2, [1, 2]), (7, [2])])
def test_the_last_epoch_is_judged_also_by_a_fit_that_goes_on_within_it(tmp_path, monkeypatch, every, judged):
    seldom = {"validation": {**TRAINER["validation"], "every_n_epochs": every}, "checkpoint_every_min": 1e-9}
    usual = kill_at(monkeypatch, 2, 2, KillAt)
    with pytest.raises(Kill):
        detect(**request(tmp_path / "store", trainer=seldom))
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    model = detect(**request(tmp_path / "store", trainer=seldom))
    assert model.history["attempts"] == 2
    assert [int(row["epoch"]) for row in rows(model) if row["val/mask_ap"]] == judged
    assert json.loads(model.file("model.json").read_text())["best"]["epoch"] in judged


def test_the_weights_are_the_moving_averages_of_the_best_epoch(whole):
    best = json.loads(whole.file("model.json").read_text())["best"]
    scores = [float(row["val/mask_ap"]) for row in rows(whole) if row["val/mask_ap"]]
    assert best["metric"] == "val/mask_ap"
    assert best["epoch"] == scores.index(max(scores))
    assert best["value"] == pytest.approx(max(scores))
    stored = load_file(whole.file("model.safetensors"))
    assert all(key.startswith("detector.") for key in stored)
    assert any(key.startswith("detector.backbone.model.") for key in stored)
    with safe_open(whole.file("model.safetensors"), "pt") as file:
        assert file.metadata() == {"model": "mask_rcnn"}
    state = torch.load(whole.file("last.ckpt"), weights_only=True)["state_dict"]
    averages = {key.replace("ema.module.", "detector."): v for key, v in state.items() if key.startswith("ema.module.")}
    assert stored.keys() == averages.keys()
    same = all(torch.equal(stored[key], averages[key]) for key in stored)
    assert same is (best["epoch"] == 2), "last.ckpt has those of the last epoch"


@pytest.mark.parametrize(
    ("kind", "epoch", "batch", "every_min"),
    [
        (KillAt, 1, 0, None),
        (KillAt, 1, 2, 1e-9),
        (KillAt, 2, 3, 1e-9),
        (KillInValidation, 0, 1, None),
        (KillInValidation, 1, 2, None),
        (KillInValidation, 1, 2, 1e-9),
        (KillInValidation, 2, 3, None),
    ],
)
def test_a_killed_fit_ends_with_the_same_bytes(whole, tmp_path, monkeypatch, kind, epoch, batch, every_min):
    options = request(tmp_path / "store", trainer={"validation": OVERLAYS, "checkpoint_every_min": every_min})
    usual = kill_at(monkeypatch, epoch, batch, kind)
    with pytest.raises(Kill):
        detect(**options)
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    model = detect(**options)
    assert model.id == whole.id
    assert model.history["attempts"] == 2
    assert contents(model) == contents(whole)
    assert (model.counts, model.notes) == (whole.counts, whole.notes)


def test_sigterm_in_a_validation_waits_for_its_end_and_nothing_is_done_twice(whole, tmp_path, monkeypatch):
    step = DetectTask.validation_step
    validated = []

    def told_to_stop(self, batch, i):
        validated.append(self.current_epoch)
        if (self.current_epoch, i) == (1, 1) and len(validated) < 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, i)

    monkeypatch.setattr(DetectTask, "validation_step", told_to_stop)
    options = request(tmp_path / "store", trainer={"validation": OVERLAYS})
    with pytest.raises(KeyboardInterrupt):
        detect(**options)
    assert validated == [0] * IMAGES + [1] * IMAGES, "it ended before the next epoch"
    assert contents(detect(**options)) == contents(whole)
    assert validated == [0] * IMAGES + [1] * IMAGES + [2] * IMAGES


def test_without_a_validation_part_the_last_weights_are_kept(tmp_path):
    parts = {"parts": {"train": "train", "val": None, "test": None}}
    model = detect(**request(tmp_path / "store", datamodule=parts, task={"ema_decay": None}, trainer={"max_epochs": 1}))
    assert not [column for column in rows(model)[0] if column.startswith("val/")]
    assert model.notes["best"] == {"metric": "val/mask_ap", "value": None, "epoch": None}
    stored = load_file(model.file("model.safetensors"))
    state = torch.load(model.file("last.ckpt"), weights_only=True)["state_dict"]
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[key], state[key]) for key in stored)


def test_channels_are_normalised_by_the_statistics_of_the_data(tmp_path):
    data = tiny_data(tmp_path / "store")
    stats = joint_stats(data, data.lsst)
    inputs = {"dataset": data.dataset.id, "lsst": None, "lsst_stats": stats.id}
    model = detect(**request(tmp_path / "store", data=inputs, trainer={"max_epochs": 1}))
    stored = load_file(model.file("model.safetensors"))
    assert stored["detector.mean"].tolist() == [0.5] * 6
    assert stored["detector.std"].tolist() == [2.0] * 6
    assert model.notes["normalised"]
    assert stats.id in {artifact.id for artifact in Store(tmp_path / "store").ancestors(model)}


def test_a_finished_fit_is_gone_on_with(whole):
    options = request(whole.path.parents[1], trainer={"validation": OVERLAYS, "max_epochs": 4}, ckpt=whole.id)
    model = detect(**options)
    assert {int(row["epoch"]) for row in rows(model)} == {3}
    with pytest.raises(InputError, match="another network: detector"):
        detect(**{**options, "detector": {**options["detector"], "score_floor": 0.5}})


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"trainer": {"validation": {**OVERLAYS, "limit_batches": 2}}}, False),
        ({"trainer": {"validation": OVERLAYS, "monitor": {**TRAINER["monitor"], "images": 7}}}, True),
        ({"trainer": {"validation": OVERLAYS, "checkpoint_every_min": 3.0}}, True),
        ({"trainer": {"validation": OVERLAYS}, "seed": 1}, False),
    ],
    ids=["validation", "monitor", "checkpoints", "seed"],
)
def test_what_decides_the_result_decides_the_id(whole, changes, same):
    plan = detect(**request(whole.path.parents[1], **changes), dry_run=True)
    assert (plan.id == whole.id) is same


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"detector": {"name": "mask_rcn"}}, ["mask_rcn"]),
        (
            {"preprocess": {"stretch": "asinh", "image_size_px": None}},
            ["preprocess.stretch=asinh", "transform=detection"],
        ),
        ({"datamodule": {"name": "cutouts"}}, ["datamodule=cutouts", "roman_lsst"]),
        ({"task": {"learning_rat": 1}}, ["task: option=learning_rat", "'learning_rate'"]),
        ({"task": {"nms": 7.0}}, ["nms"]),
        ({"trainer": {"validation": {"every_n_epochs": 0}}}, ["every_n_epochs"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, changes, words):
    with pytest.raises(ConfigError) as caught:
        detect(**request(tmp_path / "store", **changes))
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words), text
    assert Store(tmp_path / "store").leftovers() == []
