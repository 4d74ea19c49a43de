"""The local Slurm of the tests does what theirs rests on: tasks, GPUs, requeue, preemption, signals, its own sacct."""

import os
import signal
import time

import pytest

from make.slurm import cluster


def test_several_tasks_know_their_ranks_and_gpus(slurm, tmp_path):
    job = slurm.sbatch(
        "srun bash -c 'echo rank $SLURM_PROCID of $SLURM_NTASKS'\necho gpus $SLURM_GPUS_ON_NODE",
        "--ntasks-per-node=2", "--gpus-per-node=2", cwd=tmp_path,
    )  # fmt: skip
    assert slurm.wait(job) == "COMPLETED"
    lines = (tmp_path / f"slurm-{job}.out").read_text().splitlines()
    assert sorted(lines) == ["gpus 2", "rank 0 of 2", "rank 1 of 2"]


def test_requeued_job_starts_again_under_its_id(slurm, tmp_path):
    script = 'echo start $SLURM_RESTART_COUNT >> starts\n[ "$SLURM_RESTART_COUNT" ] || sleep 60'
    job = slurm.sbatch(script, cwd=tmp_path)
    slurm.wait(job, states=("RUNNING",))
    while not (tmp_path / "starts").exists():
        time.sleep(0.1)
    slurm.requeue(job)
    assert slurm.wait(job, states=("COMPLETED",), timeout_s=60) == "COMPLETED"
    assert (tmp_path / "starts").read_text().split() == ["start", "start", "1"]
    assert slurm.job(job)["Restarts"] == "1"


def test_failed_and_cancelled_jobs_are_told_apart_also_by_sacct(slurm, tmp_path):
    failed = slurm.sbatch("exit 3", cwd=tmp_path)
    cancelled = slurm.sbatch("sleep 60", cwd=tmp_path)
    slurm.run("scancel", cancelled)
    assert (slurm.wait(failed), slurm.wait(cancelled)) == ("FAILED", "CANCELLED")
    assert slurm.job(failed)["ExitCode"] == "3:0"
    answer = slurm.run("sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", failed, "-j", cancelled).stdout
    rows = dict(line.split("|")[:2] for line in answer.splitlines()[1:])
    assert rows == {failed: "FAILED", cancelled: "CANCELLED"}


def test_held_jobs_wait(slurm, tmp_path):
    slurm.hold()
    try:
        job = slurm.sbatch("true", cwd=tmp_path)
        time.sleep(1)
        assert slurm.state(job) == "PENDING"
    finally:
        slurm.release()
    assert slurm.wait(job) == "COMPLETED"


def test_an_urgent_job_preempts_and_the_preempted_one_goes_on_afterwards(slurm, tmp_path):
    low = slurm.sbatch(
        'echo start >> low\n[ "$SLURM_RESTART_COUNT" ] || sleep 60', f"--cpus-per-task={slurm.cpus}", cwd=tmp_path
    )
    slurm.wait(low, states=("RUNNING",))
    high = slurm.sbatch("true", "--partition=urgent", cwd=tmp_path)
    assert slurm.wait(high, timeout_s=60) == "COMPLETED"
    assert slurm.wait(low, timeout_s=60) == "COMPLETED"
    assert slurm.job(low)["Restarts"] == "1"


def test_it_leaves_nothing_behind():
    with cluster() as running:
        folder, pids = running.folder, [daemon.pid for daemon in running._daemons]
        job = running.sbatch("sleep 1000", cwd=folder)
        running.wait(job, states=("RUNNING",))
    assert not folder.exists()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)
