"""Look-up of artifacts by id, unique prefix, given name or path, and the folder they lie in."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from glob import escape
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from skyloom.errors import ConfigError, StoreError
from skyloom.store.artifact import MANIFEST, Artifact
from skyloom.store.names import Names

PARTIAL = ".partial"
ENVIRONMENT = "SKYLOOM_STORE"


class Store:
    """A folder of artifacts.

    Parameters
    ----------
    root
        The folder; created when the first artifact is made. None: the environment variable
        ``SKYLOOM_STORE``, else ``store`` in the working directory.
    """

    def __init__(self, root: "str | Path | Store | None" = None) -> None:
        given = root.root if isinstance(root, Store) else root
        if given == "":
            raise ConfigError(f"paths.store is empty; give a folder, or leave it out (and set or unset {ENVIRONMENT})")
        self.root: Path = Path(given or os.environ.get(ENVIRONMENT) or "store").expanduser().absolute()
        self.names = Names(self.root / "names")

    def path(self, kind: str, id: str) -> Path:
        """Folder of an artifact, whether it exists or not."""
        return self.root / kind / id

    def partial(self, kind: str, id: str) -> Path:
        """Folder in which an artifact is being built."""
        return self.root / PARTIAL / f"{kind}-{id}"

    def lock(self, kind: str, id: str) -> FileLock:
        """Lock held by the process that builds an artifact; the system frees it when the process dies."""
        folder = self.root / PARTIAL
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, "no permission to write")
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be written ({error.strerror}); set paths.store or {ENVIRONMENT}"
            ) from error
        return FileLock(folder / f"{kind}-{id}.lock", thread_local=False)

    def has(self, kind: str, id: str) -> bool:
        """Whether the artifact is finished."""
        return (self.path(kind, id) / MANIFEST).exists()

    def __iter__(self) -> Iterator[Artifact]:
        """All finished artifacts, by kind and id; an unreadable manifest is an error."""
        return map(Artifact, self.folders())

    def folders(self) -> Iterator[Path]:
        """Folders of all finished artifacts, by kind and id, also of those whose manifest cannot be read."""
        for kind in self._kinds():
            for folder in sorted((self.root / kind).iterdir()):
                if (folder / MANIFEST).exists():
                    yield folder

    def readable(self, report: Callable[[StoreError], object]) -> list[Artifact]:
        """All finished artifacts whose manifest can be read; ``report`` is called with the error of each other one."""
        found = []
        for folder in self.folders():
            try:
                found.append(Artifact(folder))
            except StoreError as error:
                report(error)
        return found

    def open(self, reference: "str | Path | Artifact", kind: str | tuple[str, ...] | None = None) -> Artifact:
        """Open an artifact.

        Parameters
        ----------
        reference
            An id, a unique prefix of one, a given name, the path of an artifact's folder, or an artifact.
        kind
            What is wanted; None takes any kind.

        Raises
        ------
        StoreError
            Nothing or more than one thing fits, or it is of another kind.
        """
        artifact = reference if isinstance(reference, Artifact) else self._resolve(str(reference), kind)
        kinds = (kind,) if isinstance(kind, str) else kind
        if kinds and artifact.kind not in kinds:
            raise StoreError(f"{reference} is of kind {artifact.kind}; expected {' or '.join(kinds)}")
        return artifact

    def _resolve(self, text: str, kind: str | tuple[str, ...] | None) -> Artifact:
        if not text:
            raise StoreError("an empty text stands for no artifact; give an id, a unique prefix, a name or a path")
        wanted = " or ".join((kind,) if isinstance(kind, str) else kind) if kind else "artifact"
        if os.sep in text or text.startswith("."):
            return Artifact(Path(text).expanduser())
        if target := self.names.get(text):
            if not (self.root / target / MANIFEST).exists():
                raise StoreError(
                    f"the name '{text}' stands for {target.replace('/', ' ')}, which is not in {self.root} any more; "
                    f"make it again, or free the name with: skyloom name --remove {text}"
                )
            return Artifact(self.root / target)
        exact = [self.root / k / text for k in self._kinds() if self.has(k, text)]
        found = exact or [path for k in self._kinds() for path in sorted((self.root / k).glob(f"{escape(text)}*"))]
        found = [path for path in found if (path / MANIFEST).exists()]
        if len(found) > 1 and kind:
            kinds = (kind,) if isinstance(kind, str) else kind
            found = [path for path in found if path.parent.name in kinds] or found
        if not found:
            near = self.names.near(text)
            hint = f" Did you mean the name '{near}'?" if near else ""
            raise StoreError(
                f"no {wanted} with the id, prefix or name '{text}' in {self.root}; 'skyloom ls' lists all.{hint}"
            )
        if len(found) > 1:
            listed = ", ".join(f"{path.parent.name} {path.name}" for path in found[:6])
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            raise StoreError(f"'{text}' is the beginning of {len(found)} ids: {listed}{more}; give more letters")
        return Artifact(found[0])

    def find(
        self, kind: str | None = None, where: dict[str, Any] | None = None, made_from: Artifact | None = None
    ) -> list[Artifact]:
        """Artifacts of a kind whose parameters equal ``where`` and that descend from ``made_from``.

        Parameters
        ----------
        kind
            None takes all kinds.
        where
            Dotted parameter names and values, compared as text: ``{"window_px": "128"}``. ``step`` and names
            of inputs are accepted too.
        made_from
            An ancestor, however far back.
        """
        found = []
        for artifact in self:
            if kind and artifact.kind != kind:
                continue
            if any(not _matches(artifact, key, value) for key, value in (where or {}).items()):
                continue
            if made_from and made_from.id not in {a.id for a in self.ancestors(artifact)}:
                continue
            found.append(artifact)
        return found

    def ancestors(self, artifact: Artifact) -> list[Artifact]:
        """Everything an artifact was made from, nearest first, each once."""
        seen: dict[str, Artifact] = {}
        queue = list(artifact.inputs.values())
        while queue:
            head = queue.pop(0)
            if head.id not in seen:
                seen[head.id] = head
                queue.extend(head.inputs.values())
        return list(seen.values())

    def descendants(self, artifact: Artifact) -> list[Artifact]:
        """Everything in this store that was made from an artifact, directly or not."""
        return self.find(made_from=artifact)

    def leftovers(self) -> list[Path]:
        """Partial folders that no running process is building."""
        return [path for path in self._partials() if self._if_idle(path, lambda _: None)]

    def sweep(self) -> list[Path]:
        """Delete the partial folders that no running process is building; returns those deleted.

        The small lock files stay: to delete one while somebody waits for it would let two processes build.
        """
        return [path for path in self._partials() if self._if_idle(path, shutil.rmtree)]

    def remove(self, artifact: Artifact) -> None:
        """Delete a finished artifact of this store and its names; when killed, what is left is a leftover."""
        if self.root not in artifact.path.parents:
            raise StoreError(f"{artifact.path} does not lie in the store {self.root}")
        self.names.forget(f"{artifact.kind}/{artifact.id}")
        aside = self.partial(f"removed-{artifact.kind}", artifact.id)
        aside.parent.mkdir(parents=True, exist_ok=True)
        if aside.exists():
            shutil.rmtree(aside)
        artifact.path.replace(aside)  # at once: half of an artifact must not pass for one that is there
        shutil.rmtree(aside)

    def _partials(self) -> list[Path]:
        folder = self.root / PARTIAL
        return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.exists() else []

    def _if_idle(self, partial: Path, act: Callable[[Path], object]) -> bool:
        kind, _, id = partial.name.rpartition("-")
        try:
            with self.lock(kind, id).acquire(timeout=0):
                act(partial)
                return True
        except Timeout:
            return False  # being built right now

    def _kinds(self) -> list[str]:
        if not self.root.exists():
            return []
        return sorted(
            p.name for p in self.root.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != "names"
        )

    def __repr__(self) -> str:
        return f"Store({self.root})"


def _matches(artifact: Artifact, key: str, value: Any) -> bool:
    if key == "step":
        return artifact.step == value
    for source in (artifact.manifest["parameters"], artifact.manifest["inputs"]):
        node: Any = source
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict) and "id" in node:
            return str(node["id"]).startswith(str(value))
        if node is not None:
            return str(node).lower() == str(value).lower()
    return str(value).lower() in ("null", "none")
