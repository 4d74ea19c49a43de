"""A job whose time runs out on a real Slurm: Slurm itself announces the end, and the fit goes on in another start."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from make.tiny_command import TRAIN, overrides
from skyloom.run.notebook import compose
from skyloom.run.verbs import call
from skyloom.store import Store

EPOCHS = 20
SAME = ("model.safetensors", "metrics.csv", "last.ckpt")
# A minute is the least that Slurm takes; it announces the end up to 30 s earlier than it was asked to, so 20 to 50 s
# after the start, which is later than the handler of a job is in its place.
LAUNCHER = (
    "hydra/launcher=slurm_cpu", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2",
    "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=10",
    "hydra.launcher.setup=['export OMP_NUM_THREADS=1']",
)  # fmt: skip


@pytest.fixture
def start(slurm, tmp_path):
    """Start the fit in a job; the command, and the file of its rows."""
    started = []

    def start(*words):
        fit = overrides(tmp_path, max_epochs=EPOCHS)
        started.append(
            subprocess.Popen(
                [sys.executable, TRAIN, *fit, *LAUNCHER, *words], cwd=tmp_path, env=slurm.environment(), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
    slurm.run("scancel", "--quiet", "--partition=main", check=False)


def test_a_job_whose_time_runs_out_ends_as_one_that_had_all_the_time(start, slurm, tmp_path):
    command = start()
    job, pid = half_way(command, slurm, tmp_path)
    os.kill(pid, signal.SIGSTOP)  # instead of a fit of a minute: Slurm wakes whom it announces the end to
    whole = undisturbed(tmp_path / "whole")
    out, errors = command.communicate(timeout=240)
    assert command.returncode == 0, errors
    model = Store(tmp_path / "store").open(out.split()[-1])
    assert model.id == whole.id
    assert model.history["attempts"] >= 2
    assert int(slurm.job(job)["Restarts"]) >= 1
    (log,) = (tmp_path / "runs").rglob("*_0_log.err")
    assert "this job is timed-out" in log.read_text()
    assert {name: model.file(name).read_bytes() for name in SAME} == {n: whole.file(n).read_bytes() for n in SAME}
    rows = model.file("metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[1]) for row in rows] == list(range(5 * EPOCHS))


def test_a_job_that_ran_out_of_time_too_often_is_named_and_has_saved(start, slurm, tmp_path):
    command = start("hydra.launcher.max_num_timeout=0", "hydra.launcher.timeout_min=9")
    job, _ = half_way(command, slurm, tmp_path)
    slurm.run("scancel", "--signal=USR2", job)
    out, errors = command.communicate(timeout=120)
    assert (command.returncode, out) == (2, "")
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: run 0: ")
    assert "timed-out too many times" in last
    assert "the same command goes on" in last
    assert slurm.job(job)["JobState"] == "FAILED", "the queue knows it too"
    assert list((tmp_path / "store" / ".partial").glob("model-*/last.ckpt"))


def half_way(command, slurm, tmp_path):
    """Wait for some rows of the fit; its job, and the process that computes."""
    partial = tmp_path / "store" / ".partial"
    while not any(len(file.read_text().splitlines()) > 10 for file in partial.glob("model-*/metrics.csv")):
        assert command.poll() is None, command.communicate()
        time.sleep(0.05)
    (job,) = [job["JobId"] for job in slurm.jobs() if job["JobState"] == "RUNNING"]
    for folder in Path("/proc").iterdir():
        words = words_of(folder) if folder.name.isdecimal() else []
        if b"submitit.core._submit" in words and b"srun" not in words[0]:
            environment = (folder / "environ").read_bytes().split(b"\0")
            if f"SLURM_CONF={slurm.env['SLURM_CONF']}".encode() in environment and b"SLURM_PROCID=0" in environment:
                return job, int(folder.name)
    raise AssertionError(f"job {job} has no process")


def words_of(process):
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return []


def undisturbed(folder):
    """The same fit in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call("train", compose("train", overrides(folder, max_epochs=EPOCHS)))
    finally:
        torch.set_num_threads(threads)
