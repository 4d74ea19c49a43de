"""An artifact in the making: a partial folder with resumable shards, renamed when it is whole."""

import json
import platform
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from skyloom.store import provenance
from skyloom.store.artifact import HISTORY, MANIFEST, SCHEMA, Artifact
from skyloom.store.aside import TEMPORARY, remove, sync_entry, written_aside
from skyloom.store.executor import Executor, Local
from skyloom.store.fingerprint import sha256_file
from skyloom.store.ids import Request, plain
from skyloom.store.pieces import Pieces

SHARDS = ".shards"
REQUEST = ".request.json"
HISTORY_SO_FAR = ".history.json"
MAX_EXAMPLES = 20  # names of dropped things kept per reason; a step with more writes them all to a table of its own

T = TypeVar("T")


class Build:
    """What the body of a step writes into.

    Parameters
    ----------
    path
        The partial folder.
    request
        What is being made.
    settings
        Parameters that change how fast the work goes, never its result; only recorded.
    executor
        Who makes pieces; None: processes on this machine.

    Attributes
    ----------
    table : str or None
        Name of the artifact's main table, set by the step.
    """

    def __init__(
        self, path: Path, request: Request, settings: dict[str, Any] | None = None, executor: Executor | None = None
    ) -> None:
        self.path = path
        self.request = request
        self.table: str | None = None
        self._settings = settings or {}
        self._executor: Executor = executor or Local()
        self._counts: dict[str, Any] = {}
        self._dropped: dict[str, dict[str, Any]] = {}
        self._notes: dict[str, Any] = {}
        self._start = time.time()
        self._resumed_from: tuple[str, ...] = ()
        self._history: dict[str, Any] = {"attempts": 0, "seconds": 0.0, "started": _utc(self._start)}

    # --- pieces ------------------------------------------------------------------------------------------------

    def shard(self, key: str, make: Callable[[Path], None]) -> Path:
        """Make one piece of the work unless an earlier, interrupted run has finished it.

        Parameters
        ----------
        key
            Name of the piece, unique within the build.
        make
            Called with a temporary path where it writes a file or a folder. The path gets its final name only
            when ``make`` has returned and the bytes are on disk.

        Returns
        -------
        Path
            The finished piece. Pieces are working material: they are removed when the artifact is finished.
        """
        final = self.path / SHARDS / key
        if not final.exists():
            with written_aside(final) as temporary:
                make(temporary)
        return final

    def shards_in_parallel(
        self,
        tasks: Mapping[str, T],
        make: Callable[[Path, T], None],
        *,
        workers: int,
        done: Callable[[], None] = lambda: None,
        describe: Callable[[T], str] = str,
    ) -> list[Path]:
        """Make many pieces in several processes; the pieces are the same whatever their number.

        Parameters
        ----------
        tasks
            By key what ``make`` needs for that piece; must be picklable. Pieces that are finished are not made again.
        make
            Called as ``make(path, task)`` like that of :meth:`shard`, in another process: a function of a module, not
            one defined inside another.
        workers
            Number of processes; 1 works in this one, one piece after the other. The executor may know better.
        done
            Called whenever one more piece is there.
        describe
            Name of a task for messages.

        Returns
        -------
        list of Path
            The pieces, in the order of ``tasks``.

        Raises
        ------
        StoreError
            A worker was killed (out of memory), or a job has failed too often. What ``make`` raises is raised again,
            that of the first key if several fail; pieces under way are finished before.
        """
        pieces = Pieces(self.path, self.path / SHARDS, tasks, make, done, describe)
        return self._executor.make_pieces(pieces, workers=workers)

    def processes(self, asked: int) -> int:
        """How many processes make pieces on this machine when a step asks for so many; 0: they are made elsewhere."""
        return self._executor.processes(asked)

    def done(self, key: str) -> bool:
        """Whether the piece ``key`` is finished."""
        return (self.path / SHARDS / key).exists()

    def shards(self) -> list[Path]:
        """All finished pieces, in the order of their keys."""
        folder = self.path / SHARDS
        return sorted(p for p in folder.iterdir() if not p.name.startswith(TEMPORARY)) if folder.exists() else []

    def scratch(self, name: str) -> Path:
        """A folder that survives an interruption and is removed at the end (checkpoints of a training run)."""
        folder = self.path / SHARDS / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Write a file (or folder) of the artifact: yields a temporary path that is renamed on success."""
        with written_aside(self.path / name) as temporary:
            yield temporary

    def resumes_from(self, *names: str) -> None:
        """Name files of the artifact from which an interrupted build goes on; while one is there nothing is removed."""
        self._resumed_from = names

    def worth_keeping(self) -> bool:
        """Whether an attempt that failed has left something to go on from."""
        return bool(self.shards()) or any((self.path / name).exists() for name in self._resumed_from)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the artifact, indented and with sorted keys."""
        with self.write(name) as path:
            path.write_text(json.dumps(plain(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n")

    # --- what the manifest tells ---------------------------------------------------------------------------------

    def count(self, **numbers: int) -> None:
        """Record counts such as ``read`` and ``kept``."""
        self._counts.update({name: int(number) for name, number in numbers.items()})

    def drop(self, reason: str, number: int, *, why: str, examples: list[str] | None = None) -> None:
        """Record that ``number`` things were left out, for which reason, and name some of them."""
        if number == 0:
            return
        entry = self._dropped.setdefault(reason, {"number": 0, "why": why, "examples": []})
        entry["number"] += int(number)
        room = MAX_EXAMPLES - len(entry["examples"])
        entry["examples"].extend((examples or [])[: max(room, 0)])

    def note(self, **facts: Any) -> None:
        """Record facts that later steps need (units, dimensions, digests)."""
        self._notes.update({name: plain(fact) for name, fact in facts.items()})

    # --- life ----------------------------------------------------------------------------------------------------

    def prepare(self) -> int:
        """Create the folder or clear what an interrupted run left half-written; returns the pieces that remain."""
        self._executor.stop_earlier(self.path)
        (self.path / SHARDS).mkdir(parents=True, exist_ok=True)
        for leftover in [*self.path.rglob(f"{TEMPORARY}*")]:
            remove(leftover)
        source = self.path / HISTORY_SO_FAR
        if source.exists():
            self._history = json.loads(source.read_text())
        self._history["attempts"] += 1
        self._save_history()
        return len(self.shards())

    def finish(self, final: Path) -> Artifact:
        """Write the manifest, put everything on disk and give the folder its final name.

        The pieces stay until the manifest is written: whoever is killed while files are hashed loses nothing.
        """
        files = {}
        for path in sorted(p for p in self.path.rglob("*") if p.is_file()):
            name = path.relative_to(self.path).as_posix()
            if not name.startswith(f"{SHARDS}/") and name not in (MANIFEST, HISTORY, REQUEST, HISTORY_SO_FAR):
                files[name] = {"size": path.stat().st_size, "sha256": sha256_file(path)}
        request = self.request
        manifest = {
            "schema": SCHEMA,
            "kind": request.kind,
            "id": request.id,
            "digest": request.digest(),
            "step": request.step,
            "version": request.version,
            "parameters": request.parameters,
            "inputs": request.inputs,
            "seed": request.parameters.get("seed"),
            "counts": {**self._counts, "dropped": self._dropped},
            "notes": self._notes,
            "table": self.table,
            "files": files,
            "code": provenance.code(),
            "packages": provenance.packages(),
        }
        history = {
            **self._history,
            "finished": _utc(time.time()),
            "seconds": round(self._history["seconds"] + time.time() - self._start, 3),
            "host": platform.node(),
            "settings": plain(self._settings),
        }
        self.write_json(HISTORY, history)
        self.write_json(MANIFEST, manifest)
        return self.move(final)

    def whole(self) -> bool:
        """Whether an interrupted run has written the manifest, so that only :meth:`move` is left to do."""
        return (self.path / MANIFEST).exists()

    def move(self, final: Path) -> Artifact:
        """Remove the working material and give the folder its final name; may be killed and repeated at any moment."""
        for path in (self.path / SHARDS, self.path / REQUEST, self.path / HISTORY_SO_FAR):
            remove(path)
        for path in self.path.rglob("*"):
            if path.is_file():
                path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)  # finished: nothing may change it
        final.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(final)
        sync_entry(final.parent)
        return Artifact(final)

    def interrupted(self) -> None:
        """Add the time of this attempt to the history that the next attempt continues."""
        if not self.path.exists():
            return  # a refused request has left nothing to continue
        self._history["seconds"] += time.time() - self._start
        with suppress(OSError):  # on a full disk only the stop-watch is lost; the error under way says what happened
            self._save_history()

    def _save_history(self) -> None:
        with written_aside(self.path / HISTORY_SO_FAR) as temporary:
            temporary.write_text(json.dumps(self._history))


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
