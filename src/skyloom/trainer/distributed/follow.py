"""What a process that is not rank 0 does: it waits in the folder of the meeting for work, and for the end."""

import json
import os
import pickle
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from skyloom.errors import SkyloomError, StoreError
from skyloom.trainer.distributed import rendezvous as meeting
from skyloom.trainer.distributed.ranks import Rank


def follow(rank: Rank, folder: Path) -> None:
    """Be another process than rank 0: do what that leaves, until it has ended.

    Raises
    ------
    StoreError
        Rank 0 has not appeared, or has gone.
    SkyloomError
        Of the work; rank 0 is told.
    """
    pulse = _Pulse(folder, rank)
    token, number = pulse.wait(), 0
    try:
        while True:
            names = meeting.names(folder)
            if f"{token}-{number}.job" in names:
                _take_part(rank, folder, token, number, pulse)
                number += 1
            elif meeting.END in names or not names:
                return
            else:
                pulse.check()
                time.sleep(meeting.POLL_S)
    finally:
        with suppress(OSError):
            meeting.write(folder / f"left-{rank.rank}", b"")


def _take_part(rank: Rank, folder: Path, token: str, number: int, pulse: "_Pulse") -> None:
    work: Callable[[Any, Rank], None]
    file, ended = folder / f"{token}-{number}.job", threading.Event()
    if file.stat().st_uid != os.getuid():
        raise StoreError(f"{file} belongs to somebody else; it is not read, since it could run any code")
    threading.Thread(target=pulse.watch, args=(ended,), daemon=True).start()
    try:
        work, arguments = pickle.loads(file.read_bytes())  # written by rank 0, this user's
        work(arguments, rank)
    except Exception as error:
        kind = type(error).__name__ if isinstance(error, SkyloomError) else StoreError.__name__
        said = " ".join(str(error).split())[:300]
        text = said if isinstance(error, SkyloomError) else f"{type(error).__name__}: {said}"
        report = json.dumps([kind, f"process {rank.rank} of the fit: {text}"])
        meeting.write(folder / f"failed-{rank.rank}", report.encode())
        raise
    finally:
        ended.set()
    meeting.write(folder / f"done-{number}-{rank.rank}", b"")


class _Pulse:
    """Signs of life of rank 0, as another process sees them: it compares no clocks, only what it has seen."""

    def __init__(self, folder: Path, rank: Rank) -> None:
        self.folder, self.rank = folder, rank
        self._said, self._seen = self._read(), time.monotonic()

    def wait(self) -> str:
        """Token of the rank 0 that lives now; what one of an earlier attempt has left does not change."""
        while not self._moved():
            if time.monotonic() - self._seen > meeting.START_S:
                raise StoreError(
                    f"process {self.rank.rank} of {self.rank.size} has waited {meeting.START_S:.0f} s in {self.folder} "
                    "for rank 0; paths.runs must be a folder that all machines of the job see"
                )
            time.sleep(meeting.POLL_S)
        return self._said.split()[0]

    def check(self) -> None:
        """Raise when rank 0 is gone."""
        if not self._moved() and time.monotonic() - self._seen > meeting.LOST_S:
            raise StoreError(
                f"rank 0 has not been heard of for {meeting.LOST_S:.0f} s ({self.folder}); it must have died"
            )

    def watch(self, ended: threading.Event) -> None:
        """End this process, which may wait in vain, when rank 0 is gone."""
        end_seen: float | None = None
        while not ended.wait(meeting.BEAT_S):
            self._moved()
            names = meeting.names(self.folder)
            if meeting.END in names or not names:
                end_seen = end_seen or time.monotonic()
            now = time.monotonic()
            if now - self._seen > meeting.LOST_S or (end_seen and now - end_seen > meeting.GRACE_S):
                os._exit(1)

    def _moved(self) -> bool:
        said = self._read()
        if said in ("", self._said):
            return False
        self._said, self._seen = said, time.monotonic()
        return True

    def _read(self) -> str:
        try:
            return (self.folder / meeting.BEAT).read_text()
        except OSError:
            return ""
