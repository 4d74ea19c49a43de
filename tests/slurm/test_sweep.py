"""Sweeps through submitit on a real Slurm: distinct runs, frozen code, failures told apart."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from make.mlflow_server import mlflow_server
from make.tiny_fit import make_cutouts
from make.wandb_file import read_run, segments
from skyloom.store import Store

# MLflow uses a loading strategy that SQLAlchemy 2.1 deprecates; users do not see it, Python hides such warnings.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

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


@contextlib.contextmanager
def starter(slurm, folder):
    """Starts scripts of a checkout from a working directory; their store and runs are relative to that."""
    started = []

    def start(script, *words, root=ROOT):
        env = slurm.environment() | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1", "WANDB_API_KEY": ""}
        process = subprocess.Popen(
            [sys.executable, root / script, *words, "paths.store=store", "paths.runs=runs"],
            cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.fixture
def start(slurm, tmp_path):
    with starter(slurm, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def four(slurm, cutouts, tmp_path_factory):
    """The four runs of a sweep whose jobs tell W&B and a server of MLflow, and the table of them."""
    pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    folder = tmp_path_factory.mktemp("four")
    with starter(slurm, folder) as start, mlflow_server(folder / "server") as uri:
        told = ("logger=many", "logger.wandb.group=rates", f"logger.mlflow.tracking_uri={uri}")
        command = start(
            "train.py", *TINY, *SMALL, *told, f"cutouts={cutouts.path}", "task.learning_rate=0.05,0.1",
            "trainer.max_epochs=1,2",
        )  # fmt: skip
        out, err = command.communicate(timeout=300)
        assert command.returncode == 0, err
        (sweep,) = (folder / "runs" / "train").glob("*/*")
        compare = start("analyze.py", "report=compare", f"runs={sweep.relative_to(folder)}")
        runs = _runs_of(uri)  # while the table is made
        report, text = compare.communicate(timeout=120)
        assert compare.returncode == 0, text
    store = Store(folder / "store")
    models = [store.open(id) for id in out.split()]
    return SimpleNamespace(
        folder=folder, sweep=sweep, models=models, runs=runs, report=store.open(report.strip()), table=text
    )


def _runs_of(uri):
    """What a server of MLflow has, by the id of the artifact."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("skyloom").experiment_id], "tags.`skyloom.kind` = 'model'")
    assert len(runs) == 4
    return {run.data.tags["skyloom.id"]: run for run in runs}


def test_a_sweep_of_four_gives_four_distinct_and_correct_runs(four):
    assert [(m.parameters["task"]["learning_rate"], m.parameters["trainer"]["max_epochs"]) for m in four.models] == [
        (0.05, 1), (0.1, 1), (0.05, 2), (0.1, 2),
    ]  # fmt: skip
    assert len({m.manifest["files"]["model.safetensors"]["sha256"] for m in four.models}) == 4
    for number, model in enumerate(four.models):
        assert json.loads((four.sweep / str(number) / "result.json").read_text())["id"] == model.id
        assert (four.sweep / str(number) / ".hydra" / "config.yaml").exists()
        assert (four.sweep / str(number) / "train.log").exists()
    (copy,) = (four.sweep / "code").iterdir()
    noted = json.loads((copy / "code.json").read_text())
    assert noted["copied_from"] == str(ROOT)
    assert {m.manifest["code"]["git_commit"] for m in four.models} == {noted["git_commit"]}


def test_the_same_four_with_the_same_numbers_are_in_the_table_in_wandb_and_in_mlflow(four):
    rows = {row["id"]: row for row in json.loads(four.report.file("numbers.json").read_text())["rows"]}
    assert set(rows) == set(four.runs) == {model.id for model in four.models}
    for model in four.models:
        rate, epochs = model.parameters["task"]["learning_rate"], model.parameters["trainer"]["max_epochs"]
        row, kept = rows[model.id], four.runs[model.id]
        (folder,) = segments(four.folder / "runs", model.id)
        offline = read_run(folder)

        assert set(row["facts"].values()) >= {str(rate), str(epochs)}, "the deltas are columns"
        (line,) = [line for line in four.table.splitlines() if model.id in line]
        assert line.split()[: len(row["facts"])] == list(row["facts"].values())
        assert f"{row['value']:.4g}" in line.split()

        told = offline.config
        assert (told["task"]["learning_rate"], told["trainer"]["max_epochs"]) == (rate, epochs)
        assert (offline.run.run_id, offline.run.run_group, offline.run.job_type) == (model.id, "rates", "train")
        assert offline.exit_code == 0

        assert (kept.data.params["task/learning_rate"], kept.data.params["trainer/max_epochs"]) == (
            str(rate),
            str(epochs),
        )
        assert kept.data.tags["skyloom.job_type"] == "train"
        assert kept.info.status == "FINISHED"

        last = {name: f"{values['last']:.9g}" for name, values in row["numbers"].items()}
        assert "train/loss" in last
        assert {name: f"{offline.summary[name]:.9g}" for name in last} == last
        assert {name: f"{kept.data.metrics[name]:.9g}" for name in last} == last
    assert len({row["value"] for row in rows.values()}) == 4


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
