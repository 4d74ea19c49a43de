"""Pieces made by Slurm job arrays: retried where jobs die, named where they fail, never made by two jobs at once."""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from skyloom import errors
from skyloom.errors import SkyloomError, StoreError
from skyloom.executor import queue
from skyloom.executor.array import Array, Place, submit
from skyloom.executor.build import SlurmOptions
from skyloom.executor.code import copied_code
from skyloom.executor.job import Failure
from skyloom.progress import say
from skyloom.store.executor import JOBS
from skyloom.store.pieces import Pieces


class Slurm:
    """Makes the pieces of builds in job arrays.

    Parameters
    ----------
    options
        Keys of conf/executor/slurm.yaml.
    """

    def __init__(self, options: SlurmOptions) -> None:
        self.options = options

    def __str__(self) -> str:
        return f"slurm, {self.options.pieces_per_job} pieces per job"

    def processes(self, asked: int) -> int:
        """None on this machine."""
        return 0

    def stop_earlier(self, partial: Path) -> None:
        """End the jobs of an attempt that was killed: what they have finished is kept."""
        mark = partial / JOBS
        if mark.exists():
            queue.require_slurm()
            if ended := queue.end_all(mark.read_text().strip()):
                _say(f"ended {ended} jobs of an earlier attempt")
            mark.unlink()

    def make_pieces(self, pieces: Pieces, *, workers: int) -> list[Path]:
        """Make those that are missing; ``workers`` is not read.

        Raises
        ------
        ConfigError
            Slurm or submitit is not here, or Slurm refuses the jobs.
        StoreError
            A piece has failed too often; names it, its last job's end and log. An error that a user can mend is raised
            as the job met it.
        """
        pieces = replace(pieces, partial=pieces.partial.absolute(), folder=pieces.folder.absolute())
        there = _names(pieces.folder)
        for _ in there & set(pieces.tasks):
            pieces.done()
        missing = [key for key in pieces.tasks if key not in there]
        if missing:
            queue.require_slurm()
            logs = Path(self.options.folder).absolute()
            with self._marked(pieces.partial) as name, copied_code(logs / name) as code:
                self._rounds(Place(name, logs / name, code, pieces.folder), pieces, missing)
        return pieces.paths()

    @contextmanager
    def _marked(self, partial: Path) -> Iterator[str]:
        """While jobs may write to a partial folder it says so; whatever happens, none is left running."""
        digest = hashlib.sha256(str(partial.absolute()).encode()).hexdigest()
        name, mark = f"skyloom-{partial.name}-{digest[:8]}", partial / JOBS
        mark.write_text(name)
        try:
            yield name
        finally:
            queue.end_all(name)
            mark.unlink(missing_ok=True)

    def _rounds(self, place: Place, pieces: Pieces, missing: list[str]) -> None:
        tasks, wanted = pieces.tasks, len(missing)
        why, per_job = dict[str, str](), self.options.pieces_per_job
        for attempt in range(1 + self.options.retries):
            per_job = max(per_job, math.ceil(len(missing) / self.options.max_jobs))
            groups = [missing[start : start + per_job] for start in range(0, len(missing), per_job)]
            if attempt:
                _say(f"{len(missing)} pieces are missing, the first: {pieces.name(missing[0])}, "
                     f"{why.get(missing[0], 'not begun')}; attempt {attempt + 1}")  # fmt: skip
            array = submit(self.options, place, [{key: tasks[key] for key in group} for group in groups], pieces.make)
            _say(f"{len(missing)} pieces in {len(groups)} jobs of {per_job}: Slurm {array.id}, logs in {array.logs}")
            self._watch(array, place.pieces, set(missing), pieces.done)
            ends = list(array.ends())
            array.tidy()
            why = {key: text for keys, failures, text in ends for key in keys if key in missing}
            _raise_final(failure for _, failures, _ in ends for failure in failures if failure.final)
            there = _names(place.pieces)
            missing = [key for key in missing if key not in there]
            if not missing:
                return
            per_job = 1  # one that takes its job down with it does so alone
        raise StoreError(
            f"piece {missing[0]} ({pieces.name(missing[0])}) failed in {1 + self.options.retries} attempts: "
            f"{why.get(missing[0], 'its job has left no trace')}; {len(missing)} of {wanted} pieces are missing, "
            "all others are kept: mend the cause and give the same command again"
        )

    def _watch(self, array: Array, folder: Path, missing: set[str], done: Callable[[], None]) -> None:
        """Wait until the jobs of an array have ended, and count pieces as they appear."""
        stopping = False
        while True:
            left = array.left()
            there = _names(folder) & missing
            for _ in there:
                done()
            missing -= there
            if not left:
                return
            if not stopping and array.has_final_failure():
                stopping = True  # jobs under way are finished, not thrown away
                queue.cancel([array.id], waiting_only=True)
            time.sleep(self.options.poll_s)


def _names(folder: Path) -> set[str]:
    """What is in a folder; listing it also refreshes what a network file system remembers of it."""
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def _raise_final(failures: Iterable[Failure]) -> None:
    """Raise the error of the first piece that no other attempt would change."""
    for failure in sorted(failures, key=lambda one: one.key):
        kind = getattr(errors, failure.error, SkyloomError)
        raise kind(failure.text)


def _say(text: str) -> None:
    say(f"executor=slurm: {text}")
