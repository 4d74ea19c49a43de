"""Where the processes that Slurm or torchrun have started meet: a folder in which rank 0 leaves what there is to do."""

import json
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skyloom import errors
from skyloom.errors import SkyloomError, StoreError
from skyloom.trainer.distributed.ranks import Rank

BEAT_S = 1.0  # between two signs of life of rank 0
POLL_S = 0.1  # between two looks of another process
START_S = 600.0  # for rank 0 to appear: its machine may load Python from a slow disk
LOST_S = 300.0  # without a sign of life, after which rank 0 is taken for dead; shared disks show files late
GRACE_S = 60.0  # for a process to notice by itself that another is gone; NCCL may not
LEAVE_S = 10.0  # for the others to see the end before the folder goes
BEAT, END = "beat", "end"

_leader: "Leader | None" = None


def leader() -> "Leader | None":
    """The meeting that this process leads as rank 0, if it does."""
    return _leader


class Leader:
    """Rank 0: leaves work for the others, and hears what has become of it.

    Parameters
    ----------
    rank
        Of this process.
    folder
        On a disk that all of them see; nobody else may read or write there, since it holds pickles.
    """

    def __init__(self, rank: Rank, folder: Path) -> None:
        self.rank, self.folder = rank, folder
        self._token, self._posted = secrets.token_hex(8), 0
        self._closed, self._working = threading.Event(), False

    def post(self, content: bytes) -> None:
        """Leave a pickled ``(work, arguments)`` for the others."""
        write(self.folder / f"{self._token}-{self._posted}.job", content)
        self._posted, self._working = self._posted + 1, True

    def finished(self, wait_s: float) -> bool:
        """Wait for the others to end the work posted last; whether all have done it."""
        self._working = False
        wanted = {f"done-{self._posted - 1}-{rank}" for rank in range(1, self.rank.size)}
        end = time.monotonic() + wait_s
        while not wanted <= (there := names(self.folder)):
            if time.monotonic() > end or any(name.startswith("failed-") for name in there):
                return False
            time.sleep(POLL_S)
        return True

    def failure(self, wait_s: float = 0.0) -> SkyloomError | None:
        """Why another process has failed, if one has said so."""
        end = time.monotonic() + wait_s
        while True:
            for name in sorted(names(self.folder)):
                if name.startswith("failed-"):
                    kind, text = json.loads((self.folder / name).read_text())
                    found: SkyloomError = getattr(errors, kind, StoreError)(text)
                    return found
            if time.monotonic() >= end:
                return None
            time.sleep(POLL_S)

    def open(self) -> None:
        """Make the folder and give signs of life in it."""
        shutil.rmtree(self.folder, ignore_errors=True)  # of an earlier attempt
        self.folder.mkdir(parents=True, mode=0o700)
        self._beat(0)
        threading.Thread(target=self._live, daemon=True).start()

    def close(self) -> None:
        """Send the others home and clean up."""
        self._closed.set()
        with suppress(OSError):
            write(self.folder / END, b"")
        wanted = {f"left-{rank}" for rank in range(1, self.rank.size)}
        end = time.monotonic() + LEAVE_S
        while not wanted <= names(self.folder) and time.monotonic() < end:
            time.sleep(POLL_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _beat(self, number: int) -> None:
        write(self.folder / BEAT, f"{self._token} {number}".encode())

    def _live(self) -> None:
        number, failed_at = 0, None
        while not self._closed.wait(BEAT_S):
            number += 1
            with suppress(OSError):
                self._beat(number)
            if self._working and (failed := self.failure()):
                failed_at = failed_at or time.monotonic()
                if time.monotonic() - failed_at > GRACE_S:  # rank 0 waits in vain for one that has ended
                    print(f"error: {failed}", file=sys.stderr, flush=True)
                    os._exit(2)


@contextmanager
def lead(rank: Rank, folder: Path) -> Iterator[Leader]:
    """Be rank 0 while the ``with`` lasts: fits within it are shared with the other processes."""
    global _leader
    mine = Leader(rank, folder)
    mine.open()
    _leader = mine
    try:
        yield mine
    finally:
        _leader = None
        mine.close()


def names(folder: Path) -> set[str]:
    """Names in a folder; empty when it is gone. Listing asks a shared disk anew, looking for one name may not."""
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()


def write(path: Path, content: bytes) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    temporary = path.with_name(f".tmp-{path.name}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    temporary.replace(path)
