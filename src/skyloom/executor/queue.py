"""What Slurm's own commands say of this user's jobs; without accounting, as sites without it have them."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from skyloom.errors import ConfigError, StoreError

TRIES, WAIT_S = 10, 30.0  # a controller that does not answer is asked again: it may be restarted for minutes
KEPT = {"SLURM_CONF", "SLURM_CLUSTERS"}  # say which cluster; all others are about the job that asks
OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")


def require_slurm() -> None:
    """Check that jobs can be submitted from this machine.

    Raises
    ------
    ConfigError
        Slurm's commands are not there.
    """
    if absent := [name for name in ("sbatch", "squeue", "scancel", "srun") if shutil.which(name) is None]:
        raise ConfigError(
            f"executor=slurm: {' and '.join(absent)} not found on this machine; run it where jobs are submitted, or "
            "choose executor=processes"
        )


def active(*, name: str | None = None, sleep: Callable[[float], None] = time.sleep) -> set[str]:
    """Ids (``12`` or ``12_3``) of this user's jobs that wait, run or end just now; all, or those of a name.

    Raises
    ------
    StoreError
        The controller does not answer for minutes.
    """
    words = ["squeue", "--me", "--noheader", "--array", "--format=%i", *([f"--name={name}"] if name else [])]
    told = ""
    for left in reversed(range(TRIES)):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return set(done.stdout.split())
        told = " ".join(done.stderr.split())
        if left:
            sleep(WAIT_S)
    raise StoreError(f"squeue does not answer ({told}); the jobs go on, give the same command again later")


def cancel(jobs: list[str], *, waiting_only: bool = False) -> None:
    """Cancel jobs; running ones are killed at once, for their half-written pieces have temporary names.

    Parameters
    ----------
    jobs
        Ids; that of an array stands for all its tasks.
    waiting_only
        Leave running jobs alone.
    """
    if not jobs:
        return
    _quietly("scancel", "--state=PENDING" if waiting_only else "--quiet", *jobs)
    if not waiting_only:
        _quietly("scancel", "--quiet", "--signal=KILL", *jobs)


def end_all(name: str, *, wait_s: float = 300.0, poll_s: float = 2.0) -> int:
    """Cancel all jobs of a name and wait until they are gone; returns how many there were.

    Raises
    ------
    StoreError
        Some are still there after ``wait_s``.
    """
    found = active(name=name)
    end = time.monotonic() + wait_s
    left = found
    while left:
        cancel(sorted({job.partition("_")[0] for job in left}))
        time.sleep(min(poll_s, wait_s))
        left = active(name=name)
        if left and time.monotonic() > end:
            raise StoreError(f"{len(left)} jobs named {name} do not end (scancel --name={name}); try again later")
    return len(found)


def state_of(job: str) -> str:
    """What Slurm still remembers of a job that has ended, as ``OUT_OF_MEMORY (0:125)``; empty if nothing."""
    done = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=False)
    facts = dict(re.findall(r"(\S+?)=(\S*)", done.stdout.partition("\n")[0])) if done.returncode == 0 else {}
    return f"{facts['JobState']} ({facts.get('ExitCode', '?')})" if "JobState" in facts else ""


@contextmanager
def own_environment() -> Iterator[None]:
    """Hide what the job in which this process may run says about itself, so that new jobs do not inherit it."""
    aside = {key: os.environ[key] for key in os.environ if key.startswith(OF_A_JOB) and key not in KEPT}
    for key in aside:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(aside)


def _quietly(*words: str) -> None:
    subprocess.run(words, capture_output=True, check=False)
