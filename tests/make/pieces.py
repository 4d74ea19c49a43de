"""Pieces of work for builds with several processes; worker processes import them from here."""

import os
import signal
import time
from pathlib import Path

import skyloom
from skyloom.errors import InputError
from skyloom.store import Build, builds


def square(path: Path, number: int) -> None:
    """Write the square of a number, and beside the build the process that did it."""
    folder = path.parents[3] / "who"
    folder.mkdir(exist_ok=True)
    (folder / f"{number}-{os.getpid()}").touch()
    path.write_text(str(number**2))


def fail_at_three(path: Path, number: int) -> None:
    """Refuse the number 3, and break at 4."""
    if number == 3:
        raise InputError("number 3 cannot be squared")
    if number == 4:
        raise ZeroDivisionError("four")
    square(path, number)


def tell_code(path: Path, number: int) -> None:
    """Tell which copy of the package this process runs."""
    (path.parents[3] / f"code-of-{number}").write_text(skyloom.__file__)
    square(path, number)


def fail_at_four(path: Path, number: int) -> None:
    """Break at 4, always."""
    if number == 4:
        raise ZeroDivisionError("four")
    square(path, number)


def killed_once(path: Path, number: int) -> None:
    """Die as the system's out-of-memory killer makes a process die, the first time that 2 comes along."""
    mark = path.parents[3] / "killed"
    if number == 2 and not mark.exists():
        time.sleep(0.3)  # lets 0 and 1 be finished
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    square(path, number)


def slow(path: Path, number: int) -> None:
    """Tell that this process has begun, then take a minute."""
    (path.parents[3] / f"begun-{os.getpid()}").touch()
    time.sleep(60)


def slow_once(path: Path, number: int) -> None:
    """Take a minute over the number 1, but only the first time that it comes along."""
    mark = path.parents[3] / "begun-once"
    if number == 1 and not mark.exists():
        mark.touch()
        time.sleep(60)
    square(path, number)


@builds("numbers", version=1, free=("workers",), pieces=True)
def squares(build: Build, *, numbers: int, make: str, workers: int) -> None:
    """Join the squares of the numbers below ``numbers``."""
    tasks = {f"{i:03d}": i for i in range(numbers)}
    done = []
    pieces = build.shards_in_parallel(
        tasks, globals()[make], workers=workers, done=lambda: done.append(1), describe=lambda i: f"number {i}"
    )
    build.write_json("squares.json", [int(piece.read_text()) for piece in pieces])
    build.note(done=len(done))
