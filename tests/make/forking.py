"""A process that only imports and forks: its children start within milliseconds, and meet no thread at work.

``multiprocessing`` has such a server too, but one for a whole process: it has imported what its first user asked for,
and nothing of what the tests of a later file need.
"""

import atexit
import contextlib
import importlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any


class Forking:
    """Calls functions, which may fork, in a process without threads at work that has imported some modules.

    Parameters
    ----------
    modules
        What it imports before the first call.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, tuple(modules)), name="forking")
        self._process.start()
        there.close()
        atexit.register(self.close)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of a module there; its error is raised here."""
        self._here.send((function, arguments))
        value, error = self._here.recv()
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the process; without this it ends with the one that started it."""
        self._here.close()
        self._process.join()


def imported(modules: Iterable[str]) -> None:
    """Import what can be imported by its name."""
    for module in modules:
        if module not in sys.modules:
            with contextlib.suppress(Exception):  # names that some packages make up
                importlib.import_module(module)


def _serve(parent: Connection, modules: tuple[str, ...]) -> None:
    imported(modules)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            function, arguments = parent.recv()
            try:
                answer = function(*arguments), None
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = None, error
            parent.send(answer)
    os._exit(0)  # taking torch apart would take a second
