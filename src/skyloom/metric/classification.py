"""How good predicted classes are: accuracy, balanced accuracy, macro-F1, per class, for one or several labels each."""

from typing import Any

import numpy as np

from skyloom.errors import InputError

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")


def predicted_targets(scores: np.ndarray, multi_label: bool) -> np.ndarray:
    """Turn scores (N, C) into predicted classes, bool (N, C): the best one of each row, or all of at least 0.5."""
    if multi_label:
        return scores >= 0.5
    found = np.zeros(scores.shape, dtype=bool)
    found[np.arange(len(scores)), scores.argmax(1)] = True
    return found


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Count what was taken for what.

    Parameters
    ----------
    truth, predicted
        bool (N, C) with one True per row.

    Returns
    -------
    ndarray
        int64 (C, C): row is the true class, column the predicted one.
    """
    _check(truth, predicted)
    if not ((truth.sum(1) == 1).all() and (predicted.sum(1) == 1).all()):
        raise InputError("a confusion matrix needs one true and one predicted class each; use class_counts")
    classes = truth.shape[1]
    cells = truth.argmax(1) * classes + predicted.argmax(1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def class_counts(truth: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Count right and wrong answers per class.

    Parameters
    ----------
    truth, predicted
        bool (N, C).
    weight
        (N,) how often each row counts; None counts each once.

    Returns
    -------
    ndarray
        float64 (4, C): true positives, false positives, false negatives, true negatives.
    """
    _check(truth, predicted)
    w = np.ones(len(truth)) if weight is None else weight
    pairs = (truth & predicted, ~truth & predicted, truth & ~predicted, ~truth & ~predicted)
    return np.stack([w @ pair for pair in pairs])


def scores_of(
    truth: np.ndarray, predicted: np.ndarray, *, multi_label: bool, weight: np.ndarray | None = None
) -> dict[str, float]:
    """Measure predictions.

    Parameters
    ----------
    truth, predicted
        bool (N, C).
    multi_label
        Whether a row may have several classes, or none.
    weight
        (N,) how often each row counts (a bootstrap sample); None counts each once.

    Returns
    -------
    dict
        ``accuracy``: share of rows that are wholly right. ``balanced_accuracy``: mean recall of the classes that occur
        (Brodersen et al. 2010); multi-label: mean over classes of (recall + specificity) / 2, of those that occur and
        are absent at least once. ``macro_f1``: mean F1 of the classes that occur or are predicted. NaN without rows.

    Notes
    -----
    As ``accuracy_score``, ``balanced_accuracy_score`` and ``f1_score(average="macro")`` of scikit-learn define them.
    """
    tp, fp, fn, tn = class_counts(truth, predicted, weight)
    w = np.ones(len(truth)) if weight is None else weight
    right = (truth == predicted).all(1)
    occurs = tp + fn > 0
    if multi_label:
        both = occurs & (fp + tn > 0)
        balanced = (_ratio(tp, tp + fn) + _ratio(tn, tn + fp))[both] / 2
    else:
        balanced = _ratio(tp, tp + fn)[occurs]
    f1 = _ratio(2 * tp, 2 * tp + fp + fn)[tp + fp + fn > 0]
    return {
        "accuracy": float(w @ right / w.sum()) if w.sum() > 0 else float("nan"),
        "balanced_accuracy": _mean(balanced),
        "macro_f1": _mean(f1),
    }


def class_report(truth: np.ndarray, predicted: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of true members of each class; None where a denominator is 0."""
    tp, fp, fn, _ = class_counts(truth, predicted)
    return [
        {
            "class": name,
            "number": int(tp[i] + fn[i]),
            "predicted": int(tp[i] + fp[i]),
            "precision": _share(tp[i], tp[i] + fp[i]),
            "recall": _share(tp[i], tp[i] + fn[i]),
            "f1": _share(2 * tp[i], 2 * tp[i] + fp[i] + fn[i]),
        }
        for i, name in enumerate(classes)
    ]


def _check(truth: np.ndarray, predicted: np.ndarray) -> None:
    if truth.ndim != 2 or truth.shape != predicted.shape or truth.dtype != bool or predicted.dtype != bool:
        raise InputError(
            "expected truth and predicted classes as two bool arrays (N, C), "
            f"found {truth.dtype} {truth.shape} and {predicted.dtype} {predicted.shape}"
        )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _share(part: float, whole: float) -> float | None:
    return round(float(part / whole), 6) if whole > 0 else None
