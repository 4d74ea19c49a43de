"""metrics.csv: the record of a fit, always written, whatever other loggers are chosen."""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

LEADING = ("epoch", "step")


class CsvRecord(Logger):
    """Writes one row per call, with a column per metric and empty fields where a row lacks it.

    Rows are appended; a metric that was not there before rewrites the file once. Numbers have nine digits, which
    single precision needs to read back the same. There is no column of time, so that equal fits give equal files.

    Parameters
    ----------
    path
        The file. What is in it counts as rows of this fit until :meth:`cut` is called.

    Attributes
    ----------
    rows : int
        Rows in the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._waiting: list[dict[str, str]] = []
        lines = path.read_text().splitlines() if path.exists() else []
        self._columns = lines[0].split(",") if lines else list(LEADING)
        self.rows = max(len(lines) - 1, 0)

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one version."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the manifest of the artifact has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take a row; :meth:`save`, which Lightning calls right after, writes it."""
        row = {"step": _text(step or 0), **{key: _text(value) for key, value in metrics.items()}}
        self._waiting.append(row)

    @rank_zero_only
    def save(self) -> None:
        """Append the rows that wait."""
        if not self._waiting:
            return
        new = [key for row in self._waiting for key in row if key not in self._columns]
        if new or not self.path.exists():
            old = self._read()
            self._columns += dict.fromkeys(new)
            self._replace(old)
        with self.path.open("a", newline="") as file:
            self._writer(file).writerows(self._waiting)
        self.rows += len(self._waiting)
        self._waiting = []

    @rank_zero_only
    def sync(self) -> int:
        """Put all rows on disk, for a checkpoint that counts on them; returns their number."""
        self.save()
        if self.path.exists():
            _sync(self.path)
        return self.rows

    @rank_zero_only
    def cut(self, rows: int) -> None:
        """Keep the first ``rows`` rows: those after the checkpoint that a fit goes on from will be made again."""
        self._waiting = []
        if rows == 0:
            self.path.unlink(missing_ok=True)
            self._columns = list(LEADING)
        else:
            self._replace(self._read()[:rows])
        self.rows = rows

    def history(self) -> list[dict[str, float]]:
        """All rows that are written, each with the columns that it has."""
        return [{key: float(value) for key, value in row.items() if value} for row in self._read()]

    def last(self) -> dict[str, float]:
        """The last finite value of each metric."""
        values = ((key, float(value)) for row in self._read() for key, value in row.items() if value)
        return {key: value for key, value in values if key not in LEADING and math.isfinite(value)}

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _replace(self, rows: Iterable[dict[str, str]]) -> None:
        """Write the file anew, whole or not at all."""
        text = io.StringIO(newline="")
        writer = self._writer(text)
        writer.writeheader()
        writer.writerows(rows)
        temporary = self.path.with_name(f".tmp-{self.path.name}")
        temporary.write_text(text.getvalue())
        _sync(temporary)
        temporary.replace(self.path)

    def _writer(self, file: Any) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, self._columns, restval="", lineterminator="\n")


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{float(value):.9g}"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
