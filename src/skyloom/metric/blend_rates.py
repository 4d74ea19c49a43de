"""Rates of the blend flags of truths and detections, with Wilson and bootstrap intervals."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.metric.bootstrap import INTERVAL, bootstrap_sums
from skyloom.metric.catalog_scores import wilson

# Each rate is a count over a count. Those of truths first, then those of detections.
RATES = {
    "completeness": ("truths_matched", "truths"),
    "missed_frac": ("truths_missed", "truths"),
    "blend_loss_frac": ("truths_blended_away", "truths"),
    "unrec_blend_frac_total": ("truths_unrec", "truths"),
    "unrec_blend_frac_blended": ("truths_unrec", "truths_in_blends"),
    "unrec_blend_frac_matched": ("truths_matched_unrec", "truths_matched"),
    "resolved_frac": ("truths_resolved", "truths_in_blends"),
    "shred_frac": ("truths_shredded", "truths"),
    "purity": ("detections_matched", "detections"),
    "spurious_frac": ("detections_spurious", "detections"),
    "shred_det_frac": ("detections_shreds", "detections"),
    "unrec_blend_frac_detections": ("detections_unrec", "detections"),
}
F1 = "f1"  # of completeness and purity: no fraction of a number, so it has a bootstrap interval only
TRUTH_FLAGS = {
    "matched": "is_matched", "missed": "is_missed", "blended_away": "is_blended_away", "unrec": "is_unrec_blend",
    "in_blends": "is_part_of_blend", "resolved": "is_resolved_blend", "shredded": "is_shredded",
}  # fmt: skip
DETECTED_FLAGS = {
    "matched": "is_matched", "spurious": "is_spurious", "shreds": "is_shred", "unrec": "is_unrec_blend",
}  # fmt: skip
COUNTS = (
    "truths", *(f"truths_{name}" for name in TRUTH_FLAGS), "truths_matched_unrec",
    "detections", *(f"detections_{name}" for name in DETECTED_FLAGS),
)  # fmt: skip


def blend_rates(
    truth_flags: pl.DataFrame,
    detected_flags: pl.DataFrame,
    *,
    truth_kept: np.ndarray | None = None,
    detected_kept: np.ndarray | None = None,
    samples: int = 0,
    rng: np.random.Generator | None = None,
) -> dict[str, dict[str, float | int]]:
    """Rates of the flags that :func:`skyloom.match.blend_flags` gives.

    Parameters
    ----------
    truth_flags, detected_flags
        Its two tables.
    truth_kept, detected_kept
        bool, shapes (N,) and (M,): what is judged, as ``truth`` and ``detected`` of
        :class:`skyloom.metric.catalog_scores.Counted`; None judges all.
    samples
        Bootstrap resamples; connected components are drawn whole, as their members are no independent evidence.
    rng
        The stream of the bootstrap; needed with ``samples``.

    Returns
    -------
    dict
        By rate (:data:`RATES` and ``f1``): ``value``, ``part``, ``whole``, ``low`` and ``high`` (Wilson, 95 %),
        ``bootstrap_low`` and ``bootstrap_high`` (percentiles, 95 %). NaN without a denominator.
    """
    group, values = _counts(truth_flags, detected_flags, truth_kept, detected_kept)
    total = dict(zip(COUNTS, values.sum(0).tolist(), strict=True))
    ends: dict[str, tuple[float, float]] = {}
    if samples and len(group):
        if rng is None:
            raise InputError("a bootstrap needs a random stream; give rng")
        drawn = bootstrap_sums(group, values, samples, rng)
        ends = {name: _ends(found) for name, found in _rates(drawn).items()}
    point = {name: float(found[0]) for name, found in _rates(values.sum(0, keepdims=True)).items()}
    result: dict[str, dict[str, float | int]] = {}
    for name, value in point.items():
        result[name] = {"value": value}
        if name != F1:
            part, whole = (int(total[key]) for key in RATES[name])
            low, high = wilson(np.array([part]), np.array([whole]))
            result[name] |= {"part": part, "whole": whole, "low": float(low[0]), "high": float(high[0])}
        if ends:
            result[name] |= {"bootstrap_low": ends[name][0], "bootstrap_high": ends[name][1]}
    return result


def _counts(
    truth: pl.DataFrame, detected: pl.DataFrame, truth_kept: np.ndarray | None, detected_kept: np.ndarray | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Component (N + M,) and what each row adds to each of ``COUNTS`` (N + M, C)."""
    n, m = len(truth), len(detected)
    kept = [np.ones(size, bool) if own is None else np.asarray(own, bool)
            for own, size in ((truth_kept, n), (detected_kept, m))]  # fmt: skip
    if len(kept[0]) != n or len(kept[1]) != m:
        raise InputError(f"cuts of {len(kept[0])} truths and {len(kept[1])} detections; expected {n} and {m}")
    columns = [truth[name].to_numpy() for name in TRUTH_FLAGS.values()]
    columns.append((truth["is_matched"] & truth["is_unrec_blend"]).to_numpy())
    others = [detected[name].to_numpy() for name in DETECTED_FLAGS.values()]
    values = np.zeros((n + m, len(COUNTS)), dtype=np.int64)
    first = len(columns) + 1
    values[:n, :first] = np.column_stack([kept[0], *(kept[0] & own for own in columns)])
    values[n:, first:] = np.column_stack([kept[1], *(kept[1] & own for own in others)])
    return np.concatenate([truth["component"].to_numpy(), detected["component"].to_numpy()]), values


def _rates(sums: np.ndarray) -> dict[str, NDArray[np.float64]]:
    """Every rate of sums (S, C)."""
    of = dict(zip(COUNTS, np.asarray(sums, dtype=np.float64).T, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = {name: of[part] / of[whole] for name, (part, whole) in RATES.items()}
        both = rates["completeness"] + rates["purity"]
        rates[F1] = np.where(both == 0, 0.0, 2 * rates["completeness"] * rates["purity"] / both)
    return rates


def _ends(found: np.ndarray) -> tuple[float, float]:
    found = found[np.isfinite(found)]
    return tuple(np.percentile(found, INTERVAL).tolist()) if len(found) else (float("nan"), float("nan"))
