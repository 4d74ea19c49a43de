"""A planted key is found nowhere: not in manifests, logs, saved configurations, nor in what trackers keep."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from make.tiny_fit import make_cutouts
from skyloom.errors import ConfigError
from skyloom.run.secrets import refuse_secrets, secret_variables

ROOT = Path(__file__).resolve().parents[2]
PLANTED = {
    "WANDB_API_KEY": "5ec4e7" + "0f" * 17,  # 40 characters, as W&B wants
    "MLFLOW_TRACKING_PASSWORD": "5ec4e7-mlflow-password",
    "MLFLOW_TRACKING_TOKEN": "5ec4e7-mlflow-token",
    "AWS_SECRET_ACCESS_KEY": "5ec4e7/aws+secret",
    "HF_TOKEN": "hf_5ec4e7planted",
    "ARCHIVE_PASSWORD": "5ec4e7-archive",
}
SEED = b"5ec4e7"
TINY = [
    "task=byol", "task.projection_dim=8", "task.hidden_dim=16", "task.prediction_hidden_dim=16", "trainer=cpu",
    "trainer.max_epochs=1", "trainer.monitor.images=16",
    "datamodule.batch_size=8", "datamodule.workers=0", "backbone.model=test_resnet",
    "transform.preprocess.image_size_px=32",
]  # fmt: skip


def train(tmp_path, *words, logger="many"):
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "MLFLOW", "XDG"))}
    environment |= {"HOME": str(home), "MPLCONFIGDIR": matplotlib.get_configdir(), **PLANTED}  # fonts are known there
    where = [f"paths.store={tmp_path / 'store'}", f"paths.runs={tmp_path / 'runs'}", f"logger={logger}"]
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *TINY, *where, *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def holding(folder):
    return [path for path in folder.rglob("*") if path.is_file() and SEED in path.read_bytes()]


def test_a_fit_with_all_loggers_leaves_no_secret_of_the_environment_anywhere(tmp_path):
    pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    cutouts = make_cutouts(tmp_path / "store").id
    done = train(tmp_path, f"cutouts={cutouts}")
    assert done.returncode == 0, done.stderr
    written = [path.name for path in (tmp_path / "runs").rglob("*")]
    for name in ("config.yaml", "mlflow.db", "debug.log", "train.log"):
        assert name in written
    assert any(name.endswith(".wandb") for name in written)
    assert holding(tmp_path) == []
    assert SEED.decode() not in done.stdout + done.stderr


def test_a_secret_on_the_command_line_is_refused_before_anything_is_written(tmp_path):
    done = train(tmp_path, f"logger.wandb.tags=[{PLANTED['WANDB_API_KEY']}]", "cutouts=x")
    assert done.returncode == 2
    assert "logger.wandb.tags holds the value of the environment variable WANDB_API_KEY" in done.stderr
    assert SEED.decode() not in done.stdout + done.stderr
    assert holding(tmp_path) == []


def test_a_secret_that_a_configuration_takes_from_the_environment_is_refused(tmp_path):
    done = train(tmp_path, "+logger.mlflow.tags.by=${oc.env:HF_TOKEN}", "cutouts=x")
    assert done.returncode == 2
    assert "logger.mlflow.tags.by holds the value of the environment variable HF_TOKEN" in done.stderr
    assert SEED.decode() not in done.stdout + done.stderr
    assert holding(tmp_path) == []


@pytest.mark.parametrize("address", ["https://me:pa55@host/x", "postgresql+psycopg2://u:pa55@db:5432/m"])
def test_a_password_in_an_address_is_refused(address):
    with pytest.raises(ConfigError, match=r"images\[0\] holds an address with a password") as caught:
        refuse_secrets({"images": [address]})
    assert "pa55" not in str(caught.value)


def test_what_is_no_secret_passes(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("SSH_KEY", str(ROOT))
    refuse_secrets({"a": "false", "b": str(ROOT / "x"), "c": ["https://host:8080/@user", 3, None], "d": "s3://b/a:b@c"})


def test_variables_are_secrets_by_their_names():
    names = ["GITHUB_TOKEN", "MY_API_KEY", "KEY", "db_password", "KEYBOARD", "MONKEY", "HOME", "SHORT_KEY"]
    found = secret_variables({name: "x" * (3 if name == "SHORT_KEY" else 12) for name in names})
    assert sorted(found) == ["GITHUB_TOKEN", "KEY", "MY_API_KEY", "db_password"]
