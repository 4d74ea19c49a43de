"""What one job of an array does: its pieces one after the other, each whole or not at all."""

import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyloom.errors import SkyloomError
from skyloom.store.pieces import make_piece


@dataclass(frozen=True)
class Failure:
    """A piece that could not be made.

    Attributes
    ----------
    key
        The piece.
    error
        Class of the exception.
    text
        Its message.
    final
        Whether the input or the request is wrong, so that another attempt would fail in the same way.
    """

    key: str
    error: str
    text: str
    final: bool


class PieceJob:
    """A callable that travels to a job.

    Parameters
    ----------
    folder
        Where the pieces appear under their keys.
    tasks
        By key what ``make`` needs.
    make
        Makes a piece, see :meth:`skyloom.store.Build.shards_in_parallel`.
    """

    def __init__(self, folder: Path, tasks: Mapping[str, Any], make: Callable[[Path, Any], None]) -> None:
        self.folder, self.tasks, self.make = folder, dict(tasks), make

    def __call__(self) -> list[Failure]:
        """Make the pieces that are missing; one that fails does not keep the others from being made."""
        failures = []
        for key, task in self.tasks.items():
            if (self.folder / key).exists():
                continue
            try:
                make_piece(self.folder / key, self.make, task)
            except Exception as error:
                final = isinstance(error, SkyloomError)
                failures.append(Failure(key, type(error).__name__, str(error), final))
                if final:
                    print(f"piece {key}: {error}", file=sys.stderr, flush=True)
                    break  # the command ends with it
                print(f"piece {key}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return failures

    def checkpoint(self) -> Any:
        """Go back to the queue when preempted: the next start goes on with the pieces that are missing."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
