"""Loggers beside the record work without a network, write outside the artifact, and say what is missing."""

import socket
import sys

import pytest

from make.tiny_fit import request
from skyloom.errors import ConfigError
from skyloom.trainer.train import train

WANDB = {
    "mode": "offline",
    "project": "p",
    "entity": None,
    "name": "n",
    "group": "g",
    "job_type": "train",
    "tags": ["a"],
}
MLFLOW = {"tracking_uri": None, "experiment_name": "e", "run_name": None, "tags": {"kind": "test"}}
SHORT = {"max_epochs": 1}

# MLflow uses a loading strategy that SQLAlchemy 2.1 deprecates; users do not see it, Python hides such warnings.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture
def no_network(monkeypatch):
    """Refuse connections to anything but this machine (the W&B service listens on a local socket)."""
    connect = socket.socket.connect

    def refuse(self, address):
        if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"):
            return connect(self, address)
        raise AssertionError(f"connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_wandb_offline_writes_a_run_outside_the_artifact(tmp_path, no_network, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")
    model = train(**request(tmp_path / "store", trainer=SHORT, logger={"wandb": WANDB}))
    runs = list((tmp_path / "runs" / "loggers" / model.id / "wandb").glob("offline-run-*"))
    assert len(runs) == 1
    assert runs[0].name.endswith(model.id)
    assert list(runs[0].glob("*.wandb"))
    assert not [name for name in model.manifest["files"] if "wandb" in name]


def test_mlflow_keeps_metrics_and_parameters_in_a_file(tmp_path, no_network):
    mlflow = pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    model = train(**request(tmp_path / "store", trainer=SHORT, logger={"mlflow": MLFLOW}))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("e")
    runs = client.search_runs([experiment.experiment_id], f"tags.`skyloom.id` = '{model.id}'")
    assert len(runs) == 1
    assert runs[0].info.status == "FINISHED"
    assert runs[0].data.metrics["train/loss"] == pytest.approx(model.notes["final"]["train/loss"])
    assert runs[0].data.metrics["images_per_s"] > 0
    assert runs[0].data.params["task/learning_rate"] == "0.05"
    assert runs[0].data.params["inputs/data/cutouts/id"] == model.manifest["inputs"]["data"]["cutouts"]["id"]


def test_a_resumed_fit_goes_on_with_the_same_mlflow_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    from skyloom.trainer import train as module

    options = request(tmp_path / "store", trainer=SHORT, logger={"mlflow": MLFLOW})
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(**options)
    train(**options)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    assert len(client.search_runs([client.get_experiment_by_name("e").experiment_id])) == 1


def test_loggers_do_not_change_the_model(tmp_path):
    pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    plain = train(**request(tmp_path / "a" / "store", trainer=SHORT))
    many = train(**request(tmp_path / "b" / "store", trainer=SHORT, logger={"wandb": WANDB, "mlflow": MLFLOW}))
    assert plain.id == many.id
    for name in ("model.safetensors", "metrics.csv"):
        assert plain.file(name).read_bytes() == many.file(name).read_bytes()


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_package_that_is_not_installed(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # what import finds then is ModuleNotFoundError
    options = {"wandb": WANDB, "mlflow": MLFLOW}[package]
    with pytest.raises(ConfigError, match=f"pip install .*{package}"):
        train(**request(tmp_path / "store", logger={package: options}))
