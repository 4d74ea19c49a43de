"""Every experiment file composes and takes one step."""

from pathlib import Path

import pytest

import skyloom
from make.survey import sky, write_image

EXPERIMENTS = sorted(path.stem for path in (Path(__file__).resolve().parents[1] / "conf" / "experiment").glob("*.yaml"))

# What makes any experiment small enough for one step on a CPU; nothing here changes which code runs.
SMALL = {
    "backbone.image_size_px": 32,
    "datamodule.batch_size": 4,
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 1,
    "trainer.accelerator": "cpu",
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_takes_one_step(tmp_path, experiment):
    write_image(tmp_path / "in" / "a.fits", sky(96, 96))
    cutouts = skyloom.curate("cutouts", images=tmp_path / "in", window_px=32, store=tmp_path / "store")
    options = {**SMALL, "paths.runs": str(tmp_path / "runs")}
    model = skyloom.train("byol", experiment=experiment, cutouts=cutouts, **options, store=tmp_path / "store")
    assert model.counts["images"] == 4
    assert model.parameters["task"]["hidden_dim"] == 1024, "the deltas of the file arrived"
