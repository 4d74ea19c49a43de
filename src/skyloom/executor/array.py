"""A submitted job array: which of its jobs have ended, how, and where their logs are."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyloom.errors import ConfigError
from skyloom.executor import queue
from skyloom.executor.build import SlurmOptions
from skyloom.executor.job import Failure, PieceJob

SIGNAL_S = 60  # warning before the time limit: nothing has to be saved


@dataclass(frozen=True)
class Place:
    """Where jobs belong.

    Attributes
    ----------
    name
        Of the jobs.
    logs
        Folder of their logs.
    code
        Folder with the copy of the package that they run.
    pieces
        Folder in which pieces appear.
    """

    name: str
    logs: Path
    code: Path
    pieces: Path


class Array:
    """Jobs that were submitted together.

    Parameters
    ----------
    jobs
        submitit's, in the order of ``groups``.
    groups
        Keys of the pieces of each.
    """

    def __init__(self, jobs: Sequence[Any], groups: Sequence[Sequence[str]]) -> None:
        self._jobs = dict(zip((str(job.job_id) for job in jobs), zip(jobs, groups, strict=True), strict=True))
        self._gone: dict[str, int] = {}
        self._told: dict[str, tuple[list[Failure], str]] = {}
        self.id = next(iter(self._jobs)).partition("_")[0]
        self.logs = Path(jobs[0].paths.folder)

    def left(self) -> set[str]:
        """Ids of the jobs that have not ended: they are in the queue, or were a moment ago and have left no result."""
        here = queue.active()
        for id in self._jobs:
            self._gone[id] = 0 if id in here else self._gone.get(id, 0) + 1
            self._result(id)
        return {id for id, gone in self._gone.items() if gone == 0 or (gone == 1 and id not in self._told)}

    def has_final_failure(self) -> bool:
        """Whether a job has met an error that no other attempt would change."""
        return any(failure.final for failures, _ in self._told.values() for failure in failures)

    def ends(self) -> Iterator[tuple[Sequence[str], list[Failure], str]]:
        """Of each job the keys, what failed, and in words why pieces may be missing, with the log."""
        for id, (job, keys) in self._jobs.items():
            failures, broken = self._result(id)
            if failures:
                text = f"{failures[0].error}: {' '.join(failures[0].text.split())}"
            else:
                text = broken or f"job {id} died: {queue.state_of(id) or 'Slurm does not say why'}"
            yield keys, failures, f"{text}; its log: {job.paths.stderr}"

    def tidy(self) -> None:
        """Remove what was only for the jobs; their logs stay."""
        for job, _ in self._jobs.values():
            for path in (job.paths.submitted_pickle, job.paths.result_pickle):
                path.unlink(missing_ok=True)

    def _result(self, id: str) -> tuple[list[Failure], str]:
        """Failed pieces of a job, and what broke the job itself; nothing while it has left no result."""
        path = self._jobs[id][0].paths.result_pickle
        if id not in self._told and path.exists():
            from submitit.core.utils import pickle_load

            outcome, result = pickle_load(path)
            good = outcome == "success"
            self._told[id] = (list(result), "") if good else ([], f"job {id}: {str(result).strip().splitlines()[-1]}")
        return self._told.get(id, ([], ""))


def submit(
    options: SlurmOptions,
    place: Place,
    groups: Sequence[Mapping[str, Any]],
    make: Callable[[Path, Any], None],
) -> Array:
    """Submit a job for each group of pieces, all as one array.

    Parameters
    ----------
    options
        What the jobs ask for.
    place
        Name and folders.
    groups
        Tasks by key.
    make
        Makes a piece.

    Raises
    ------
    ConfigError
        submitit is not installed, or Slurm refuses the jobs.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    except ImportError as error:
        raise ConfigError("executor=slurm needs submitit: pip install 'skyloom[slurm]'") from error
    jobs = [PieceJob(place.pieces, group, make) for group in groups]
    try:
        with queue.own_environment():
            executor = submitit.SlurmExecutor(folder=place.logs, max_num_timeout=0)  # retries are counted in one place
            executor.update_parameters(**_parameters(options, place))
            submitted = executor.submit_array(jobs)
    except (FailedJobError, FailedSubmissionError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"Slurm does not take the jobs (options executor.*): {text}") from error
    return Array(submitted, [list(group) for group in groups])


def _parameters(options: SlurmOptions, place: Place) -> dict[str, Any]:
    """Options in submitit's words."""
    path = f'export PYTHONPATH={shlex.quote(str(place.code))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    given = {
        "job_name": place.name,
        "time": options.timeout_min,
        "mem": f"{max(1, round(options.mem_gb * 1024))}MB",
        "cpus_per_task": options.cpus,
        "gpus_per_node": options.gpus or None,
        "ntasks_per_node": 1,
        "nodes": 1,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "array_parallelism": options.parallel_jobs,
        "signal_delay_s": SIGNAL_S,
        "setup": [f"export OMP_NUM_THREADS={options.cpus}", path, *options.setup],
        "additional_parameters": {"requeue": True, **options.additional},  # preempted jobs, and those of a lost node
    }
    return {key: value for key, value in given.items() if value is not None}
