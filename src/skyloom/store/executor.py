"""Who makes the pieces of a build: what the store asks of an executor, and the one of this machine."""

from pathlib import Path
from typing import Protocol

from skyloom.errors import StoreError
from skyloom.store import parallel
from skyloom.store.pieces import Pieces

JOBS = ".jobs"  # in a partial folder while jobs of a cluster may write its pieces; names them


class Executor(Protocol):
    """Makes the pieces of builds; what comes out is the same with any of them."""

    def processes(self, asked: int) -> int:
        """How many processes work on this machine when a step asks for so many; 0: pieces are made elsewhere."""
        ...

    def stop_earlier(self, partial: Path) -> None:
        """Before anything in a partial folder is read: see that no jobs of an earlier attempt go on writing there."""
        ...

    def make_pieces(self, pieces: Pieces, *, workers: int) -> list[Path]:
        """Make those that are missing; see :meth:`skyloom.store.Build.shards_in_parallel`."""
        ...


class Local:
    """Pieces are made by this process or by others on this machine.

    Parameters
    ----------
    workers
        Processes, whatever the step asks for; None: as many as it asks for.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    def __str__(self) -> str:
        return {None: "processes", 1: "serial"}.get(self.workers, f"{self.workers} processes")

    def processes(self, asked: int) -> int:
        """As many as were asked for, or the number given."""
        return self.workers or asked

    def stop_earlier(self, partial: Path) -> None:
        """Refuse to go on beside jobs of a cluster.

        Raises
        ------
        StoreError
            An earlier attempt with ``executor=slurm`` was killed before it could end its jobs.
        """
        if (mark := partial / JOBS).exists():
            name = mark.read_text().strip()
            raise StoreError(
                f"jobs of an earlier attempt may still write to {partial}: give the command with executor=slurm again, "
                f"or end them with 'scancel --name={name}' and remove {mark}"
            )

    def make_pieces(self, pieces: Pieces, *, workers: int) -> list[Path]:
        """Make the pieces here; see :func:`skyloom.store.parallel.make_pieces`."""
        return parallel.make_pieces(pieces, workers=self.processes(workers))
