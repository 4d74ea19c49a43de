"""One fit in two tasks of a real Slurm; stopped half-way in either of two ways it ends as if nothing had happened."""

import subprocess
import sys
import time

import pytest

from make.tiny_command import TRAIN, overrides
from skyloom.store import Store

EPOCHS = 20
SAME = ("model.safetensors", "metrics.csv", "last.ckpt")
LAUNCHER = (
    "hydra/launcher=slurm_ddp", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2",
    "hydra.launcher.timeout_min=30", "hydra.launcher.setup=['export OMP_NUM_THREADS=1']",
)  # fmt: skip


def command(tmp_path):
    return [sys.executable, str(TRAIN), *overrides(tmp_path, devices=2, max_epochs=EPOCHS)]


@pytest.fixture(scope="module")
def whole(slurm, tmp_path_factory):
    """A fit in two tasks of a plain batch script that nobody disturbed."""
    tmp_path = tmp_path_factory.mktemp("whole")
    words = " ".join(f"'{word}'" for word in command(tmp_path))
    job = slurm.sbatch(f"export OMP_NUM_THREADS=1\nsrun {words}", "--ntasks=2", "--mem=4000", cwd=tmp_path)
    said = tmp_path / f"slurm-{job}.out"
    assert slurm.wait(job, timeout_s=240) == "COMPLETED", said.read_text()
    text = said.read_text()
    assert "fitting ByolTask on 2 x cpu" in text
    return Store(tmp_path / "store").open(text.splitlines()[-1])


def test_two_tasks_make_one_artifact(whole):
    assert whole.verify() == []
    assert whole.history["attempts"] == 1
    rows = whole.file("metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[1]) for row in rows] == list(range(2 * EPOCHS))


@pytest.mark.parametrize("how", ["requeue", "announcement"])
def test_a_job_that_is_queued_again_half_way_ends_as_one_that_was_not(whole, slurm, tmp_path, how):
    sweep = subprocess.Popen(
        [*command(tmp_path), *LAUNCHER], cwd=tmp_path, env=slurm.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    record = tmp_path / "store" / ".partial" / f"model-{whole.id}" / "metrics.csv"
    while not record.exists() or len(record.read_text().splitlines()) < 10:
        assert sweep.poll() is None, sweep.communicate()
        time.sleep(0.05)
    (job,) = [job["JobId"] for job in slurm.jobs() if job["JobState"] == "RUNNING"]
    if how == "requeue":
        slurm.requeue(job)
    else:  # what Slurm sends before the end of a job's time, or submitit's signal_delay_s before a preemption
        slurm.run("scancel", "--signal=USR2", job)
    out, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, errors
    assert slurm.job(job)["Restarts"] == "1"
    model = Store(tmp_path / "store").open(out.split()[-1])
    assert model.id == whole.id
    assert model.history["attempts"] == 2
    assert {name: model.file(name).read_bytes() for name in SAME} == {n: whole.file(n).read_bytes() for n in SAME}
    assert model.counts == whole.counts
