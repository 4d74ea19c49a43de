"""Blends of a truth and a detection catalogue: labels of groups, flags per connected component, unrecognised blends."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from skyloom.errors import ConfigError
from skyloom.match.assign import Assignment
from skyloom.match.pairs import Pairs
from skyloom.match.points import Points
from skyloom.sky.geometry.sphere import chord

GROUP_LABELS = (
    "isolated_match",
    "candidate_res_blend",
    "missed_false_neg",
    "spurious_false_pos",
    "unrec_blend",
    "shredded",
    "complex_merge",
    "complex_shred",
)


def group_labels(n_truth: np.ndarray, n_detected: np.ndarray) -> np.ndarray:
    """Label of a friends-of-friends group by its members of either kind (stage 1).

    Parameters
    ----------
    n_truth, n_detected
        Members, shape (G,), not both 0.

    Returns
    -------
    ndarray
        Texts, shape (G,): 1:1 ``isolated_match``, N:N ``candidate_res_blend``, N:0 ``missed_false_neg``, 0:N
        ``spurious_false_pos``, N:1 ``unrec_blend``, 1:N ``shredded``, N>M>1 ``complex_merge``, M>N>1
        ``complex_shred`` (truth first).
    """
    n, m = np.asarray(n_truth), np.asarray(n_detected)
    if ((n < 0) | (m < 0) | (n + m == 0)).any():
        raise ConfigError("a group has members: n_truth and n_detected are not negative and not both 0")
    tests = [(n == 1) & (m == 1), n == m, m == 0, n == 0, m == 1, n == 1, n > m, m > n]
    return np.select(tests, GROUP_LABELS, default="")


def group_counts(groups: pl.DataFrame, *, truth: str, detected: str) -> pl.DataFrame:
    """Count and label the groups of :func:`skyloom.match.fof.fof_table`.

    Returns
    -------
    polars.DataFrame
        ``group_id``, ``n_truth``, ``n_detected``, ``label``; groups of other catalogues only are left out.
    """
    counted = groups.group_by("group_id").agg(
        n_truth=(pl.col("catalog_key") == truth).sum().cast(pl.Int64),
        n_detected=(pl.col("catalog_key") == detected).sum().cast(pl.Int64),
    )
    counted = counted.filter(pl.col("n_truth") + pl.col("n_detected") > 0).sort("group_id")
    label = group_labels(counted["n_truth"].to_numpy(), counted["n_detected"].to_numpy())
    return counted.with_columns(label=pl.Series(label, dtype=pl.String))


def blend_flags(pairs: Pairs, matched: Assignment) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Flags of truths and detections (stage 2), per connected component of the graph of close pairs.

    One radius decides: that of ``pairs``. A component is what the edges connect, so two clean pairs that a
    friends-of-friends group chains together stay two clean pairs, and one absorbed truth marks only the members of its
    own component.

    Parameters
    ----------
    pairs
        Edges between truths (left) and detections (right).
    matched
        A one-to-one assignment of these pairs.

    Returns
    -------
    truth, detected : polars.DataFrame
        One row per row of either catalogue. Both: ``component`` (number shared by both tables), ``is_matched``,
        ``matched_row`` (-1 without one), ``sep_arcsec`` (NaN without one), ``is_part_of_blend`` (its component has two
        truths or more), ``is_resolved_blend`` (such a component with all truths matched; a detection only if it is
        matched), ``is_unrec_blend`` (such a component with an unmatched truth), ``is_partial_deblend`` (an unrecognised
        one with at least one match). Truths: ``is_missed`` (unmatched, no edge), ``is_blended_away`` (unmatched, with
        an edge), ``is_shredded`` (an edge to an unmatched detection). Detections: ``is_spurious`` (unmatched, no edge),
        ``is_shred`` (unmatched, with an edge).
    """
    if len(np.unique(matched.left)) != len(matched) or len(np.unique(matched.right)) != len(matched):
        raise ConfigError("blend flags need a one-to-one assignment; assign() and mutual_nearest() make one")
    n, m = pairs.sizes
    of_truth, of_detected = pairs.components()
    components = n + m
    has_edge, det_has_edge = _mark(pairs.left, n), _mark(pairs.right, m)
    partner, det_partner = matched.of_left, matched.of_right
    is_matched, det_is_matched = partner >= 0, det_partner >= 0
    truths = np.bincount(of_truth[has_edge], minlength=components)
    matches = np.bincount(of_truth[is_matched], minlength=components)
    blend = truths >= 2
    unrec = blend & (matches < truths)
    resolved, partial = blend & ~unrec, unrec & (matches > 0)
    shred_edge = ~det_is_matched[pairs.right]

    def table(component: np.ndarray, rows: np.ndarray, edge: np.ndarray, sep: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "component": component,
            "is_matched": rows >= 0,
            "matched_row": rows,
            "sep_arcsec": sep,
            "is_part_of_blend": blend[component] & edge,
            "is_resolved_blend": resolved[component] & edge & (rows >= 0),  # all truths of a resolved one are matched
            "is_unrec_blend": unrec[component] & edge,
            "is_partial_deblend": partial[component] & edge,
        }

    truth = table(of_truth, partner, has_edge, _separations(matched.left, matched.sep_arcsec, n))
    detected = table(of_detected, det_partner, det_has_edge, _separations(matched.right, matched.sep_arcsec, m))
    truth |= {
        "is_missed": ~is_matched & ~has_edge,
        "is_blended_away": ~is_matched & has_edge,
        "is_shredded": _mark(pairs.left[shred_edge], n),
    }
    detected |= {"is_spurious": ~det_is_matched & ~det_has_edge, "is_shred": ~det_is_matched & det_has_edge}
    return pl.DataFrame(truth), pl.DataFrame(detected)


def unrecognised_by_groups(groups: pl.DataFrame, *, truth: str, detected: str) -> np.ndarray:
    """Whether each detection is an unrecognised blend by group counts: alone in a group with two truths or more.

    As Figure 11 of Troxel et al. 2023 (MNRAS 522, 2801). Returns bool, shape (M,), in the order of the detections.
    """
    counts = group_counts(groups, truth=truth, detected=detected)
    rows = groups.filter(pl.col("catalog_key") == detected).join(counts, on="group_id", how="left").sort("row_index")
    return ((rows["n_detected"] == 1) & (rows["n_truth"] > 1)).to_numpy()


def unrecognised_by_neighbours(
    truth: Points,
    detected: Points,
    radius_arcsec: float,
    *,
    truth_mag: np.ndarray | None = None,
    window_mag: float | None = None,
) -> Mapping[str, np.ndarray]:
    """Unrecognised blends by counting neighbours of each detection (as in the technical note SITCOMTN-128).

    Parameters
    ----------
    truth, detected
        Unit vectors, shapes (N, 3) and (M, 3).
    radius_arcsec
        Of the circle about each detection.
    truth_mag
        Magnitudes of the truths, shape (N,); needed with ``window_mag``. NaN is never counted.
    window_mag
        Count only truths at most this much fainter than the brightest in the circle; None counts all.

    Returns
    -------
    dict of ndarray
        Shape (M,): ``n_detected`` (itself included), ``n_truth``, ``considered`` (the denominator: n_truth is at least
        n_detected and above 0), ``unrecognised`` (n_truth above n_detected).
    """
    if window_mag is not None and truth_mag is None:
        raise ConfigError("window_mag needs the magnitudes of the truth: give truth_mag")
    n_detected, n_truth = np.zeros(len(detected), dtype=np.int64), np.zeros(len(detected), dtype=np.int64)
    if len(detected):
        radius = float(chord(radius_arcsec)) * (1 + 1e-9) + 1e-15
        tree = cKDTree(detected)
        n_detected = np.asarray(tree.query_ball_point(detected, radius, return_length=True), dtype=np.int64)
        if len(truth) and window_mag is None:
            n_truth = np.asarray(cKDTree(truth).query_ball_point(detected, radius, return_length=True), dtype=np.int64)
        elif len(truth):
            mag = np.asarray(truth_mag, dtype=np.float64)
            edges = tree.sparse_distance_matrix(cKDTree(truth), radius, output_type="ndarray")
            row, near = edges["i"].astype(np.int64), mag[edges["j"].astype(np.int64)]
            row, near = row[np.isfinite(near)], near[np.isfinite(near)]
            brightest = np.full(len(detected), np.inf)
            np.minimum.at(brightest, row, near)
            n_truth = np.bincount(row[near <= brightest[row] + float(window_mag or 0)], minlength=len(detected))
    considered = (n_truth >= n_detected) & (n_truth > 0)
    unrecognised = considered & (n_truth > n_detected)
    return {"n_detected": n_detected, "n_truth": n_truth, "considered": considered, "unrecognised": unrecognised}


def unrecognised_by_graph(truth_flags: pl.DataFrame) -> np.ndarray:
    """Whether each truth is in an unrecognised blend by the flags of :func:`blend_flags`; bool, shape (N,)."""
    return truth_flags["is_unrec_blend"].to_numpy()


def _mark(rows: np.ndarray, number: int) -> np.ndarray:
    marked = np.zeros(number, dtype=bool)
    marked[rows] = True
    return marked


def _separations(rows: np.ndarray, sep: np.ndarray, number: int) -> np.ndarray:
    values = np.full(number, np.nan)
    values[rows] = sep
    return values
