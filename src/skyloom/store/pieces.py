"""The pieces that a build wants made: where they belong, what makes them, and who is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyloom.store.aside import written_aside


@dataclass(frozen=True)
class Pieces:
    """What :meth:`skyloom.store.Build.shards_in_parallel` asks of an executor.

    Attributes
    ----------
    partial
        Folder of the artifact in the making.
    folder
        Where the pieces appear, each under its key.
    tasks
        By key what ``make`` needs for that piece.
    make
        Writes a piece, called as ``make(path, task)``.
    done
        Called whenever one more piece is there.
    describe
        Name of a task for messages.
    """

    partial: Path
    folder: Path
    tasks: Mapping[str, Any]
    make: Callable[[Path, Any], None]
    done: Callable[[], None]
    describe: Callable[[Any], str]

    def paths(self) -> list[Path]:
        """All pieces, in the order of the tasks."""
        return [self.folder / key for key in self.tasks]

    def name(self, key: str) -> str:
        """Name of a piece for messages."""
        return self.describe(self.tasks[key])


def make_piece(final: Path, make: Callable[[Path, Any], None], task: Any) -> None:
    """Make one piece; it appears under its name when it is whole."""
    with written_aside(final) as temporary:
        make(temporary, task)
