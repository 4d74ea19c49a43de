"""The numbers that a run has left: metrics by epoch of a model, scores of a probe, counts and figures of all else."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from skyloom.errors import ConfigError, InputError
from skyloom.store import Artifact
from skyloom.store.flat import flat_numbers

Direction = Literal["auto", "min", "max"]
# By which runs are sorted when nobody says so: the first that all of them have.
PREFERRED = ("val/mask_ap", "monitor/knn_accuracy", "balanced_accuracy", "val/loss", "train/loss")
LEADING = ("epoch", "step")


@dataclass(frozen=True)
class Measured:
    """The numbers of one run.

    Attributes
    ----------
    series : dict of list
        By name the finite values in the order in which they were measured, each with its epoch (None: without one).
    kept : dict of float
        By name the value that belongs to the weights that were kept, where those are not the last ones.
    """

    series: Mapping[str, Sequence[tuple[float | None, float]]]
    kept: Mapping[str, float]

    def value(self, name: str) -> float | None:
        """What the run ended with: the value of the weights that were kept, else the last one."""
        if name in self.kept:
            return self.kept[name]
        return self.series[name][-1][1] if self.series.get(name) else None

    def best(self, name: str, direction: Direction) -> tuple[float | None, float | None]:
        """Epoch and value of the best; of equal ones the first. None and None where there is none."""
        sign = -1.0 if falls(name, direction) else 1.0
        return max(self.series.get(name, []), key=lambda pair: sign * pair[1], default=(None, None))


def measured(artifact: Artifact) -> Measured:
    """Read the numbers of an artifact.

    Of a model ``metrics.csv``; of a probe the mean of each score over seeds and folds, with the most labels; of
    everything else its counts, its notes and ``numbers.json``, by path (``counts/kept``).
    """
    files = artifact.manifest["files"]
    if "metrics.csv" in files:
        best = artifact.notes.get("best") or {}
        kept = {best["metric"]: float(best["value"])} if best.get("value") is not None else {}
        return Measured(_of_csv(artifact), kept)
    found = dict(_of_probe(artifact)) if "results.parquet" in files and artifact.kind == "probe" else {}
    if not found:
        told = {"counts": artifact.counts, "notes": artifact.notes}
        if "numbers.json" in files:
            told["numbers"] = json.loads(artifact.file("numbers.json").read_text())
        found = {name: float(value) for name, value in flat_numbers(told) if _is_measure(value)}
    return Measured({name: [(None, value)] for name, value in found.items()}, {})


def final_value(artifact: Artifact, name: str) -> float:
    """What a run ended with.

    Raises
    ------
    ConfigError
        It has no such number; the message lists those it has.
    """
    own = measured(artifact)
    value = own.value(name)
    if value is None:
        have = ", ".join(sorted(own.series)) or "none"
        raise ConfigError(f"{artifact.kind} {artifact.id} has no number '{name}'; it has: {have}")
    return value


def chosen_metric(runs: Sequence[Measured], wanted: str | None) -> str:
    """The number by which runs are sorted: the one asked for, else the first of ``PREFERRED`` that all have.

    Raises
    ------
    ConfigError
        No run has the one that was asked for.
    InputError
        The runs have no number in common.
    """
    names = sorted({name for run in runs for name in run.series})
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(f"sort={wanted}: no run has this number; there are: {', '.join(names) or 'none'}")
        return wanted
    common = [name for name in names if all(run.series.get(name) for run in runs)]
    of_weights = [name for name in common if all(name in run.kept for run in runs)]
    best = of_weights + [name for name in PREFERRED if name in common] + common
    if not best:
        raise InputError("the runs have no number in common; choose one with sort=…: " + (", ".join(names) or "none"))
    return best[0]


def falls(name: str, direction: Direction) -> bool:
    """Whether less of a number is better; ``auto`` takes that from its name."""
    return direction == "min" or (direction == "auto" and "loss" in name.rpartition("/")[2])


def _of_csv(artifact: Artifact) -> dict[str, list[tuple[float | None, float]]]:
    series: dict[str, list[tuple[float | None, float]]] = {}
    with artifact.file("metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            epoch = float(row["epoch"]) if row.get("epoch") else None
            for name, text in row.items():
                if name not in LEADING and text and math.isfinite(value := float(text)):
                    series.setdefault(name, []).append((epoch, value))
    return series


def _of_probe(artifact: Artifact) -> Iterator[tuple[str, float]]:
    from skyloom.metric.classification import METRICS

    table = artifact.table("results.parquet")
    most = table["fraction"].max()
    for name in METRICS:
        mean = table.filter(table["fraction"] == most)[name].drop_nulls().mean()
        if isinstance(mean, float) and math.isfinite(mean):
            yield name, mean


def _is_measure(value: float) -> bool:
    return not isinstance(value, bool) and math.isfinite(value)
