"""Builds artifacts in processes of their own, which can be killed at any moment: they are forked ready imported.

Importing torch takes seconds, a step of a tiny chain takes tenths of one. A process of its own imports what the first
build of a kind has imported, keeps single-threaded and forks a clean child for each build, so that a random moment
falls into the work of the step and not into its imports. The children are real processes that get a real SIGKILL.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from make.forking import Forking, imported

STARTED = "started"


def server(modules: list[str]) -> Any:
    """The fork server, which imports ``modules`` when it starts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *modules])
    return context


class Builds(Forking):
    """Calls functions in children that can be killed."""

    def build(
        self, function: Callable[..., Any], arguments: dict[str, Any], kill_after_s: float | None = None
    ) -> float:
        """Call ``function`` in a child; kill it after so many seconds of work.

        Returns
        -------
        float
            Seconds until it ended by itself; infinity when it was killed.
        """
        return self.call(_build, function, arguments, kill_after_s)


def _build(function: Callable[..., Any], arguments: dict[str, Any], kill_after_s: float | None) -> float:
    assert threading.active_count() == 1, "a fork must not meet other threads"
    context = multiprocessing.get_context("fork")
    parent, child = context.Pipe()
    process = context.Process(target=_work, args=(function, arguments, child))
    process.start()
    child.close()
    try:
        assert parent.recv() == STARTED
        start = time.monotonic()
        if kill_after_s is not None and not parent.poll(kill_after_s):
            process.kill()
            process.join()
            return float("inf")
        try:
            outcome = parent.recv()
        except EOFError:
            outcome = "it died"
        seconds = time.monotonic() - start
        assert isinstance(outcome, list), outcome
        imported(outcome)
        return seconds
    finally:
        process.join(60)
        parent.close()


def _work(function: Callable[..., Any], arguments: dict[str, Any], parent: Connection) -> None:
    before = set(sys.modules)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        parent.send(STARTED)
        try:
            function(**arguments)
        except BaseException as error:
            parent.send(f"{type(error).__name__}: {error}")
            raise
        parent.send([name for name in sys.modules if name not in before])
    sys.stderr.flush()
