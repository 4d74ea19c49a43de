"""How complete and how pure a catalogue of detections is, both sides cut by one rule, with intervals and in bins."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.errors import ConfigError, InputError

SIGMA_95 = 1.959963984540054  # standard deviations of a normal distribution that hold 95 %


@dataclass(frozen=True)
class Counted:
    """What is judged after a cut of the truth.

    Attributes
    ----------
    truth
        bool, shape (N,): truths of the sample.
    detected
        bool, shape (M,): detections that are judged.
    found
        bool, shape (N,): truths of the sample with a detection.
    true
        bool, shape (M,): judged detections with a truth.
    """

    truth: NDArray[np.bool_]
    detected: NDArray[np.bool_]
    found: NDArray[np.bool_]
    true: NDArray[np.bool_]


def counted(
    of_truth: np.ndarray,
    of_detected: np.ndarray,
    *,
    truth_kept: np.ndarray | None = None,
    alone_kept: np.ndarray | None = None,
) -> Counted:
    """Cut truth and detections consistently.

    The matching is done before, against all truths. A detection that belongs to a truth outside the sample is not
    judged, neither as true nor as false, since it is a real source that was not asked for. A detection that belongs to
    no truth is judged by its own measurement. So a deeper detector is not punished for a shallow truth.

    Parameters
    ----------
    of_truth
        int64, shape (N,): detection of each truth, -1 without one.
    of_detected
        int64, shape (M,): truth of each detection, -1 without one.
    truth_kept
        bool, shape (N,): the sample, as ``mag_i <= 25.3``; a missing magnitude is not in it. None keeps all.
    alone_kept
        bool, shape (M,): of detections without a truth, which ones claim to be of the sample by their own measurement;
        let unknown measurements be True, which is the harder judgement. None judges all.

    Raises
    ------
    InputError
        The two sides contradict each other or have wrong lengths.
    """
    of_truth, of_detected = np.asarray(of_truth), np.asarray(of_detected)
    n, m = len(of_truth), len(of_detected)
    truth = np.ones(n, dtype=bool) if truth_kept is None else np.asarray(truth_kept, dtype=bool)
    alone = np.ones(m, dtype=bool) if alone_kept is None else np.asarray(alone_kept, dtype=bool)
    if len(truth) != n or len(alone) != m:
        raise InputError(f"cuts of {len(truth)} truths and {len(alone)} detections; expected {n} and {m}")
    has_truth, has_detection = of_detected >= 0, of_truth >= 0
    if (of_detected >= n).any() or (of_truth >= m).any():
        raise InputError("a match points beyond its catalogue; match again after the last change of a table")
    if (of_truth[of_detected[has_truth]] < 0).any() or (of_detected[of_truth[has_detection]] < 0).any():
        raise InputError("truths and detections do not point at each other; give both sides of one matching")
    true = has_truth.copy()
    true[has_truth] = truth[of_detected[has_truth]]
    return Counted(truth, true | (~has_truth & alone), truth & has_detection, true)


def brighter_than(mag: np.ndarray, faintest_mag: float, *, unknown: bool) -> np.ndarray:
    """Whether magnitudes reach a limit, the limit included; ``unknown`` says what NaN counts as."""
    mag = np.asarray(mag, dtype=np.float64)
    return np.where(np.isnan(mag), unknown, mag <= faintest_mag)


def scores(judged: Counted) -> dict[str, float | int]:
    """Completeness, purity and F1 of a catalogue, with Wilson intervals (95 %).

    Completeness is found truths / truths, purity true detections / judged detections, F1 their harmonic mean. What
    has no denominator is NaN.
    """
    n, m = int(judged.truth.sum()), int(judged.detected.sum())
    found, true = int(judged.found.sum()), int(judged.true.sum())
    completeness, purity = _ratio(found, n), _ratio(true, m)
    (c_low,), (c_high,) = wilson(np.array([found]), np.array([n]))
    (p_low,), (p_high,) = wilson(np.array([true]), np.array([m]))
    return {
        "truths": n, "detections": m, "found": found, "true": true, "missed": n - found, "false": m - true,
        "not_judged": int((~judged.detected).sum()),
        "completeness": completeness, "completeness_low": float(c_low), "completeness_high": float(c_high),
        "purity": purity, "purity_low": float(p_low), "purity_high": float(p_high), "f1": f1(completeness, purity),
    }  # fmt: skip


def binned(
    judged: Counted, *, truth_value: np.ndarray, detected_value: np.ndarray, edges: np.ndarray | list[float]
) -> pl.DataFrame:
    """Completeness in bins of the truth's value and purity in bins of the detection's own.

    Purity against the truth's value would be 1 by construction, as false detections have no truth.

    Parameters
    ----------
    judged
        See :func:`counted`.
    truth_value, detected_value
        Magnitude, S/N, size, separation, colour …, shapes (N,) and (M,); NaN lies in no bin.
    edges
        Rising, shape (B + 1,); bins are [low, high), the last one includes its end.

    Returns
    -------
    polars.DataFrame
        One row per bin: ``low``, ``high``, ``truths``, ``found``, ``completeness`` with ``_low`` and ``_high``,
        ``detections``, ``true``, ``purity`` with ``_low`` and ``_high``, ``f1``.
    """
    limits = np.asarray(edges, dtype=np.float64)
    if limits.ndim != 1 or len(limits) < 2 or not (np.diff(limits) > 0).all():
        raise ConfigError("edges: expected two or more rising numbers")

    def count(value: np.ndarray, mask: np.ndarray) -> np.ndarray:
        value = np.asarray(value, dtype=np.float64)
        if len(value) != len(mask):
            raise InputError(f"{len(value)} values for {len(mask)} rows; expected one each")
        return np.histogram(value[mask & np.isfinite(value)], limits)[0]

    columns: dict[str, np.ndarray] = {"low": limits[:-1], "high": limits[1:]}
    for value, whole, part, names in (
        (truth_value, judged.truth, judged.found, ("truths", "found", "completeness")),
        (detected_value, judged.detected, judged.true, ("detections", "true", "purity")),
    ):
        total, good = count(value, whole), count(value, part)
        low, high = wilson(good, total)
        with np.errstate(invalid="ignore"):
            share = good / total
        labels = (*names, f"{names[2]}_low", f"{names[2]}_high")
        columns |= dict(zip(labels, (total, good, share, low, high), strict=True))
    with np.errstate(invalid="ignore"):
        c, p = columns["completeness"], columns["purity"]
        columns["f1"] = np.where(c + p > 0, 2 * c * p / (c + p), np.where(c + p == 0, 0.0, np.nan))
    return pl.DataFrame(columns)


def f1(completeness: float, purity: float) -> float:
    """Harmonic mean of both; 0 if both are 0, NaN if one is unknown."""
    total = completeness + purity
    return 2 * completeness * purity / total if total > 0 else total


def wilson(good: np.ndarray, total: np.ndarray, *, sigma: float = SIGMA_95) -> tuple[np.ndarray, np.ndarray]:
    """Interval of a fraction (Wilson 1927, JASA 22, 209).

    Parameters
    ----------
    good, total
        Counts, shape (B,); NaN comes back where ``total`` is 0.
    sigma
        Normal quantile; 1.96 gives 95 %.

    Returns
    -------
    low, high : ndarray
        float64, shape (B,).
    """
    k, n = np.asarray(good, dtype=np.float64), np.asarray(total, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        share, z2 = k / n, sigma**2
        centre = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = sigma * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    return np.where(k == 0, np.where(n > 0, 0.0, np.nan), centre - half), np.where(
        (k == n) & (n > 0), 1.0, centre + half
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
