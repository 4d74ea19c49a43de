"""What is asked of Slurm's commands, against stand-ins on PATH."""

import os

import pytest

from skyloom.errors import ConfigError, StoreError
from skyloom.executor import queue


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Writes a stand-in for a command; all that they are asked is in ``asked``."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def write(name, script):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "{name} $@" >> {tmp_path}/asked\n{script}\n')
        path.chmod(0o755)

    return write


def test_without_slurm_the_choice_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"sbatch and squeue and scancel and srun not found.*executor=processes"):
        queue.require_slurm()


def test_ids_of_arrays_are_told_apart(commands, tmp_path):
    commands("squeue", "echo 12_0; echo 12_1; echo 15")
    assert queue.active() == {"12_0", "12_1", "15"}
    queue.active(name="skyloom-x")
    assert (tmp_path / "asked").read_text().splitlines()[-1].endswith("--name=skyloom-x")


def test_a_controller_that_restarts_is_asked_again(commands, tmp_path):
    commands("squeue", f"mkdir {tmp_path}/once && exit 1; echo 7")
    waits = []
    assert queue.active(sleep=waits.append) == {"7"}
    assert waits == [queue.WAIT_S]


def test_a_controller_that_is_gone_is_told_and_jobs_go_on(commands):
    commands("squeue", "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1")
    waits = []
    with pytest.raises(StoreError, match=r"squeue does not answer \(slurm_load_jobs error.*the jobs go on"):
        queue.active(sleep=waits.append)
    assert len(waits) == queue.TRIES - 1


def test_all_jobs_of_a_name_are_ended_and_arrays_as_one(commands, tmp_path):
    commands("squeue", f"[ -e {tmp_path}/cancelled ] || printf '12_0\\n12_1\\n15\\n'")
    commands("scancel", f"touch {tmp_path}/cancelled")
    assert queue.end_all("skyloom-x", poll_s=0) == 3
    asked = [line for line in (tmp_path / "asked").read_text().splitlines() if line.startswith("scancel")]
    assert asked == ["scancel --quiet 12 15", "scancel --quiet --signal=KILL 12 15"]


def test_jobs_that_do_not_end_are_told(commands):
    commands("squeue", "echo 12_0")
    commands("scancel", "true")
    with pytest.raises(StoreError, match=r"1 jobs named skyloom-x do not end \(scancel --name=skyloom-x\)"):
        queue.end_all("skyloom-x", wait_s=0, poll_s=0)


def test_a_new_job_does_not_inherit_what_the_present_one_is_told(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    with queue.own_environment():
        assert "SLURM_JOB_ID" not in os.environ
        assert os.environ["SLURM_CONF"] == "/etc/slurm.conf"
    assert os.environ["SLURM_JOB_ID"] == "3"
