"""The rows of a comparison: results of equal parameters together, with means, spreads, intervals and differences."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from skyloom.metric.bootstrap import bootstrap_interval, bootstrap_weights
from skyloom.metric.classification import METRICS, confusion_matrix, scores_of
from skyloom.report.compare.entries import KEYS, Entry, differing
from skyloom.report.selection.numbers import stream

METHOD = "probe.task.method"


@dataclass
class Row:
    """Results of equal parameters.

    Attributes
    ----------
    facts : dict of str
        Parameters in which the entries differ; ``-`` where one has none of that name.
    method, fraction, labels, scheme : str, float, str, str
        What was measured.
    entries : list of Entry
        The runs that are averaged: they differ in seeds only.
    pieces : polars.DataFrame
        ``KEYS``, ``id`` of the run and metrics of all pieces.
    metrics : dict
        Per metric ``mean``, ``std`` over all pieces, ``std_runs`` over the means of the runs, and the ends ``low`` and
        ``high`` of the bootstrap interval; None where there is none.
    difference : dict
        Per metric the difference from the baseline's row; empty without one.
    """

    facts: dict[str, str]
    method: str
    fraction: float
    labels: str
    scheme: str
    entries: list[Entry]
    pieces: pl.DataFrame
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    difference: dict[str, dict[str, float | int | None]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The facts in a line; the id where there are none."""
        return ", ".join(self.facts.values()) or self.entries[0].artifact.id


def compare_rows(
    entries: list[Entry], *, average: list[str], baseline: Entry, metric: str, samples: int, seed: int
) -> list[Row]:
    """Put entries of equal parameters together and measure them.

    Parameters
    ----------
    entries
        What is compared.
    average
        Last parts of the names of parameters that are averaged over.
    baseline
        One of them, from which the others' differences are taken.
    metric
        By which the rows are sorted, the best first, within labels, method and fraction.
    samples
        Bootstrap samples; 0 makes no intervals.
    seed
        Start of the bootstrap.
    """
    columns = [name for name in differing([entry.facts for entry in entries], average) if name != METHOD]
    groups: dict[tuple[Any, ...], Row] = {}
    for entry in entries:
        facts = {name: entry.facts.get(name, "-") for name in columns}
        for (method, fraction), part in entry.scores.group_by(["method", "fraction"], maintain_order=True):
            own = part.select([*KEYS, *METRICS]).with_columns(id=pl.lit(entry.artifact.id))
            key = (tuple(facts.values()), method, fraction, entry.labels, entry.scheme)
            row = groups.get(key)
            if row is None:
                groups[key] = Row(facts, str(method), float(fraction), entry.labels, entry.scheme, [entry], own)
            else:
                row.entries.append(entry)
                row.pieces = pl.concat([row.pieces, own])
    rows = list(groups.values())
    resampled = _Resampled(samples, seed)
    for row in rows:
        row.metrics = {name: _statistics(row, name) | resampled.interval(row, name) for name in METRICS}
    for row in rows:
        reference = _reference(row, rows, baseline)
        if reference is not None and reference is not row:
            row.difference = {
                name: _paired(row, reference, name) | resampled.interval(row, name, reference) for name in METRICS
            }
    rows.sort(
        key=lambda row: (row.labels, row.scheme, row.method, -row.fraction, -_or_low(row.metrics[metric]["mean"]))
    )
    return rows


def pooled_confusion(row: Row) -> tuple[np.ndarray, list[str]] | None:
    """Confusion matrix of all runs of a row together, and its classes; None for multi-label or without predictions."""
    found = [_targets(entry, row.fraction) for entry in row.entries if entry.predictions is not None]
    if not found or any(not (truth.sum(1) == 1).all() for truth, _, _ in found):
        return None
    matrices = [confusion_matrix(truth, one) for truth, several, _ in found for one in several]
    return np.sum(matrices, axis=0), row.entries[0].classes


def _statistics(row: Row, metric: str) -> dict[str, float | None]:
    values = row.pieces[metric].drop_nulls()
    runs = row.pieces.group_by("id").agg(pl.col(metric).mean())[metric].drop_nulls()
    return {"mean": values.mean(), "std": values.std(), "std_runs": runs.std()}  # type: ignore[dict-item]


def _reference(row: Row, rows: list[Row], baseline: Entry) -> Row | None:
    """The row of the baseline's parameters that was measured as this one was."""
    own = [name for name in row.facts if name.startswith("probe.")]
    wanted = {name: baseline.facts.get(name, "-") for name in row.facts} | {name: row.facts[name] for name in own}
    same = [
        other for other in rows
        if (other.labels, other.scheme, other.method, other.fraction)
        == (row.labels, row.scheme, row.method, row.fraction) and other.facts == wanted
    ]  # fmt: skip
    return same[0] if same else None


def _paired(row: Row, reference: Row, metric: str) -> dict[str, float | int | None]:
    """Differences of pieces of equal fraction, seed and fold, each averaged over runs."""
    ours, theirs = (r.pieces.group_by(KEYS).agg(pl.col(metric).mean()).drop_nulls(metric) for r in (row, reference))
    both = ours.join(theirs, on=KEYS, suffix="_reference", nulls_equal=True)
    difference = (both[metric] - both[f"{metric}_reference"]).sort()  # the order of a join is not fixed
    found = difference.to_numpy()
    return {
        "mean": float(found.mean()) if len(found) else None,
        "std": float(found.std(ddof=1)) if len(found) > 1 else None,
        "pieces": len(found),
        "better": int((found > 0).sum()),
    }


class _Resampled:
    """Bootstrap intervals over one common test part; the same resamples for all rows of the same labels."""

    def __init__(self, samples: int, seed: int) -> None:
        self.samples, self.seed = samples, seed
        self._weights: dict[tuple[str, int], np.ndarray] = {}

    def interval(self, row: Row, metric: str, reference: Row | None = None) -> dict[str, float | None]:
        """Ends of the interval of a row's mean, or of its difference from another; None where it cannot be made."""
        sides = [row] if reference is None else [row, reference]
        nothing: dict[str, float | None] = {"low": None, "high": None}
        if self.samples == 0 or any(entry.predictions is None for side in sides for entry in side.entries):
            return nothing
        ids = {tuple(_items(entry)) for side in sides for entry in side.entries}
        if len(ids) != 1:
            return nothing  # other labels had features: not the same test part
        entry = row.entries[0]
        key = (entry.labels, len(next(iter(ids))))
        if key not in self._weights:
            rng = stream(self.seed, f"bootstrap {key}")
            self._weights[key] = bootstrap_weights(_items(entry, "group"), self.samples, rng)
        means = [_mean_score(side, metric) for side in sides]
        score = means[0] if reference is None else (lambda w: means[0](w) - means[1](w))
        low, high = bootstrap_interval([score], self._weights[key])
        return {"low": low, "high": high} if np.isfinite(low) else nothing


def _mean_score(row: Row, metric: str) -> Callable[[np.ndarray], float]:
    """The score of weighted test items, averaged over the seeds and runs of a row."""
    several = []
    for entry in row.entries:
        truth, predicted, multi_label = _targets(entry, row.fraction)
        several += [(truth, one, multi_label) for one in predicted]

    def score(weight: np.ndarray) -> float:
        return float(np.mean([scores_of(t, p, multi_label=m, weight=weight)[metric] for t, p, m in several]))

    return score


def _items(entry: Entry, column: str = "cutout_id") -> np.ndarray:
    """A column of the common test part, once."""
    assert entry.predictions is not None
    first = entry.predictions.filter(
        (pl.col("fraction") == entry.predictions["fraction"][0]) & (pl.col("seed") == entry.predictions["seed"][0])
    )
    return first[column].to_numpy()


def _targets(entry: Entry, fraction: float) -> tuple[np.ndarray, list[np.ndarray], bool]:
    """Truth (N, C), predictions (N, C) per seed, and whether labels are multi-label."""
    assert entry.predictions is not None
    part = entry.predictions.filter(pl.col("fraction") == fraction)
    seeds = part["seed"].unique().sort().to_list()
    pieces = [part.filter(pl.col("seed") == seed) for seed in seeds]
    truth = _hot(pieces[0]["truth"], entry.classes)
    return truth, [_hot(p["predicted"], entry.classes) for p in pieces], bool(entry.artifact.notes.get("multi_label"))


def _hot(names: pl.Series, classes: list[str]) -> np.ndarray:
    number = {name: i for i, name in enumerate(classes)}
    found = np.zeros((len(names), len(classes)), dtype=bool)
    for i, own in enumerate(names.to_list()):
        found[i, [number[name] for name in own]] = True
    return found


def _or_low(value: float | None) -> float:
    return -1.0 if value is None else value
