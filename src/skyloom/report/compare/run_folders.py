"""What report=compare runs=… reads: artifacts by id, and folders of commands and sweeps with what came of each job."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.progress import say
from skyloom.store import Artifact, Store
from skyloom.store.artifact import MANIFEST

RUN_FILE = "run.json"  # in the folder of each command: what was asked for
RESULT_FILE = "result.json"  # beside it when it has ended: what it made, or why not
STARTED, FAILED = "started", "failed"


@dataclass(frozen=True)
class Unfinished:
    """A job that has left no artifact.

    Attributes
    ----------
    job : str
        Its folder below that of the sweep.
    state : str
        ``started`` (it runs, waits to be requeued or was killed) or ``failed``.
    overrides : tuple of str
        What the command said, without what all jobs of the folder said.
    error : str
        Why it failed.
    """

    job: str
    state: str
    overrides: tuple[str, ...]
    error: str


@dataclass(frozen=True)
class Runs:
    """The artifacts that are compared, by id, and the jobs that have left none."""

    artifacts: list[Artifact]
    unfinished: list[Unfinished]

    def identity(self) -> list[dict[str, Any]]:
        """Kind and id of each artifact, then what is known of the other jobs."""
        return [a.identity() for a in self.artifacts] + [
            {"job": u.job, "state": u.state, "overrides": list(u.overrides), "error": u.error} for u in self.unfinished
        ]


def open_runs(value: Any, parameters: Mapping[str, Any], store: Store) -> Runs:
    """Resolver of the input ``runs``: ids, names and folders, as a list or alone, or ``all`` models of the store."""
    found: dict[str, Artifact] = {}
    unfinished: list[Unfinished] = []
    for item in _items(value, store):
        if _is_folder(item):
            made, others = open_folder(Path(item), store)
            unfinished += others
        else:
            made = [store.open(item)]
        found |= {artifact.id: artifact for artifact in made}
    kinds = sorted({artifact.kind for artifact in found.values()})
    if len(kinds) > 1:
        raise ConfigError(f"runs={value}: {' and '.join(kinds)} cannot stand in one table; give those of one kind")
    if not found:
        first = unfinished[0]
        why = f": {first.error}" if first.error else ""
        raise InputError(
            f"runs={value}: none of the {len(unfinished)} jobs has a result yet; job {first.job} {first.state}{why}"
        )
    return Runs([found[id] for id in sorted(found)], sorted(unfinished, key=lambda u: _natural(u.job)))


def open_folder(folder: Path, store: Store) -> tuple[list[Artifact], list[Unfinished]]:
    """Read the run files of a sweep, of one command, or of everything below a folder.

    Parameters
    ----------
    folder
        That of a sweep (its jobs have the folders 0, 1, …), or any above.
    store
        Where the artifacts are looked for.

    Returns
    -------
    artifacts : list of Artifact
        Each once, also where several jobs made or found the same.
    unfinished : list of Unfinished
        The other jobs.

    Raises
    ------
    InputError
        There is no run file, or one cannot be read.
    StoreError
        An artifact is not in the store.
    """
    files = sorted(folder.rglob(RUN_FILE), key=lambda file: _natural(str(file.relative_to(folder))))
    if not files:
        raise InputError(
            f"{folder} holds no {RUN_FILE}; expected the folder of a sweep, such as outputs/train/DATE/TIME, or an id"
        )
    read = {str(file.parent.relative_to(folder)): _read(file) for file in files}
    said = [set(facts.get("overrides", [])) for facts in read.values()]
    common = set.intersection(*said) if len(said) > 1 else set()
    made: dict[str, Artifact] = {}
    unfinished = []
    for job, facts in read.items():
        if not facts.get("id"):
            own = tuple(word for word in facts.get("overrides", []) if word not in common)
            error = str(facts.get("error") or "")
            unfinished.append(Unfinished(job, FAILED if error else STARTED, own, error))
            continue
        if facts["id"] not in made:
            made[facts["id"]] = _made(facts, folder / job, store)
    if (done := len(read) - len(unfinished)) > len(made):
        say(f"{folder}: {done} jobs have {len(made)} results; what changes no result (trainer.accelerator, paths) "
            "makes no line of its own")  # fmt: skip
    return list(made.values()), unfinished


def _items(value: Any, store: Store) -> list[Any]:
    if value != "all":
        items = list(value) if isinstance(value, list | tuple) else [value]
        if not items:
            raise ConfigError("runs=[]: expected at least one id, name or folder, as runs=[ID,ID], or runs=all")
        return items
    known = store.readable(lambda error: say(f"skipped: {error}"))
    found = [artifact for artifact in known if artifact.kind == "model"]
    if not found:
        raise InputError(f"the store {store.root} holds no model; make some with train.py")
    return found


def _is_folder(item: Any) -> bool:
    if isinstance(item, Artifact) or not isinstance(item, str | Path):
        return False
    path = Path(item).expanduser()
    return path.is_dir() and not (path / MANIFEST).exists() and (os.sep in str(item) or (path / RUN_FILE).exists()
                                                                 or any(path.rglob(RUN_FILE)))  # fmt: skip


def _read(file: Path) -> dict[str, Any]:
    """What was asked for, with what came of it as far as anything did."""
    facts: dict[str, Any] = {}
    for source in (file, file.with_name(RESULT_FILE)):
        if source.exists():
            try:
                facts |= json.loads(source.read_text())
            except (OSError, ValueError, TypeError) as error:
                raise InputError(
                    f"{source} cannot be read ({error}); delete it, or give ids as runs=[ID,ID]"
                ) from error
    return facts


def _made(facts: Mapping[str, Any], folder: Path, store: Store) -> Artifact:
    try:
        return store.open(facts["id"], facts.get("kind"))
    except StoreError as error:
        raise StoreError(
            f"{facts.get('kind') or 'artifact'} {facts['id']} of the run {folder} is not in the store {store.root}; it "
            f"was made in {facts.get('store')}: set paths.store to it, or give the same sweep again"
        ) from error


def _natural(text: str) -> list[Any]:
    """Sorts job 10 after job 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
