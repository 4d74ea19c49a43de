"""The way from cutouts to a catalogue can be walked in the runs of W&B and MLflow, under the ids of the store."""

import pytest
from omegaconf import OmegaConf

from make.tiny_detect_fit import SMALL, tiny_data
from make.wandb_file import read_run, segments
from skyloom.run.notebook import configure
from skyloom.run.recipe import run_recipe

# MLflow uses a loading strategy that SQLAlchemy 2.1 deprecates; users do not see it, Python hides such warnings.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

NETWORK = {"backbone": "resnet18", "backbone.model": "test_resnet"}
FIT = {"trainer": "cpu", "trainer.max_epochs": 1, "trainer.limit_train_batches": 1, "datamodule.workers": 0}
SOURCES = {
    "survey": [], "cutouts": ["survey"], "features": ["cutouts"], "clusters": ["features"], "selection": ["clusters"],
    "model": ["cutouts", "selection"], "detector": ["dataset", "model"], "candidates": ["dataset", "detector"],
    "catalog": ["candidates", "dataset", "detector"],
}  # fmt: skip
VERBS = {"features": "extract", "model": "train", "detector": "train", "candidates": "extract", "catalog": "extract"}


def links(dataset):
    """A link of each kind on the way, as small as it can be; what a link leaves out its files say."""
    small = {f"detector.{group}": values for group, values in SMALL.items()}
    return {
        "survey": {"curate": "simulate", "survey": "lotss", "mosaics": 1, "size_px": 200},
        "cutouts": {"curate": "cutouts", "survey": "lotss", "images": {"from": "survey"}, "window_px": 32},
        "features": {"extract": "features", "cutouts": {"from": "cutouts"}, **NETWORK, "backbone.image_size_px": 32},
        "clusters": {"curate": "cluster", "features": {"from": "features"},
                     "levels": [{"clusters": 4, "sample_size": 3, "resamples": 1}]},
        "selection": {"curate": "subsample", "clusters": {"from": "clusters"}, "target_size": 8},
        "model": {"train": "byol", "cutouts": {"from": "cutouts"}, "selection": {"from": "selection"}, **NETWORK, **FIT,
                  "backbone.image_size_px": 32, "datamodule.batch_size": 8, "task.hidden_dim": 16,
                  "task.projection_dim": 8, "task.prediction_hidden_dim": 16},
        "detector": {"train": "detect", "datamodule": "roman_lsst", "transform": "detection", "dataset": dataset,
                     "detector": "mask_rcnn", **small, **NETWORK, "backbone.weights": {"from": "model"},
                     "backbone.allow_missing": True,
                     "datamodule.surveys": ["lsst"], "datamodule.batch_size": 1, "data.lsst_stats": None,
                     "data.roman_stats": None, **FIT, "trainer.validation.limit_batches": 1},
        "catalog": {"extract": "catalog", "model": {"from": "detector"}, "dataset": dataset, "device": "cpu",
                    "score": 0.1, "photometry.enabled": False, "formats": []},
    }  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """By name the artifacts of a chain that W&B and MLflow were told of, and the folder of the runs."""
    folder = tmp_path_factory.mktemp("lineage")
    dataset = tiny_data(folder / "store").dataset
    where = {"paths.store": str(folder / "store"), "paths.runs": str(folder / "runs"), "executor": "serial"}
    config = configure("curate", {**where, "logger": "many", "logger.wandb.mode": "offline", "name": "final"})
    OmegaConf.set_struct(config, False)
    config.recipe = {"name": "whole", "links": links(dataset.id)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", "")
        for _ in range(2):  # what is told is not told again
            made = run_recipe(config).artifacts
    found = {**made, "dataset": dataset, "candidates": made["catalog"].inputs["candidates"]}
    return found, folder / "runs"


def title(artifact):
    return f"{artifact.kind}-{artifact.id}"


@pytest.mark.parametrize("name", SOURCES)
def test_a_run_of_wandb_uses_what_runs_before_it_have_made(told, name):
    artifacts, runs = told
    own = artifacts[name]
    (folder,) = segments(runs, own.id)
    run = read_run(folder)
    assert (run.run.run_id, run.run.job_type) == (own.id, VERBS.get(name, "curate"))
    assert run.run.display_name == ("final" if name == "catalog" else own.id)
    assert set(run.used) == {title(artifacts[source]) for source in SOURCES[name]}
    assert {key: entry.references for key, entry in run.made.items()} == {
        title(own): [f"skyloom:{own.kind}/{own.id}"]
    }  # fmt: skip
    if VERBS.get(name) != "train":  # a fit is told while it runs, before it has counted
        assert run.made[title(own)].metadata["counts"] == own.counts
    assert run.config["inputs"] == own.manifest["inputs"]
    assert run.exit_code == 0


def test_runs_of_mlflow_name_the_same(told):
    mlflow = pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    artifacts, runs = told
    client = mlflow.MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("skyloom").experiment_id])
    by_id = {run.data.tags["skyloom.id"]: run for run in found}
    assert len(found) == len(by_id)
    assert set(by_id) == {artifacts[name].id for name in SOURCES}
    for name, sources in SOURCES.items():
        run = by_id[artifacts[name].id]
        wanted = {title(artifacts[source]) for source in sources}
        assert (run.info.status, run.data.tags["skyloom.kind"]) == ("FINISHED", artifacts[name].kind)
        assert run.data.tags["skyloom.job_type"] == VERBS.get(name, "curate")
        assert {value for key, value in run.data.tags.items() if key.startswith("skyloom.input.")} == wanted
        assert {item.dataset.name for item in run.inputs.dataset_inputs} == wanted
