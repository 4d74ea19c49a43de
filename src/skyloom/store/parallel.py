"""Pieces of a build made by several processes: the same bytes as one after the other, and no orphans."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import connection, current_process, get_context, parent_process
from pathlib import Path
from typing import Any

from skyloom.errors import ConfigError, SkyloomError, StoreError
from skyloom.store.pieces import Pieces, make_piece


def make_pieces(pieces: Pieces, *, workers: int) -> list[Path]:
    """Make the pieces that are missing in so many processes; 1 works in this one."""
    missing = []
    for key, path in zip(pieces.tasks, pieces.paths(), strict=True):
        if path.exists():
            pieces.done()
        else:
            missing.append(key)
    if workers == 1 or len(missing) <= 1:
        for key in missing:
            make = partial(make_piece, pieces.folder / key, pieces.make, pieces.tasks[key])
            _named(key, pieces.name(key), make)
            pieces.done()
    else:
        _in_processes(pieces, missing, min(workers, len(missing)))
    return pieces.paths()


def refuse_starting_worker(what: str) -> None:
    """Refuse to build while a new worker process is still importing the script of the one that started it.

    A script without ``if __name__ == "__main__":`` runs again in each worker. There it would come to the artifact that
    its parent is building, and wait for it, while the parent waits for the worker.
    """
    if getattr(current_process(), "_inheriting", False):  # set by multiprocessing for that time
        raise ConfigError(
            f"a worker process ran the whole script again and came to {what}; in a script that uses several processes, "
            "put the calls into a function and call it below: if __name__ == '__main__':"
        )


def _in_processes(pieces: Pieces, missing: Sequence[str], workers: int) -> None:
    # A forked process would inherit the locks of threads that it does not have; spawned ones start clean.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_die_with_parent)
    keys: dict[Future[None], str] = {}
    try:
        for key in missing:
            keys[pool.submit(make_piece, pieces.folder / key, pieces.make, pieces.tasks[key])] = key
        waiting = set(keys)
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            if any(future.exception() for future in finished):
                pool.shutdown(cancel_futures=True)  # pieces under way are finished, not thrown away
                break
            for _ in finished:
                pieces.done()
    except BrokenProcessPool:
        pass  # every future has it too, and is looked at below
    finally:
        pool.shutdown(cancel_futures=True)
    failed = {key: future for future, key in keys.items() if not future.cancelled() and future.exception()}
    broken = sorted(key for key, future in failed.items() if isinstance(future.exception(), BrokenProcessPool))
    for key in sorted(set(failed) - set(broken)):
        _named(key, pieces.name(key), failed[key].result)
    if broken or len(keys) < len(missing):
        left = [key for key in missing if not (pieces.folder / key).exists()]
        names = ", ".join(pieces.name(key) for key in left[:workers])
        raise StoreError(
            f"a worker process was killed, most likely because memory ran out, while one of these was made: {names}; "
            f"{len(missing) - len(left)} of {len(missing)} pieces are kept: give the same command again, with "
            f"fewer than {workers} workers; a worker that could not start has told why above"
        )


def _named(key: str, name: str, call: Callable[[], Any]) -> None:
    """Call, and let an unexpected error say at which piece it came up."""
    try:
        call()
    except SkyloomError:
        raise  # names its file
    except Exception as error:
        error.add_note(f"while making piece {key}: {name}")
        raise


def _die_with_parent() -> None:
    """End this worker when the process that started it is gone: nobody else would, and it would go on writing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops the workers
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
