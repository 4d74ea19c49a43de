"""Sweeps through submitit on a real Slurm: distinct runs, frozen code, failures told apart."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from make.tiny_fit import make_cutouts
from skyloom.store import Store

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "task=byol", "backbone=resnet18", "++backbone.model=test_resnet", "backbone.image_size_px=32",
    "datamodule.batch_size=8", "datamodule.workers=0", "task.projection_dim=8", "task.hidden_dim=16",
    "task.prediction_hidden_dim=16", "task.optimizer=sgd", "task.warmup_epochs=1", "trainer=cpu",
    "trainer.max_epochs=1", "trainer.monitor.images=0", "trainer.monitor.views_every_n_epochs=null",
)  # fmt: skip
SMALL = ("hydra/launcher=slurm_cpu", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory):
    return make_cutouts(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of this checkout that a test may edit."""
    copy = tmp_path_factory.mktemp("checkout") / "skyloom"
    copy.mkdir()
    for script in ROOT.glob("*.py"):
        shutil.copy2(script, copy / script.name)
    for folder in ("conf", "src"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def start(slurm, tmp_path):
    """Start a script of a checkout from another working directory; its store and runs are relative to that."""

    started = []

    def start(script, *words, root=ROOT):
        env = slurm.environment() | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, root / script, *words, "paths.store=store", "paths.runs=runs"],
            cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_sweep_of_four_gives_four_distinct_and_correct_runs(cutouts, start, tmp_path):
    command = start(
        "train.py", *TINY, *SMALL, f"cutouts={cutouts.path}", "task.learning_rate=0.05,0.1", "trainer.max_epochs=1,2"
    )
    out, err = command.communicate(timeout=300)
    assert command.returncode == 0, err
    ids = out.split()
    models = [Store(tmp_path / "store").open(id) for id in ids]
    assert [(m.parameters["task"]["learning_rate"], m.parameters["trainer"]["max_epochs"]) for m in models] == [
        (0.05, 1), (0.1, 1), (0.05, 2), (0.1, 2),
    ]  # fmt: skip
    assert len({m.manifest["files"]["model.safetensors"]["sha256"] for m in models}) == 4
    (sweep,) = (tmp_path / "runs" / "train").glob("*/*")
    for number, id in enumerate(ids):
        assert json.loads((sweep / str(number) / "result.json").read_text())["id"] == id
        assert (sweep / str(number) / ".hydra" / "config.yaml").exists()
        assert (sweep / str(number) / "train.log").exists()
    (copy,) = (sweep / "code").iterdir()
    noted = json.loads((copy / "code.json").read_text())
    assert noted["copied_from"] == str(ROOT)
    assert {m.manifest["code"]["git_commit"] for m in models} == {noted["git_commit"]}


def test_an_edit_while_jobs_wait_changes_nothing(slurm, checkout, cutouts, start, tmp_path):
    choice = checkout / "conf" / "task" / "byol.yaml"
    code = checkout / "src" / "skyloom" / "trainer" / "train.py"
    before = choice.read_text()
    slurm.hold()
    try:
        known = {job["JobId"] for job in slurm.jobs()}
        command = start("train.py", *TINY, *SMALL, f"cutouts={cutouts.path}", "seed=1", root=checkout)
        while not (new := [job for job in slurm.jobs() if job["JobId"] not in known]):
            assert command.poll() is None, command.communicate()
            time.sleep(0.5)
        assert new[0]["JobState"] == "PENDING"
        changed = before.replace("momentum_start: 0.99", "momentum_start: 0.5")
        assert changed != before
        choice.write_text(changed)
        code.write_text("raise RuntimeError('edited while the job was waiting')\n")
    finally:
        slurm.release()
    out, err = command.communicate(timeout=200)
    assert command.returncode == 0, err
    model = Store(tmp_path / "store").open(out.strip())
    assert model.parameters["task"]["momentum_start"] == 0.99


def test_one_failed_job_is_named_and_the_others_are_done(slurm, cutouts, start, tmp_path):
    known = {job["JobId"] for job in slurm.jobs()}
    command = start("train.py", *TINY, *SMALL, f"cutouts={cutouts.path},nowhere", "seed=2")
    out, err = command.communicate(timeout=200)
    assert command.returncode == 2
    assert len(out.split()) == 1
    Store(tmp_path / "store").open(out.strip())
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: run 1: ")
    assert "nowhere" in last
    new = [job for job in slurm.jobs() if job["JobId"] not in known]
    assert sorted(job["JobState"] for job in new) == ["COMPLETED", "FAILED"]  # the queue knows it too


def test_a_job_that_is_cancelled_is_named(slurm, cutouts, start):
    slurm.hold()
    try:
        known = {job["JobId"] for job in slurm.jobs()}
        command = start("train.py", *TINY, *SMALL, f"cutouts={cutouts.path}", "seed=3,4")
        while not (new := [job for job in slurm.jobs() if job["JobId"] not in known]):
            assert command.poll() is None, command.communicate()
            time.sleep(0.5)
        slurm.run("scancel", f"{new[0]['ArrayJobId']}_0")
    finally:
        slurm.release()
    out, err = command.communicate(timeout=200)
    assert command.returncode == 2
    assert len(out.split()) == 1
    assert f"error: run 0: job {new[0]['ArrayJobId']}_0 ended without a word" in err


def test_what_cannot_be_submitted_is_refused_in_one_line(slurm, start, tmp_path):
    cases = {
        ("hydra/launcher=slurm", "trainer.accelerator=gpu", "trainer.devices=2"): "hydra/launcher=slurm_ddp",
        ("hydra/launcher=slurm_ddp", "trainer=ddp", "trainer.devices=1,2"): "trainer.devices cannot be swept",
        ("hydra/launcher=slurm_ddp_nodes", "trainer=ddp", "hydra.launcher.nodes=3"): "6 processes",
        ("hydra/launcher=slurm_cpu", "hydra.launcher.partition=nonsense"): "partition",
    }
    started = [(start("train.py", *TINY, "cutouts=x", *words), text) for words, text in cases.items()]
    for command, text in started:
        out, err = command.communicate(timeout=120)
        assert (command.returncode, out) == (2, ""), err
        last = err.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert text in last
    assert not list((tmp_path / "runs").rglob("run.json"))
