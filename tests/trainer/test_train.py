"""A fit gives the same bytes whenever it is killed, is cached, and says what went wrong."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from make.curated import fake_clusters, fake_features, fake_selection
from make.fit_kills import SAME, Kill, contents, kill_at
from make.tiny_fit import BATCH, CUTOUTS, TRAINER, make_cutouts, request
from skyloom.backbone import load_weights
from skyloom.backbone.spec import BackboneSpec, Weights
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.store import Store
from skyloom.task.byol import ByolTask
from skyloom.trainer import fit as fitting
from skyloom.trainer import train as module
from skyloom.trainer.train import train

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A fit that nobody disturbed."""
    return train(**request(tmp_path_factory.mktemp("whole") / "store"))


DATA = {"name": "cutouts", "batch_size": 8, "workers": 0}


def rows(artifact):
    with artifact.file("metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_artifact_holds_a_model_that_can_be_built_again(whole):
    assert whole.kind == "model"
    assert whole.verify() == []
    assert set(whole.manifest["files"]) == {*SAME, "last.ckpt"}
    facts = json.loads(whole.file("model.json").read_text())
    spec = {key: value for key, value in facts["backbone"].items() if key != "num_features"}
    again = Weights(whole).build(BackboneSpec(weights=None, **spec), seed=9)
    assert again.weights is not None
    assert not again.weights.missing
    assert not again.weights.skipped
    stored = load_file(whole.file("model.safetensors"))
    for key, value in again.state_dict().items():
        assert torch.equal(value, stored[f"backbone.{key}"]), key
    assert facts["preprocess_digest"] == whole.notes["preprocess_digest"]


def test_counts_and_notes(whole):
    assert whole.counts["images"] == 3 * CUTOUTS
    assert whole.counts["epochs"] == 3
    assert whole.notes["in_chans"] == 1
    assert math.isfinite(whole.notes["final"]["train/loss"])
    assert whole.notes["final"]["train/collapse_std"] > 0
    assert whole.notes["final"]["train/loss"] == float(rows(whole)[-1]["train/loss"])


def test_the_metrics_are_finite_and_hold_no_clock(whole):
    table = rows(whole)
    assert [int(row["step"]) for row in table] == list(range(1, 15, 2))
    assert all(math.isfinite(float(row["train/loss"])) for row in table)
    assert not [column for column in table[0] if "time" in column or "per_s" in column]


def test_the_checkpoint_holds_plain_types_only(whole):
    checkpoint = torch.load(whole.file("last.ckpt"), weights_only=True)
    assert checkpoint["global_step"] == 3 * CUTOUTS // BATCH
    stored = load_file(whole.file("model.safetensors"))
    assert all(torch.equal(value, stored[key]) for key, value in checkpoint["state_dict"].items())


def test_the_backbone_has_learnt(whole, tmp_path):
    untouched = Weights(None).build(BackboneSpec("test_resnet", 1, 32, None, False), seed=0)
    before = {key: value.clone() for key, value in untouched.model.state_dict().items()}
    load_weights(untouched.model, whole.file("model.safetensors"))
    assert any(not torch.equal(value, before[key]) for key, value in untouched.model.state_dict().items())


def test_lineage_reaches_the_cutouts(whole):
    store = Store(whole.path.parents[1])
    assert {"cutouts", "images"} <= {artifact.kind for artifact in store.ancestors(whole)}


def test_a_second_call_trains_nothing(whole, monkeypatch):
    monkeypatch.setattr(module, "fit", lambda *_: pytest.fail("trained again"))
    assert train(**request(whole.path.parents[1])).id == whole.id


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"task": {"learning_rate": 0.1}},
        {"trainer": {"max_epochs": 4}},
        {"datamodule": {"name": "cutouts", "batch_size": 4, "workers": 0}},
    ],
    ids=lambda c: next(iter(c)),
)
def test_what_changes_the_result_changes_the_id(whole, changes):
    assert train(**request(whole.path.parents[1], **changes), dry_run=True).id != whole.id


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer": {"accelerator": "auto", "checkpoint_every_min": 5.0, "checkpoint_every_n_epochs": 2}},
        {"datamodule": {"name": "cutouts", "batch_size": BATCH, "workers": 3}},
        {"runs": "elsewhere"},
        {"trainer": {"validation": {**TRAINER["validation"], "every_n_epochs": 7}}},
    ],
    ids=["where it runs", "workers", "runs", "validation, of which there is none"],
)
def test_what_does_not_change_the_result_does_not_change_the_id(whole, changes):
    plan = train(**request(whole.path.parents[1], **changes), dry_run=True)
    assert plan.id == whole.id
    assert plan.exists
    assert "validation" not in whole.parameters["trainer"]


@pytest.mark.parametrize(
    ("epoch", "batch", "every_min", "workers"),
    [
        (0, 2, None, 0),
        (1, 0, None, 0),
        (1, 3, None, 0),
        (2, 4, None, 0),
        (1, 3, 1e-9, 0),
        (1, 4, 1e-9, 0),
        (1, 2, 1e-9, 2),
    ],
)
def test_a_killed_fit_ends_with_the_same_bytes(whole, tmp_path, monkeypatch, epoch, batch, every_min, workers):
    options = request(
        tmp_path / "store",
        trainer={"checkpoint_every_min": every_min},
        datamodule={"name": "cutouts", "batch_size": BATCH, "workers": workers},
    )
    usual = kill_at(monkeypatch, epoch, batch)
    with pytest.raises(Kill):
        train(**options)
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    model = train(**options)
    assert model.id == whole.id
    assert model.history["attempts"] == 2
    assert contents(model) == contents(whole)
    assert model.counts == whole.counts
    assert model.notes == whole.notes


def test_a_resumed_fit_does_not_start_anew(tmp_path, monkeypatch):
    options = request(tmp_path / "store", trainer={"checkpoint_every_min": 1e-9})
    usual = kill_at(monkeypatch, 1, 3)
    with pytest.raises(Kill):
        train(**options)
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    steps = []
    step = ByolTask.training_step
    monkeypatch.setattr(
        ByolTask, "training_step", lambda self, batch, i: (steps.append(self.global_step), step(self, batch, i))[1]
    )
    train(**options)
    assert steps == list(range(8, 15))  # the checkpoint before batch 3 of epoch 1


def test_a_fit_killed_between_its_end_and_the_artifact_is_only_written(whole, tmp_path, monkeypatch):
    options = request(tmp_path / "store")

    def die(*_, **__):
        raise Kill

    monkeypatch.setattr(module, "save_file", die)
    with pytest.raises(Kill):
        train(**options)
    monkeypatch.undo()
    monkeypatch.setattr(ByolTask, "training_step", lambda *_: pytest.fail("trained again"))
    assert contents(train(**options)) == contents(whole)


def test_sigkill_of_a_real_process(whole, tmp_path):
    store = tmp_path / "store"
    make_cutouts(store)
    program = (
        "import sys, pathlib, time\n"
        "from make.tiny_fit import request\n"
        "from skyloom.task.byol import ByolTask\n"
        "from skyloom.trainer.train import train\n"
        "step = ByolTask.training_step\n"
        "def slow(self, batch, i):\n"
        "    print(self.global_step, flush=True)\n"
        "    time.sleep(0.05)\n"
        "    return step(self, batch, i)\n"
        "ByolTask.training_step = slow\n"
        "train(**request(pathlib.Path(sys.argv[1]), trainer={'checkpoint_every_min': 1e-9}))\n"
    )
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(store)],
        env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.strip() == "7":
            time.sleep(0.03)
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    model = train(**request(store))
    assert model.history["attempts"] == 2
    assert contents(model) == contents(whole)


def test_epoch_means_survive_a_kill_within_the_epoch(tmp_path, monkeypatch):
    step = ByolTask.training_step

    def with_mean(self, batch, i):
        loss = step(self, batch, i)
        for name, reduce in (("mean", "mean"), ("most", "max"), ("total", "sum")):
            self.log(f"train/{name}", loss.detach(), on_step=False, on_epoch=True, reduce_fx=reduce, batch_size=BATCH)
        return loss

    monkeypatch.setattr(ByolTask, "training_step", with_mean)
    whole = train(**request(tmp_path / "whole" / "store"))
    assert rows(whole)[-1]["train/mean"]
    options = request(tmp_path / "store", trainer={"checkpoint_every_min": 1e-9})
    usual = kill_at(monkeypatch, 1, 3)
    for _ in range(2):  # the second time right after it went on
        with pytest.raises(Kill):
            train(**options)
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    model = train(**options)
    assert model.history["attempts"] == 3
    assert contents(model) == contents(whole)


def test_accumulated_gradients_survive_a_kill(tmp_path, monkeypatch):
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}
    whole = train(**request(tmp_path / "whole" / "store", trainer=options))
    again = request(tmp_path / "store", trainer={**options, "checkpoint_every_min": 1e-9})
    usual = kill_at(monkeypatch, 1, 3)
    with pytest.raises(Kill):
        train(**again)
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    assert contents(train(**again)) == contents(whole)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "is not a whole checkpoint"),
        ("old", "has version 0"),
        ("part", "lacks sums"),
        ("tensor", "1 of .* tensors differ"),
        ("rows", "has 1 of 2 rows"),
    ],
)
def test_what_is_left_of_a_fit_must_be_whole(tmp_path, monkeypatch, how, words):
    usual = kill_at(monkeypatch, 1, 0)
    again = request(tmp_path / "store")
    with pytest.raises(Kill):
        train(**again)
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    folder = next((tmp_path / "store" / ".partial").glob("model-*/"))
    last, table = folder / "last.ckpt", folder / "metrics.csv"
    checkpoint = torch.load(last, weights_only=True)
    if how == "old":
        checkpoint["skyloom"]["version"] = 0
    elif how == "part":
        del checkpoint["skyloom"]["sums"]
    elif how == "tensor":
        checkpoint["state_dict"].popitem()
    torch.save(checkpoint, last)
    if how == "truncated":
        last.write_bytes(last.read_bytes()[:5000])
    elif how == "rows":
        table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match=f"cannot go on: .*{words}.*; remove .* to begin anew") as caught:
        train(**again)
    assert "\n" not in str(caught.value)
    assert last.exists(), "nothing that may be worth days is thrown away"


def test_ctrl_c_is_told_as_such(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ByolTask, "training_step", interrupt)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(**request(tmp_path / "store"))
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("last", [7, 9], ids=["within an epoch", "at its end"])
def test_sigterm_saves_at_once(whole, tmp_path, monkeypatch, last):
    step = ByolTask.training_step

    def told_to_stop(self, batch, i):
        if self.global_step == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, i)

    monkeypatch.setattr(ByolTask, "training_step", told_to_stop)
    options = request(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        train(**options)
    steps = []
    monkeypatch.setattr(
        ByolTask, "training_step", lambda self, batch, i: (steps.append(self.global_step), step(self, batch, i))[1]
    )
    assert contents(train(**options)) == contents(whole)
    assert steps == list(range(last + 1, 15))


def test_a_loss_that_is_nan_ends_the_fit_and_names_the_batch(tmp_path, monkeypatch):
    step = ByolTask.training_step
    seen = []

    def poisoned(self, batch, i):
        loss = step(self, batch, i)
        seen.append(batch["id"].tolist())
        return loss * float("nan") if self.global_step == 7 else loss

    monkeypatch.setattr(ByolTask, "training_step", poisoned)
    with pytest.raises(InputError, match="nan in epoch 1, step 7") as caught:
        train(**request(tmp_path / "store"))
    assert all(str(i) in str(caught.value) for i in seen[7])
    assert "learning_rate" in str(caught.value)
    assert not list(Store(tmp_path / "store").find("model"))


def test_a_model_can_start_from_a_model_and_lineage_knows(whole):
    store = whole.path.parents[1]
    options = request(store, trainer={"max_epochs": 1}, weights=whole.id[:6])
    tuned = train(**options)
    assert whole.id in {artifact.id for artifact in Store(store).ancestors(tuned)}
    assert train(**{**options, "weights": str(whole.path)}, dry_run=True).id == tuned.id


def test_a_selection_is_what_is_trained_on(tmp_path):
    store = tmp_path / "store"
    cutouts = make_cutouts(store)
    features = fake_features(cutouts=cutouts, dimensions=2, seed=0, store=store)
    clusters = fake_clusters(features=features, assignments=[[0] * CUTOUTS], clusters=[1], store=store)
    selection = fake_selection(clusters=clusters, rows=list(range(0, CUTOUTS, 2)), store=store)
    model = train(**request(store, data={"cutouts": cutouts.id, "selection": selection.id}, trainer={"max_epochs": 1}))
    assert model.counts["images"] == 16  # 20 cutouts, whole batches of 8
    assert selection.id in {artifact.id for artifact in Store(store).ancestors(model)}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"task": {"name": "boyl"}}, ConfigError, ["task.name=boyl", "byol"]),
        ({"task": {"learning_rat": 1}}, ConfigError, ["task: option=learning_rat", "'learning_rate'"]),
        ({"task": {"learning_rate": "fast"}}, ConfigError, ["learning_rate='fast'"]),
        ({"preprocess": {"strech": "asinh"}}, ConfigError, ["transform.preprocess", "'stretch'"]),
        ({"datamodule": {"name": "cutouts", "batchsize": 8}}, ConfigError, ["'batch_size'"]),
        ({"datamodule": {**DATA, "batch_size": 0}}, ConfigError, ["batch_size=0", "greater than 0"]),
        ({"datamodule": {**DATA, "batch_size": "8x"}}, ConfigError, ["batch_size='8x'", "integer"]),
        ({"datamodule": {**DATA, "workers": -1}}, ConfigError, ["workers=-1"]),
        ({"datamodule": {**DATA, "batch_size": 1}}, InputError, ["at least 2", "raise datamodule.batch_size"]),
        ({"task": {"hidden_dim": 0}}, ConfigError, ["hidden_dim=0", "greater than 0"]),
        ({"datamodule": None}, ConfigError, ["datamodule", "name"]),
        ({"task": {"name": None}}, ConfigError, ["task.name is missing"]),
        ({"trainer": {"max_epoch": 3}}, ConfigError, ["max_epoch"]),
        ({"trainer": {"precision": "8"}}, ConfigError, ["precision", "bf16-mixed"]),
        ({"trainer": {"precision": "16-mixed"}}, ConfigError, ["16-mixed", "set trainer.precision=bf16-mixed"]),
        ({"trainer": {"max_epochs": 0}}, ConfigError, ["max_epochs", "greater than 0"]),
        ({"logger": {"wandbb": {}}}, ConfigError, ["wandbb"]),
        ({"data": "x"}, ConfigError, ["data='x'"]),
        ({"data": {"cutouts": "nothere"}}, StoreError, ["nothere"]),
        ({"data": {"cutouts": None}}, ConfigError, ["cutouts=null"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, changes, error, words):
    with pytest.raises(error) as caught:
        train(**request(tmp_path / "store", **changes))
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words), text
    assert Store(tmp_path / "store").leftovers() == []


def test_a_gpu_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="trainer=cpu"):
        train(**request(tmp_path / "store", trainer={"accelerator": "gpu"}))
