"""The numbers of a report on segmentation: scores, bins, curves, the best threshold, and the confusion matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from skyloom.metric.catalog_scores import wilson
from skyloom.metric.coco import KINDS, RECALLS
from skyloom.metric.confusion import confusion
from skyloom.metric.detection_scores import DetectionScores, mean

CLASSES, ANY = "classes", "any"
MODES = (CLASSES, ANY)
NOTHING = "nothing"  # class of what is neither true nor found
MATCH_IOU = 0.5  # of a match in recalls, the best threshold and the confusion matrix


@dataclass(frozen=True)
class Judged:
    """One catalogue against the truth.

    Attributes
    ----------
    scores : dict
        By mode what was collected: ``classes``, a detection must have the class of its truth, and ``any``, all are
        taken for one class.
    has_mag : bool
        Whether its detections have magnitudes.
    numbers : dict
        By mode AP and AR by name; ``operating`` (score, precision, recall, f1), ``confusion``, ``detections``.
    bins, curves, confusion : polars.DataFrame
        Rows of the tables.
    """

    scores: dict[str, DetectionScores]
    has_mag: bool
    numbers: dict[str, Any]
    bins: pl.DataFrame
    curves: pl.DataFrame
    confusion: pl.DataFrame


def empty_scores(
    classes: Sequence[str], areas: Mapping[str, tuple[float, float]], max_detections: int
) -> dict[str, DetectionScores]:
    """Where a catalogue is collected, by mode."""
    return {
        mode: DetectionScores(names, areas=areas, max_detections=max_detections)
        for mode, names in ((CLASSES, classes), (ANY, [ANY]))
    }


def add_image(
    scores: Mapping[str, DetectionScores], id: int, size_px: Sequence[int], truth: dict[str, Any], found: dict[str, Any]
) -> None:
    """Take one image in both modes."""
    for mode, one in scores.items():
        sides = [side if mode == CLASSES else side | {"labels": np.zeros_like(side["labels"])}
                 for side in (truth, found)]  # fmt: skip
        one.add(id, size_px, *sides)


def judged(
    scores: dict[str, DetectionScores], *, has_mag: bool, edges: Mapping[str, np.ndarray], operating_score: float | None
) -> Judged:
    """All numbers of one catalogue.

    Parameters
    ----------
    scores
        By mode, all images taken.
    has_mag
        Whether its detections have magnitudes.
    edges
        Edges of the bins by quantity of the truth.
    operating_score
        From which detections are counted in the confusion matrix; None: the one of the best F1.
    """
    curves = pl.concat(_curves(mode, one) for mode, one in scores.items())
    bins = [_bins(mode, one, name, own, has_mag) for mode, one in scores.items() for name, own in edges.items()]
    least = best_score(scores[ANY]) if operating_score is None else operating_score
    counts = confusion(scores[CLASSES], kind="mask", least_iou=MATCH_IOU, least_score=least)
    numbers: dict[str, Any] = {mode: one.compute() for mode, one in scores.items()}
    for name in [f"{kind}_{score}_{ANY}" for kind in KINDS for score in ("ap", "ar")]:
        del numbers[ANY][name]  # of its one class, the same as of all
    numbers |= {"operating": _operating(counts, least), "confusion": counts.tolist()}
    numbers |= {"detections": len(scores[ANY].objects("found")["labels"])}
    names = [*scores[CLASSES].classes, NOTHING]
    pairs = pl.DataFrame({"true": np.repeat(names, len(names)), "said": names * len(names), "number": counts.ravel()})
    return Judged(scores, has_mag, numbers, pl.concat(bins) if bins else _bins_table([]), curves, pairs)


def best_score(scores: DetectionScores) -> float:
    """Score from which detections have the best F1 of masks at an IoU of 0.5, by COCO's curve; 0 without any match."""
    found = scores.curves("mask")
    at = int(np.argmin(np.abs(np.asarray(scores.iou_thresholds) - MATCH_IOU)))
    precision, least = found.precision[at, :, 0, 0], found.scores[at, :, 0, 0]
    if not (np.nan_to_num(precision) > 0).any():
        return 0.0
    f1 = 2 * precision * RECALLS / np.maximum(precision + RECALLS, 1e-12)
    return float(least[int(np.nanargmax(f1))])


def _operating(counts: np.ndarray, least: float) -> dict[str, float]:
    """Precision and recall whatever the class, of a confusion matrix."""
    pairs = int(counts[:-1, :-1].sum())
    found, truths = int(counts[:, :-1].sum()), int(counts[:-1].sum())
    precision, recall = (pairs / number if number else float("nan") for number in (found, truths))
    f1 = 2 * pairs / (found + truths) if found + truths else float("nan")
    return {"score": least, "precision": precision, "recall": recall, "f1": f1}


def _curves(mode: str, scores: DetectionScores) -> pl.DataFrame:
    """Precision and score over recall, by class and IoU."""
    parts = []
    for kind in KINDS:
        found = scores.curves(kind)
        for label, name in enumerate(scores.classes):
            for at, iou in enumerate(scores.iou_thresholds):
                values = {"recall": RECALLS, "precision": found.precision[at, :, label, 0]}
                values |= {"score": found.scores[at, :, label, 0]}
                head = {"mode": mode, "kind": kind, "class": name, "iou": round(iou, 6)}
                parts.append(pl.DataFrame(values).select(*(pl.lit(v).alias(k) for k, v in head.items()), pl.all()))
    return pl.concat(parts).with_columns(pl.col("precision", "score").fill_nan(None))


def half_open(edges: np.ndarray) -> list[tuple[float, float]]:
    """The bins between edges as closed ranges: the lower edge belongs to a bin, the upper one to the last bin alone."""
    ends = [(float(low), float(np.nextafter(high, -np.inf))) for low, high in pairwise(edges)]
    return [*ends[:-1], (ends[-1][0], float(edges[-1]))]


def _bins(mode: str, scores: DetectionScores, quantity: str, edges: np.ndarray, has_mag: bool) -> pl.DataFrame:
    ranges = half_open(edges)
    of_truth = scores.objects("truth").get(quantity, np.zeros(0))
    rows = []
    for kind in KINDS:
        found = scores.curves(kind, ranges, (quantity, quantity if has_mag else None))
        at = int(np.argmin(np.abs(np.asarray(scores.iou_thresholds) - MATCH_IOU)))
        for number, (low, high) in enumerate(ranges):
            truths = int(((of_truth >= low) & (of_truth <= high)).sum())
            recall = mean(found.recall[at, :, number])
            ends = wilson(np.array([recall * truths]), np.array([truths])) if mode == ANY else np.full((2, 1), np.nan)
            rows.append(
                {"mode": mode, "kind": kind, "quantity": quantity, "low": float(edges[number]),
                 "high": float(edges[number + 1]), "truths": truths,
                 "ap": mean(found.precision[..., number]) if has_mag else float("nan"),
                 "ap50": mean(found.precision[at, :, :, number]) if has_mag else float("nan"),
                 "ar": mean(found.recall[..., number]), "recall50": recall,
                 "recall50_low": float(ends[0][0]), "recall50_high": float(ends[1][0])}
            )  # fmt: skip
    return _bins_table(rows)


def _bins_table(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    schema: dict[str, Any] = dict.fromkeys(("mode", "kind", "quantity"), pl.String)
    schema |= {"low": pl.Float64, "high": pl.Float64, "truths": pl.Int64}
    schema |= dict.fromkeys(("ap", "ap50", "ar", "recall50", "recall50_low", "recall50_high"), pl.Float64)
    return pl.DataFrame(list(rows), schema=schema).with_columns(pl.selectors.float().fill_nan(None))
