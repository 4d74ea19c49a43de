"""Measures the pieces of a probe and writes what every probe writes, whatever its method."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.datamodule.labels import Labels
from skyloom.metric.classification import METRICS, class_report, confusion_matrix, predicted_targets, scores_of
from skyloom.probe.options import ProbeOptions
from skyloom.probe.pieces import Piece, Plan
from skyloom.progress import progress, say
from skyloom.store import Build

RESULTS: Any = {
    "method": pl.String, "fraction": pl.Float64, "seed": pl.Int64, "fold": pl.Int64, "split": pl.String,
    "n_train": pl.Int64, "n_val": pl.Int64, "n_test": pl.Int64, "classes_in_train": pl.Int64, "chosen": pl.Float64,
    "chosen_on": pl.String, **dict.fromkeys(METRICS, pl.Float64),
}  # fmt: skip
PREDICTIONS: Any = {
    "fraction": pl.Float64, "seed": pl.Int64, "fold": pl.Int64, "cutout_id": pl.Int64, "group": pl.Int64,
    "truth": pl.List(pl.String), "predicted": pl.List(pl.String), "scores": pl.List(pl.Float32),
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a method says of the test items of a piece.

    Attributes
    ----------
    scores : ndarray
        float32 (M, C).
    chosen : float
        k, or the strength of the penalty, or the number of epochs.
    chosen_on : str
        How it was chosen: ``given``, ``val``, ``inner folds`` or ``too few to choose``.
    """

    scores: np.ndarray
    chosen: float
    chosen_on: str


def measure(
    build: Build,
    answer: Callable[[Piece], Answer],
    labels: Labels,
    labels_id: str,
    plan: Plan,
    options: ProbeOptions,
) -> None:
    """Measure all pieces, each of which survives an interruption, and write tables and numbers.

    Parameters
    ----------
    build
        Where to write.
    answer
        Gives the scores of a piece.
    labels
        Those that are used.
    labels_id
        Of the artifact.
    plan
        The pieces.
    options
        Of the probe.
    """
    rows, tables = [], []
    predictions: dict[float, list[tuple[np.ndarray, np.ndarray]]] = {}
    with progress(len(plan.pieces), f"probe {options.method}", "pieces") as bar:
        for piece in plan.pieces:

            def make(path: Path, piece: Piece = piece) -> None:
                found = answer(piece)
                with path.open("wb") as file:
                    np.savez(file, scores=found.scores, chosen=found.chosen, chosen_on=np.array(found.chosen_on))

            with np.load(build.shard(piece.key, make)) as saved:
                found = Answer(saved["scores"], float(saved["chosen"]), str(saved["chosen_on"]))
            predicted = predicted_targets(found.scores, labels.multi_label)
            rows.append(_result(piece, found, predicted, labels, options.method))
            tables.append(_predictions(piece, found, predicted, labels))
            predictions.setdefault(piece.fraction, []).append((labels.targets[piece.test], predicted))
            bar.advance()
    results = pl.DataFrame(rows, schema=RESULTS, orient="row")
    for name, table in (("results", results), ("predictions", pl.concat(tables))):
        with build.write(f"{name}.parquet") as path:
            table.write_parquet(path)
    build.table = "results.parquet"
    summary = summarise(results)
    build.write_json("numbers.json", {
        "method": options.method, "split": plan.scheme, "classes": labels.classes, "multi_label": labels.multi_label,
        "members": labels.targets.sum(0).tolist(), "summary": summary, **plan.facts,
        "fractions": [{"fraction": fraction, **_of_fraction(pairs, labels)} for fraction, pairs in predictions.items()],
    })  # fmt: skip
    build.drop("in no part of the split", len(plan.unused), why=f"the labels' {plan.scheme} leave them out",
               examples=[f"cutout {i}" for i in labels.cutout_id[plan.unused][:20]])  # fmt: skip
    build.count(pieces=len(rows))
    build.note(method=options.method, labels=labels_id, classes=labels.classes, multi_label=labels.multi_label,
               split=plan.scheme, summary=summary, **plan.facts)  # fmt: skip
    say(text_table(summary, f"probe {build.request.id}: {options.method}, {plan.scheme}"))


def summarise(results: pl.DataFrame) -> list[dict[str, Any]]:
    """Mean and standard deviation (n - 1) of each metric over seeds and folds, per fraction; None for one piece."""
    found = []
    for (fraction,), part in results.group_by(["fraction"], maintain_order=True):
        entry: dict[str, Any] = {"fraction": fraction, "pieces": len(part), "n_train": int(part["n_train"].mean())}  # type: ignore[arg-type]
        for metric in METRICS:
            values = part[metric].drop_nulls()
            entry[metric] = {"mean": values.mean(), "std": values.std()}
        found.append(entry)
    return found


def text_table(summary: list[dict[str, Any]], title: str) -> str:
    """The summary as lines for a terminal."""
    lines = [["labels", "trained on", "pieces", *METRICS]]
    for entry in summary:
        values = [_spread(entry[metric]) for metric in METRICS]
        lines.append([f"{100 * entry['fraction']:g} %", f"{entry['n_train']:,}", str(entry["pieces"]), *values])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join([title] + ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines])


def _spread(value: dict[str, float | None]) -> str:
    if value["mean"] is None:
        return "-"
    return f"{value['mean']:.3f}" + (f" ± {value['std']:.3f}" if value["std"] is not None else "")


def _result(piece: Piece, found: Answer, predicted: np.ndarray, labels: Labels, method: str) -> list[Any]:
    measured = scores_of(labels.targets[piece.test], predicted, multi_label=labels.multi_label)
    present = int(labels.targets[piece.train].any(0).sum())
    return [
        method, piece.fraction, piece.seed, piece.fold, "test", len(piece.train), len(piece.val), len(piece.test),
        present, found.chosen, found.chosen_on, *(None if np.isnan(measured[m]) else measured[m] for m in METRICS),
    ]  # fmt: skip


def _predictions(piece: Piece, found: Answer, predicted: np.ndarray, labels: Labels) -> pl.DataFrame:
    names, number = np.array(labels.classes, dtype=object), len(piece.test)
    return pl.DataFrame(
        {
            "fraction": [piece.fraction] * number,
            "seed": [piece.seed] * number,
            "fold": [piece.fold] * number,
            "cutout_id": labels.cutout_id[piece.test],
            "group": labels.group[piece.test],
            "truth": [names[row].tolist() for row in labels.targets[piece.test]],
            "predicted": [names[row].tolist() for row in predicted],
            "scores": found.scores.tolist(),
        },
        schema=PREDICTIONS,
    )


def _of_fraction(pairs: list[tuple[np.ndarray, np.ndarray]], labels: Labels) -> dict[str, Any]:
    """Report per class and confusion matrix of all pieces of a fraction together."""
    truth, predicted = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    matrix = None if labels.multi_label else confusion_matrix(truth, predicted).tolist()
    return {"per_class": class_report(truth, predicted, labels.classes), "confusion": matrix}
