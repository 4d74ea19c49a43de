"""The input of a step that is a table: a file of any catalogue format, or an artifact that holds tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.sky.files.catalog_files import SUFFIXES, Table, open_table
from skyloom.store import Artifact, Store, fingerprint

# Tables of an artifact that has one per tile, by its kind and by what is wanted of it.
FOLDERS = {
    ("cutouts", "truth"): "truth",
    ("cutouts", "detections"): "detections",
    ("annotations", "truth"): "annotations",
    ("annotations", "detections"): "annotations",
}
# Of a table of true objects that reaches beyond its cutouts: whether the centre is not in this one.
OUTSIDE = "centre_outside"
MAIN = {"dataset": "annotations.parquet"}  # kinds whose table of objects is not their main one


@dataclass(frozen=True)
class TableInput:
    """A table that was given.

    Attributes
    ----------
    path
        The file; None for an artifact.
    artifact
        The artifact; None for a file.
    digest
        Of the file's content; None for an artifact.
    """

    path: Path | None
    artifact: Artifact | None
    digest: str | None

    @property
    def label(self) -> str:
        """Name of the file, or kind and id: nothing of this machine."""
        if self.artifact is not None:
            return f"{self.artifact.kind} {self.artifact.id}"
        return self.path.name if self.path is not None else ""

    @property
    def word(self) -> str:
        """What stands for it on a command line."""
        return self.artifact.id if self.artifact is not None else self.label

    def identity(self) -> dict[str, Any]:
        """Kind and id of the artifact, or the digest of the file: the same wherever it lies."""
        return self.artifact.identity() if self.artifact is not None else {"files": 1, "digest": self.digest}

    def open(self, role: str) -> tuple[Table, np.ndarray | None]:
        """Open the table.

        Parameters
        ----------
        role
            ``truth`` or ``detections``: which tables of cutouts are wanted.

        Returns
        -------
        table, tile
            The columns, and of an artifact with a table per tile the tile of each row, text (N,); else None.

        Raises
        ------
        InputError
            The file cannot be read, or the artifact has no such tables.
        """
        if self.artifact is None:
            return open_table(Path(str(self.path))), None
        folder = FOLDERS.get((self.artifact.kind, role))
        if folder is None:
            name = MAIN.get(self.artifact.kind)
            path = self.artifact.file(name or str(self.artifact.manifest.get("table")))
            return _table(self.label, [path]), None
        names = [n for n in sorted(self.artifact.manifest["files"]) if n.startswith(f"{folder}/")]
        if not names:
            raise InputError(f"{self.label} has no tables {folder}/; the survey that it was cut from gave none")
        paths = [self.artifact.file(name) for name in names]
        rows = [pl.scan_parquet(path).select(pl.len()).collect().item() for path in paths]
        return _table(self.label, paths), np.repeat([path.stem for path in paths], rows)


def open_table_input(value: Any, store: Store, kinds: tuple[str, ...]) -> TableInput:
    """Open what was given: a file by the ending of its name, else an artifact of one of ``kinds``.

    Raises
    ------
    InputError
        The file does not exist.
    """
    if isinstance(value, Artifact) or not str(value).lower().endswith(SUFFIXES):
        return TableInput(None, store.open(value, kinds), None)
    path = Path(value)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path of the table")
    return TableInput(path, None, fingerprint(path))


def table_resolver(*kinds: str) -> Any:
    """Resolver of an input that is a file or an artifact of one of ``kinds``; None stays None."""

    def resolve(value: Any, _parameters: Mapping[str, Any], store: Store) -> TableInput | None:
        return None if value is None else open_table_input(value, store, kinds)

    return resolve


def centre_outside(table: Table) -> pl.Series:
    """Whether each row is a true object that only reaches into its cutout, bool (N,); see `OUTSIDE`."""
    if OUTSIDE in table.names:
        return pl.Series(np.asarray(table.column(OUTSIDE)[0], dtype=bool), dtype=pl.Boolean)
    return pl.repeat(False, len(table.column(table.names[0])[0]), dtype=pl.Boolean, eager=True)


def _table(label: str, paths: list[Path]) -> Table:
    """Tables of one form, as one."""
    names = pl.scan_parquet(paths[0]).collect_schema().names()

    def column(name: str) -> tuple[Any, str | None]:
        parts = [pl.scan_parquet(path).select(name).collect()[name] for path in paths]
        parts = [part for part in parts if len(part)] or parts[:1]
        series = pl.concat([part.to_frame() for part in parts], how="vertical_relaxed")[name]
        if series.null_count() and (series.dtype.is_numeric() or series.dtype == pl.Null):
            series = series.cast(pl.Float64)
        return series.to_numpy(), None

    return Table(Path(label), names, column)
