"""Reports are shown to trackers when these are switched on, and are the same without them."""

import os
import sys

import numpy as np
import pytest
from omegaconf import OmegaConf

import skyloom
from make.feature_sets import features_of, windows
from make.wandb_file import read_run, segments
from skyloom.errors import ConfigError
from skyloom.run.mirror import chosen_loggers
from skyloom.run.notebook import configure
from skyloom.run.recipe import run_recipe

# MLflow uses a loading strategy that SQLAlchemy 2.1 deprecates; users do not see it, Python hides such warnings.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

SHORT = {"embedding": "pca", "thumbnails": 0, "galleries": 0, "outliers": 0, "dpi": 50}


@pytest.fixture
def made(tmp_path):
    return features_of(windows(tmp_path / "store", images=1), np.random.default_rng(0).normal(size=(36, 4)))


def analyze(made, tmp_path, **options):
    where = {"paths.store": str(tmp_path / "store"), "paths.runs": str(tmp_path / "runs")}
    return skyloom.analyze("features", features=made, **SHORT, **where, **options)


def test_mlflow_gets_numbers_and_pictures_once(made, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    plain = analyze(made, tmp_path)
    assert not (tmp_path / "runs").exists()
    uri = f"sqlite:///{tmp_path / 'tracked.db'}"
    for _ in range(2):  # it is there already, and mirrored all the same, the second time to the same run
        logged = analyze(made, tmp_path, logger="mlflow", **{"logger.mlflow.tracking_uri": uri})
    assert logged.id == plain.id
    assert "MLFLOW_TRACKING_URI" not in os.environ, "the next command would tell its run there"
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("skyloom").experiment_id])
    assert [run.data.tags["skyloom.id"] for run in runs] == [plain.id]
    assert runs[0].info.status == "FINISHED"
    assert 1 < runs[0].data.metrics["representation/rankme"] <= 4
    assert runs[0].data.params["inputs/features/id"] == made.id
    files = {item.path for folder in client.list_artifacts(runs[0].info.run_id)
             for item in client.list_artifacts(runs[0].info.run_id, folder.path)}  # fmt: skip
    assert any(path.endswith("map.png") for path in files)


def test_wandb_writes_a_run_outside_the_artifact(made, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")
    report = analyze(made, tmp_path, logger="wandb", **{"logger.wandb.mode": "offline"})
    runs = list((tmp_path / "runs" / "loggers" / report.id / "wandb").glob("offline-run-*"))
    assert len(runs) == 1
    assert list(runs[0].glob("files/media/images/map*.png"))


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_told_before_any_work(made, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"pip install .*{package}"):
        analyze(made, tmp_path, logger=package)
    assert not (tmp_path / "store" / "report").exists()


def test_a_wrong_option_is_told_in_one_line():
    with pytest.raises(ConfigError, match=r"logger.mlflow.experiment_name"):
        chosen_loggers({"mlflow": {"tracking_uri": None, "experiment_name": 3, "run_name": None, "tags": {}}})
    assert chosen_loggers({"csv": True}) is None


def test_the_lineage_of_a_recipe_can_be_walked_in_offline_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")
    config = configure(
        "curate",
        {"paths.store": str(tmp_path / "store"), "paths.runs": str(tmp_path / "runs"), "logger": "wandb",
         "logger.wandb.mode": "offline", "logger.wandb.group": "first"},
    )  # fmt: skip
    OmegaConf.set_struct(config, False)
    links = {
        "survey": {"curate": "simulate", "survey": "lotss", "mosaics": 1, "size_px": 200},
        "cutouts": {"curate": "cutouts", "survey": "lotss", "images": {"from": "survey"}, "window_px": 32},
    }
    config.recipe = {"name": "tiny", "links": links}
    chain = run_recipe(config)
    again = run_recipe(config)
    assert again.id == chain.id
    made: dict[str, str] = {}
    for link, verb in (("survey", "curate"), ("cutouts", "curate")):
        artifact = chain.artifacts[link]
        (folder,) = segments(tmp_path / "runs", artifact.id)  # told once, though the chain was run twice
        run = read_run(folder)
        assert (run.run.job_type, run.run.run_group, run.config["step"]) == (verb, "first", artifact.step)
        assert set(run.used) == {f"{other.kind}-{other.id}" for other in artifact.inputs.values()} <= set(made)
        (name,) = run.made
        made[name] = link
    assert run.summary["counts/" + next(key for key, n in artifact.counts.items() if isinstance(n, int))] >= 0
    assert run.made[name].metadata["counts"] == artifact.counts
