"""The end of a sweep on a cluster: what became of each of its jobs, and the exit code that the queue sees of one."""

import atexit
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

RESULT_FILE = "result.json"  # in the folder of each run; report/compare/run_folders.py reads it too
ASK_S = 2.0  # between two looks at the queue
JOBS = ".submitit"  # folder of the jobs' logs within that of a sweep, as conf/hydra/launcher has it
_exit_code = 0


@dataclass(frozen=True)
class End:
    """Of one job of a sweep.

    Attributes
    ----------
    run : str
        Its folder: the number of the run in the sweep; empty when it ended before it had one.
    id : str
        The artifact that it made; empty when it failed.
    error : str
        Why it failed, in one line.
    """

    run: str
    id: str
    error: str


def write(folder: str | Path, *, verb: str, kind: str = "", id: str = "", error: str = "") -> None:
    """Note in the folder of a run (Hydra's output folder) what it made, or why not; an earlier note is replaced."""
    partial = Path(folder) / f".{RESULT_FILE}.{os.getpid()}"
    partial.parent.mkdir(parents=True, exist_ok=True)
    note = {"verb": verb, "kind": kind or None, "id": id or None, "error": error or None}
    partial.write_text(json.dumps(note, ensure_ascii=False) + "\n")
    partial.replace(partial.with_name(RESULT_FILE))


def in_job() -> bool:
    """Whether submitit has started this process."""
    return bool(os.environ.get("SUBMITIT_EXECUTOR"))


def end_job_with(code: int) -> None:
    """Let this job end with an exit code that the queue shows: to submitit every job that has answered is a success."""
    global _exit_code
    _exit_code = code


def submitted(sweep: Path) -> list[str]:
    """Jobs of a sweep, as ``12_0``, in the order of its runs."""
    names = [path.name for path in (sweep / JOBS).glob("*") if path.is_dir() and path.name.replace("_", "").isdecimal()]
    names = [
        name for name in names if not any(other.startswith(f"{name}_") for other in names)
    ]  # an array's own folder
    return sorted(names, key=lambda name: [int(part) for part in name.split("_")])


def ends(sweep: Path) -> list[End]:
    """What the jobs of a sweep have left, in the order of its runs; waits for those that are still in the queue.

    Parameters
    ----------
    sweep
        ``hydra.sweep.dir``.
    """
    jobs = submitted(sweep)
    _wait_for(jobs)
    found = []
    for number, job in enumerate(jobs):
        log = sweep / JOBS / job / f"{job}_0_log.err"
        file = sweep / str(number) / RESULT_FILE
        facts = json.loads(file.read_text()) if file.exists() else {}
        if facts.get("id"):
            found.append(End(str(number), str(facts["id"]), ""))
        elif error := facts.get("error"):
            found.append(End(str(number), "", f"{error} (log: {log})"))
        elif not (answer := sweep / JOBS / job / f"{job}_0_result.pkl").exists():
            why = "ended without a word: cancelled, killed, or out of memory or time"
            found.append(End(str(number), "", f"job {job} {why}; the same command goes on with it (log: {log})"))
        else:
            error = _failure(answer)
            found.append(End(str(number), "", f"{error} (log: {log})" if error else ""))
    return found


def _failure(answer: Path) -> str:
    """What broke a job that has answered but made no note, in one line; empty after a dry run."""
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core.utils import pickle_load

    outcome, result = pickle_load(answer)
    if outcome != "success":
        return str(result).strip().splitlines()[-1]  # of a traceback
    if isinstance(result, JobReturn) and result.status == JobStatus.FAILED:
        return " ".join(str(result._return_value).split()) or type(result._return_value).__name__
    return ""


def _wait_for(jobs: list[str]) -> None:
    """Until the queue knows none of these jobs; at once where there is no queue."""
    numbers = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    while numbers:
        try:
            done = subprocess.run(["squeue", "-h", "-j", numbers], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return
        if done.returncode or not done.stdout.strip():
            return  # Slurm calls a job that it has forgotten invalid
        time.sleep(ASK_S)


def _end() -> None:
    if _exit_code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_code)


if in_job():
    atexit.register(_end)  # early, hence after all else that has to be done at the end
