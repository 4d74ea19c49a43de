"""What an offline run of W&B holds, read back from its file."""

import csv
import json

import pytest
import wandb

from make.tiny_fit import make_cutouts, request
from make.wandb_file import read_run, segments
from skyloom.errors import ConfigError
from skyloom.trainer.train import train

WANDB = {
    "mode": "offline", "project": "radio", "entity": "team", "name": None, "group": "seeds", "job_type": None,
    "tags": ["a", "b"],
}  # fmt: skip
SHORT = {"max_epochs": 1}


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")


def rows_of(model):
    """Rows of metrics.csv as numbers, without the columns that a logger gets otherwise."""
    with model.file("metrics.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [({key: row[key] for key in row if key not in ("epoch", "step")}, row["step"]) for row in rows]


def told(run):
    """The same of a run: rows that hold metrics of the fit."""
    found = []
    for row in run.history:
        values = {key: row[key] for key in row if key[0] != "_" and key not in ("epoch", "trainer/global_step")}
        if values and "images_per_s" not in values:
            found.append((values, row["trainer/global_step"]))
    return found


def same(run, model):
    ours, theirs = rows_of(model), told(run)
    assert [(set(row), step) for row, step in theirs] == [(set(row), step) for row, step in ours]
    for (mine, _), (other, _) in zip(ours, theirs, strict=True):
        assert other == pytest.approx(mine, rel=1e-6, nan_ok=True)


def test_an_offline_run_holds_request_code_metrics_and_lineage(tmp_path):
    model = train(**request(tmp_path / "store", trainer=SHORT, logger={"wandb": WANDB}))
    (folder,) = segments(tmp_path / "runs", model.id)
    assert json.loads((folder / "closed.json").read_text())["whole"] is True
    run = read_run(folder)
    head = run.run
    assert (head.run_id, head.display_name, head.project, head.entity) == (model.id, model.id, "radio", "team")
    assert (head.run_group, head.job_type, list(head.tags)) == ("seeds", "train", ["a", "b"])
    assert run.config["task"]["learning_rate"] == 0.05
    assert run.config["inputs"] == model.manifest["inputs"]
    assert run.config["code"] == model.manifest["code"]
    assert run.config["trainer"] == model.parameters["trainer"]
    same(run, model)
    assert run.summary["train/loss"] == pytest.approx(model.notes["final"]["train/loss"])
    cutouts = model.inputs["data.cutouts"]
    assert run.used[f"cutouts-{cutouts.id}"].references == [f"skyloom:cutouts/{cutouts.id}"]
    made = run.made[f"model-{model.id}"]
    assert (made.type, made.references) == ("model", [f"skyloom:model/{model.id}"])
    assert made.metadata["path"] == str(model.path)
    assert run.exit_code == 0


def test_the_newest_segment_of_a_fit_that_was_interrupted_is_the_whole_run(tmp_path, monkeypatch):
    from skyloom.task.byol import ByolTask

    options = request(tmp_path / "store", trainer={"max_epochs": 2}, logger={"wandb": WANDB})
    step = ByolTask.training_step

    def failing(self, batch, batch_idx):
        if self.current_epoch == 1:
            raise ZeroDivisionError
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ByolTask, "training_step", failing)
        with pytest.raises(ZeroDivisionError):
            train(**options)
    model = train(**options)
    first, second = segments(tmp_path / "runs", model.id)
    assert json.loads((first / "closed.json").read_text())["whole"] is False
    cut, whole = read_run(first), read_run(second)
    assert cut.run.run_id == whole.run.run_id == model.id
    assert cut.exit_code == 1
    assert not cut.made
    assert 0 < len(told(cut)) < len(told(whole))
    same(whole, model)


def test_an_attempt_that_only_has_to_save_tells_all_the_same(tmp_path, monkeypatch):
    from skyloom.trainer import train as module

    options = request(tmp_path / "store", trainer=SHORT, logger={"wandb": WANDB})
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(**options)
    model = train(**options)
    same(read_run(segments(tmp_path / "runs", model.id)[-1]), model)


def test_a_variable_of_the_environment_that_wandb_cannot_read_is_named(tmp_path, monkeypatch):
    def refuse(**_):
        wandb.Settings(init_timeout="soon")  # what W&B does with WANDB_INIT_TIMEOUT=soon, once in a process

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ConfigError, match="mend or unset WANDB_INIT_TIMEOUT") as caught:
        train(**request(tmp_path / "store", logger={"wandb": WANDB}))
    assert "\n" not in str(caught.value)


def test_fits_of_a_sweep_in_one_process_are_runs_of_their_own(tmp_path):
    store = tmp_path / "store"
    data = {"cutouts": make_cutouts(store).id, "selection": None}
    models = [
        train(**request(store, data=data, trainer=SHORT, task={"learning_rate": rate}, logger={"wandb": WANDB}))
        for rate in (0.02, 0.05)
    ]
    for model, rate in zip(models, (0.02, 0.05), strict=True):
        (folder,) = segments(tmp_path / "runs", model.id)
        run = read_run(folder)
        assert run.config["task"]["learning_rate"] == rate
        same(run, model)
