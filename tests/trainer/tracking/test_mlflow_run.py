"""Fits on a real server of MLflow, found through its API; and what happens when it is gone."""

import csv
import logging

import pytest

from make.mlflow_server import mlflow_server
from make.tiny_fit import make_cutouts, request
from skyloom.errors import ConfigError
from skyloom.run.mirror import mirror
from skyloom.trainer.tracking.loggers import LoggerOptions
from skyloom.trainer.tracking.mlflow_run import MlflowOptions, open_mlflow
from skyloom.trainer.tracking.tolerant import metric_name
from skyloom.trainer.train import train

mlflow = pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")

# MLflow uses a loading strategy that SQLAlchemy 2.1 deprecates; users do not see it, Python hides such warnings.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

SHORT = {"max_epochs": 1}


def options(uri):
    return {"tracking_uri": uri, "experiment_name": "sweep", "run_name": None, "tags": {"group": "rates"}}


def fit(tmp_path, uri, data, rate):
    return train(
        **request(
            tmp_path / "store", data=data, trainer=SHORT, task={"learning_rate": rate}, logger={"mlflow": options(uri)}
        )
    )


def runs_of(uri, words=""):
    client = mlflow.MlflowClient(uri)
    return client, client.search_runs([client.get_experiment_by_name("sweep").experiment_id], words)


def column(model, key):
    with model.file("metrics.csv").open() as file:
        return [(int(row["step"]), float(row[key])) for row in csv.DictReader(file) if row[key]]


def test_the_fits_of_a_sweep_are_found_through_the_api_of_a_server(tmp_path):
    data = {"cutouts": make_cutouts(tmp_path / "store").id, "selection": None}
    with mlflow_server(tmp_path / "server") as uri:
        models = {rate: fit(tmp_path, uri, data, rate) for rate in (0.02, 0.05)}
        client, runs = runs_of(uri, "tags.group = 'rates' and metrics.`train/loss` > 0")
        assert len(runs) == 2
        for rate, model in models.items():
            ((run,), cutouts) = runs_of(uri, f"params.`task/learning_rate` = '{rate}'")[1], model.inputs["data.cutouts"]
            tags = run.data.tags
            assert (tags["skyloom.id"], tags["skyloom.kind"], run.info.run_name) == (model.id, "model", model.id)
            assert tags["skyloom.job_type"] == "train"
            assert tags["skyloom.code.git_commit"] == str(model.manifest["code"]["git_commit"])
            assert tags["skyloom.input.data.cutouts"] == f"cutouts-{cutouts.id}"
            assert [item.dataset.name for item in run.inputs.dataset_inputs] == [f"cutouts-{cutouts.id}"]
            assert run.info.status == "FINISHED"
            history = client.get_metric_history(run.info.run_id, "train/loss")
            found = sorted((item.step, item.value) for item in history)
            assert [step for step, _ in found] == [step for step, _ in column(model, "train/loss")]
            assert [value for _, value in found] == pytest.approx([value for _, value in column(model, "train/loss")])


def test_a_server_that_is_gone_stops_no_fit_and_is_told_later(tmp_path, monkeypatch, caplog):
    from lightning.pytorch.loggers import MLFlowLogger

    def gone(self, metrics, step=None):
        raise mlflow.exceptions.MlflowException("connection refused")

    uri = f"sqlite:///{tmp_path / 'tracked.db'}"
    data = {"cutouts": make_cutouts(tmp_path / "store").id, "selection": None}
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "skyloom"):
        patch.setattr(MLFlowLogger, "log_metrics", gone)
        model = fit(tmp_path, uri, data, 0.05)
    assert "does not answer, and is told nothing more" in caplog.text
    assert "the same command tells them" in caplog.text
    client, (run,) = runs_of(uri)
    assert run.info.status != "FINISHED"
    assert "train/loss" not in run.data.metrics
    mirror(model, LoggerOptions(mlflow=MlflowOptions(**options(uri))), verb="train", runs=str(tmp_path / "runs"))
    client, (run,) = runs_of(uri)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(item.step for item in history) == [step for step, _ in column(model, "train/loss")]


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path):
    wrong = MlflowOptions(**options("http://me:pa55word@host:5000"))
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        open_mlflow(wrong, None, tmp_path)
    assert "pa55word" not in str(caught.value)


def test_names_of_metrics_are_such_as_mlflow_takes():
    assert metric_name("counts/dropped/too faint (mag > 24)") == "counts/dropped/too faint _mag _ 24_"
