"""Every experiment file composes and takes one step."""

from pathlib import Path

import pytest
import yaml

import skyloom
from make.joint_data import joint_data
from make.survey import sky, write_image

FOLDER = Path(__file__).resolve().parents[1] / "conf" / "experiment"


def task_of(path):
    """The task that a file chooses; byol, the usual one, where it says nothing."""
    chosen = [value for line in yaml.safe_load(path.read_text()).get("defaults", []) if isinstance(line, dict)
              for key, value in line.items() if key.split()[-1] == "/task"]  # fmt: skip
    return chosen[0] if chosen else "byol"


TASKS = {path.stem: task_of(path) for path in sorted(FOLDER.glob("*.yaml"))}
DETECTORS = [name for name, task in TASKS.items() if task == "detect"]

# What makes any experiment small enough for one step on a CPU; nothing here changes which code runs.
STEP = {"trainer.max_epochs": 1, "trainer.limit_train_batches": 1, "trainer.accelerator": "cpu"}
SMALL = {**STEP, "backbone.image_size_px": 32, "datamodule.batch_size": 4}
# The same for detectors, which are also narrow, on a small backbone, in one process and in single precision.
NARROW = {
    **STEP, "backbone": "resnet18", "datamodule.batch_size": 2, "datamodule.workers": 0, "trainer.devices": 1,
    "trainer.sync_batchnorm": False, "trainer.precision": "32-true", "trainer.validation.limit_batches": 1,
    "trainer.validation.every_n_epochs": 1,
    "detector.pyramid.channels": 16, "detector.box.channels": 16, "detector.box.convs": 1, "detector.box.fc": [32],
    "detector.mask.channels": 16, "detector.mask.convs": 1, "detector.centroid.channels": 16,
    "detector.centroid.convs": 1, "detector.pyramid.pad_to_px": None,
}  # fmt: skip


@pytest.mark.parametrize("experiment", [name for name in TASKS if name not in DETECTORS])
def test_every_experiment_takes_one_step(tmp_path, experiment):
    write_image(tmp_path / "in" / "a.fits", sky(96, 96))
    cutouts = skyloom.curate("cutouts", images=tmp_path / "in", window_px=32, store=tmp_path / "store")
    options = {**SMALL, "paths.runs": str(tmp_path / "runs")}
    model = skyloom.train("byol", experiment=experiment, cutouts=cutouts, **options, store=tmp_path / "store")
    assert model.counts["images"] == 4
    assert model.parameters["task"]["hidden_dim"] == 1024, "the deltas of the file arrived"


@pytest.mark.parametrize("experiment", DETECTORS)
def test_every_experiment_of_a_detector_takes_one_step(tmp_path, experiment):
    data = joint_data(tmp_path / "store")
    options = {**NARROW, "paths.runs": str(tmp_path / "runs")}
    model = skyloom.train("detect", experiment=experiment, dataset=data.dataset, **options, store=tmp_path / "store")
    surveys = model.parameters["datamodule"]["surveys"]
    assert model.counts["images"] == 2
    assert model.notes["in_chans"] == sum({"lsst": 6, "roman": 3}[survey] for survey in surveys)
    assert "val/loss" in model.notes["final"]
