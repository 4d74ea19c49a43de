"""Sweeps and searches as people start them: distinct runs, one table of them, a search that is found again."""

import json

import pytest
import torch

from make import forked_script
from make.tiny_fit import make_cutouts
from skyloom.errors import ConfigError
from skyloom.run.notebook import compose
from skyloom.run.verbs import call
from skyloom.store import Store

TINY = [
    "task=byol", "backbone=resnet18", "++backbone.model=test_resnet", "backbone.image_size_px=32",
    "datamodule.batch_size=8", "datamodule.workers=0", "task.projection_dim=8", "task.hidden_dim=16",
    "task.prediction_hidden_dim=16", "task.optimizer=sgd", "task.warmup_epochs=1", "trainer=cpu",
    "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.monitor.images=0",
]  # fmt: skip


def script(folder, *words):
    places = [f"paths.store={folder / 'store'}", f"paths.runs={folder / 'runs'}"]
    return forked_script.call(forked_script.running(), *words, *places, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def cutouts(folder):
    return make_cutouts(folder / "store").id


@pytest.fixture(scope="module")
def sweep(folder, cutouts):
    """Two rates by two momenta, and one job that is refused."""
    swept = ["task.learning_rate=0.05,0.5", "task.momentum_start=0.9,0.99,2.0"]
    return script(folder, "train.py", "-m", *TINY, f"cutouts={cutouts}", *swept)


def jobs(folder):
    return {file.parent.name: json.loads(file.read_text()) for file in (folder / "runs").rglob("result.json")}


def test_jobs_have_folders_of_their_own_and_one_that_fails_stops_no_other(folder, sweep):
    assert sweep.returncode == 2
    told = jobs(folder)
    ids = [told[number]["id"] for number in "0134"]
    assert len(set(ids)) == 4
    assert set(ids) <= set(sweep.stdout.split())
    assert "momentum_start" in told["2"]["error"]
    assert told["5"]["id"] is None


def test_the_sweep_stands_side_by_side_in_one_table(folder, sweep, capsys):
    place = next((folder / "runs").rglob("0/result.json")).parents[1]
    options = ["report=compare", f"runs={place}", f"paths.store={folder / 'store'}", "dpi=50", "sort=train/loss"]
    made = call("analyze", compose("analyze", options))
    told = json.loads(made.file("numbers.json").read_text())
    assert {(row["facts"]["task.learning_rate"], row["facts"]["task.momentum_start"]) for row in told["rows"]} == {
        (rate, momentum) for rate in ("0.05", "0.5") for momentum in ("0.9", "0.99")
    }
    values = [row["value"] for row in told["rows"]]
    assert values == sorted(values)
    finals = {row["id"]: Store(folder / "store").open(row["id"]).notes["final"]["train/loss"] for row in told["rows"]}
    assert {row["id"]: row["value"] for row in told["rows"]} == pytest.approx(finals)
    assert [job["job"] for job in told["unfinished"]] == ["2", "5"]
    assert "task.learning_rate  task.momentum_start  run" in capsys.readouterr().err


def test_a_checkpoint_holds_plain_types_only(folder, sweep):
    model = Store(folder / "store").open(jobs(folder)["0"]["id"])
    checkpoint = torch.load(model.file("last.ckpt"), weights_only=True)
    assert {"state_dict", "optimizer_states", "epoch"} <= set(checkpoint)
    assert b"omegaconf" not in model.file("last.ckpt").read_bytes()


@pytest.mark.timeout(600)
def test_a_search_goes_by_the_objective_and_the_same_command_finds_its_runs_again(folder, cutouts):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra optuna is not installed")
    words = ["train.py", "hparams_search=byol", *TINY, f"cutouts={cutouts}", "objective=train/loss",
             "hydra.sweeper.direction=minimize", "hydra.sweeper.n_trials=3"]  # fmt: skip
    first, again = script(folder, *words), script(folder, *words)
    assert first.returncode == 0, first.stderr
    ids = first.stdout.split()
    assert len(set(ids)) == 3
    assert again.stdout.split() == ids
    assert again.stderr.count("is there already") == 3
    losses = [Store(folder / "store").open(id).notes["final"]["train/loss"] for id in ids]
    results = next((folder / "runs").rglob("optimization_results.yaml")).read_text()
    assert float(results.split("best_value:")[1].split()[0]) == pytest.approx(min(losses))


def test_a_search_without_a_finished_trial_says_so_in_one_line(folder, cutouts):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra optuna is not installed")
    words = ["hparams_search=byol", *TINY, f"cutouts={cutouts}", "objective=null", "hydra.sweeper.n_trials=2"]
    done = script(folder, "train.py", *words)
    assert done.returncode == 2
    assert "needs a number to go by: objective=train/loss" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: no trial of the search")


def test_options_that_only_probes_have_are_refused(folder):
    for word in ("bootstrap=5", "probes=all"):
        with pytest.raises(ConfigError, match=f"{word.partition('=')[0]} has no meaning for report=compare with runs"):
            call("analyze", compose("analyze", ["report=compare", "runs=all", word]))
    with pytest.raises(ConfigError, match="give what is compared"):
        call("analyze", compose("analyze", ["report=compare"]))
