"""A finished artifact: its path, its manifest and its tables."""

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyloom.errors import StoreError
from skyloom.store.fingerprint import sha256_file
from skyloom.store.ids import Request

if TYPE_CHECKING:
    import polars as pl
    from astropy.table import Table

SCHEMA = 1
MANIFEST = "manifest.json"
NEEDED = {"kind", "id", "digest", "step", "version", "parameters", "inputs", "counts", "notes", "files"}
HISTORY = "build.json"  # when, where and how long: the only file that differs between two builds of one request


class Artifact:
    """A folder ``store/<kind>/<id>/`` that is whole and never changes.

    Attributes
    ----------
    path : Path
        The folder.
    manifest : dict
        What the artifact is: request, counts, notes, files with size and sha256, code and package versions.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        source = self.path / MANIFEST
        try:
            self.manifest: dict[str, Any] = json.loads(source.read_text())
        except FileNotFoundError as error:
            raise StoreError(f"{self.path} is not an artifact: it has no {MANIFEST}") from error
        except (OSError, ValueError) as error:
            raise StoreError(f"{source} cannot be read ({error}); delete the folder and make it again") from error
        if not isinstance(self.manifest, dict):
            raise StoreError(f"{source} holds no mapping, so it is no manifest; delete the folder and make it again")
        if self.manifest.get("schema", 0) > SCHEMA:
            raise StoreError(
                f"{source} has schema {self.manifest['schema']}, this skyloom knows up to {SCHEMA}; update skyloom"
            )
        if absent := sorted(NEEDED - self.manifest.keys()):
            raise StoreError(f"{source} lacks {', '.join(absent)}; delete the folder and make it again")

    @property
    def id(self) -> str:
        """The id, equal to the name of the folder."""
        return str(self.manifest["id"])

    @property
    def kind(self) -> str:
        """The kind, such as ``cutouts``."""
        return str(self.manifest["kind"])

    @property
    def step(self) -> str:
        """The function that made it."""
        return str(self.manifest["step"])

    @property
    def parameters(self) -> dict[str, Any]:
        """The resolved parameters."""
        return dict(self.manifest["parameters"])

    @property
    def counts(self) -> dict[str, Any]:
        """What was read, kept and dropped, with reasons."""
        return dict(self.manifest["counts"])

    @property
    def notes(self) -> dict[str, Any]:
        """Facts that later steps need, such as units."""
        return dict(self.manifest["notes"])

    @cached_property
    def history(self) -> dict[str, Any]:
        """When and where this copy was built and how long it took (``build.json``)."""
        source = self.path / HISTORY
        return json.loads(source.read_text()) if source.exists() else {}

    @property
    def inputs(self) -> dict[str, "Artifact"]:
        """The artifacts this one was made from, opened from the same store."""
        found = {}
        for role, entry in self.manifest["inputs"].items():
            for name, identity in identities(role, entry):
                path = self.path.parents[1] / identity["kind"] / identity["id"]
                if not (path / MANIFEST).exists():
                    raise StoreError(
                        f"{identity['kind']} {identity['id']}, from which {self.kind} {self.id} was made ({name}), is "
                        f"not in the store {path.parents[1]}; put it back, or make it again with the same command"
                    )
                found[name] = Artifact(path)
        return found

    def identity(self) -> dict[str, str]:
        """What stands for this artifact in the request of a later one."""
        return {"kind": self.kind, "id": self.id}

    def parameter(self) -> dict[str, str]:
        """Same as :meth:`identity`; lets an artifact stand in a request."""
        return self.identity()

    def file(self, name: str) -> Path:
        """Path of a file of the artifact.

        Raises
        ------
        StoreError
            When the artifact has no such file (the message lists those it has), or one of another size than it had.
        """
        path = self.path / name
        if not path.exists():
            listed = self.manifest["files"]
            if name in listed or any(other.startswith(f"{name}/") for other in listed):
                raise StoreError(
                    f"{path} is gone, though the manifest of {self.kind} {self.id} lists it; put it back, or remove "
                    f"{self.path} and make it again"
                )
            have = ", ".join(sorted(listed)[:12])
            raise StoreError(f"{self.kind} {self.id} has no file '{name}'; it has: {have}")
        entry = self.manifest["files"].get(name)
        if entry and (size := path.stat().st_size) != entry["size"]:
            raise StoreError(
                f"{path} has {size} bytes, the manifest of {self.kind} {self.id} says {entry['size']}; put the whole "
                f"file back, or remove {self.path} and make it again"
            )
        return path

    def table(self, name: str | None = None) -> "pl.DataFrame":
        """Read a table as polars; without a name the artifact's main table.

        Raises
        ------
        StoreError
            As :meth:`file`; or what lies there cannot be read.
        """
        import polars as pl

        path = self.file(name or self._main_table())
        try:
            return pl.read_parquet(path)
        except pl.exceptions.PolarsError as error:
            raise StoreError(
                f"{path} is damaged ({str(error).splitlines()[0]}); put the whole file back, or remove {self.path} "
                "and make it again"
            ) from error

    def astropy(self, name: str | None = None) -> "Table":
        """Read a table as ``astropy.table.Table``; null values become masked."""
        import numpy as np
        from astropy.table import MaskedColumn, Table

        frame = self.table(name)
        columns = {}
        for column in frame.get_columns():
            if column.null_count():
                fill = column.drop_nulls()
                blank = fill[0] if len(fill) else 0.0
                columns[column.name] = MaskedColumn(
                    np.asarray(column.fill_null(blank).to_list()), mask=column.is_null().to_numpy()
                )
            else:
                columns[column.name] = column.to_numpy()
        return Table(columns)

    def verify(self) -> list[str]:
        """Check every file against the manifest, and what the manifest says was asked for against the id.

        Returns
        -------
        list of str
            One line per problem; empty when all is well.
        """
        problems = []
        said = self.manifest
        request = Request(said["kind"], said["step"], said["version"], said["parameters"], said["inputs"])
        if (request.digest(), request.id) != (said["digest"], said["id"]):
            problems.append(
                f"{self.path / MANIFEST} asks for {request.kind} {request.id}, not {said['id']}; "
                "its step, version, parameters or inputs were edited"
            )
        for name, entry in sorted(self.manifest["files"].items()):
            path = self.path / name
            if not path.exists():
                problems.append(f"{path} is missing")
            elif path.stat().st_size != entry["size"]:
                problems.append(f"{path} has {path.stat().st_size} bytes, the manifest says {entry['size']}")
            elif sha256_file(path) != entry["sha256"]:
                problems.append(f"{path} has other content than the manifest says")
        known = set(self.manifest["files"]) | {MANIFEST, HISTORY}
        for path in sorted(p for p in self.path.rglob("*") if p.is_file()):
            if path.relative_to(self.path).as_posix() not in known:
                problems.append(f"{path} is not in the manifest")
        return problems

    def _main_table(self) -> str:
        main = self.manifest.get("table")
        if not main:
            raise StoreError(
                f"{self.kind} {self.id} has no main table; name one of: {', '.join(self.manifest['files'])}"
            )
        return str(main)

    def __repr__(self) -> str:
        return f"Artifact({self.kind} {self.id}, {self.path})"


def identities(role: str, entry: Any) -> list[tuple[str, dict[str, str]]]:
    """Flatten an input entry to named artifact identities; file sets and missing inputs have none."""
    if isinstance(entry, list):
        return [pair for i, item in enumerate(entry) for pair in identities(f"{role}[{i}]", item)]
    if isinstance(entry, dict) and "kind" in entry and "id" in entry:
        return [(role, entry)]
    if isinstance(entry, dict):
        return [pair for key, item in entry.items() for pair in identities(f"{role}.{key}", item)]
    return []
