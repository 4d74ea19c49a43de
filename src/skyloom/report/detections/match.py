"""Matches a catalogue to the truth, and gives every row its place: match, flags, neighbours, density."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from skyloom.errors import ConfigError
from skyloom.match import Pairs, assign, blend_flags, close_pairs, mutual_nearest, nearest
from skyloom.match.assign import mixed_cost
from skyloom.report.detections.tables import Sources
from skyloom.sky.geometry.sphere import ARCSEC, angle_arcsec, chord

Method = Literal["assign", "mutual", "nearest"]
Cost = Literal["separation", "mixed"]


@dataclass(frozen=True)
class Matching:
    """How to match: the radius within which a pair may belong together, the method, and the cost of a pair."""

    radius_arcsec: float
    method: Method
    cost: Cost
    sep_scale_arcsec: float
    mag_scale: float


@dataclass(frozen=True)
class Matched:
    """A catalogue beside the truth.

    Attributes
    ----------
    truth, detected
        The two tables.
    pairs
        All pairs within the radius, truth left.
    of_truth, of_detected
        int64, shapes (N,) and (M,): row of the other side, -1 without one.
    truth_flags, detected_flags
        Of :func:`skyloom.match.blend_flags`; None when the matching is not one-to-one.
    """

    truth: Sources
    detected: Sources
    pairs: Pairs
    of_truth: np.ndarray
    of_detected: np.ndarray
    truth_flags: pl.DataFrame | None
    detected_flags: pl.DataFrame | None

    @property
    def matches(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the truth and of the detections that belong together, one entry per matched detection."""
        detected = np.flatnonzero(self.of_detected >= 0)
        return self.of_detected[detected], detected


def match_sources(truth: Sources, detected: Sources, how: Matching) -> Matched:
    """Match a catalogue to all truths, whatever their magnitudes; cuts come after.

    Raises
    ------
    ConfigError
        The cost needs magnitudes that one side lacks, or the method takes no cost.
    """
    pairs = close_pairs(truth.points, detected.points, how.radius_arcsec)
    if how.method == "nearest":  # a detection belongs to the truth nearest to it, and a truth may have several
        turned = Pairs(pairs.right, pairs.left, pairs.sep_arcsec, (pairs.sizes[1], pairs.sizes[0]))
        found = nearest(turned)
        return Matched(truth, detected, pairs, found.of_right, found.of_left, None, None)
    one = mutual_nearest(pairs) if how.method == "mutual" else assign(pairs, _costs(pairs, truth, detected, how))
    flags = blend_flags(pairs, one)
    return Matched(truth, detected, pairs, one.of_left, one.of_right, *flags)


def _costs(pairs: Pairs, truth: Sources, detected: Sources, how: Matching) -> np.ndarray | None:
    if how.cost == "separation":
        return None
    for side in (truth, detected):
        if "mag" not in side.has:
            raise ConfigError(
                f"cost=mixed needs magnitudes, and {side.name} has none; name its column with "
                f"columns={{{side.name}: {{mag: NAME}}}}, or take cost=separation"
            )
    return mixed_cost(
        pairs, sep_scale_arcsec=how.sep_scale_arcsec, mag_scale=how.mag_scale, left_mag=truth.values("mag"),
        right_mag=detected.values("mag"),
    )  # fmt: skip


def matches_table(matched: Matched) -> pl.DataFrame:
    """Every matched detection with its truth: ids, rows of the tables that were read, separation, magnitudes."""
    left, right = matched.matches
    truth, detected = matched.truth.frame[left], matched.detected.frame[right]
    gap = np.linalg.norm(matched.truth.points[left] - matched.detected.points[right], axis=1)
    return pl.DataFrame(
        {
            "truth_id": truth["id"], "detected_id": detected["id"], "truth_row": truth["row"],
            "detected_row": detected["row"], "sep_arcsec": angle_arcsec(gap), "truth_mag": truth["mag"],
            "detected_mag": detected["mag"], "truth_class": truth["category"], "detected_class": detected["category"],
        }
    )  # fmt: skip


def flags_tables(matched: Matched) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of either side with id, position and flags; with method=nearest only whether they are matched."""
    tables = []
    sides = (
        (matched.truth, matched.of_truth, matched.truth_flags, matched.detected),
        (matched.detected, matched.of_detected, matched.detected_flags, matched.truth),
    )
    for sources, partner, flags, other in sides:
        table = sources.frame.select("id", "row", "ra_deg", "dec_deg", "mag")
        at = pl.Series(partner, dtype=pl.Int64)
        matched_id = other.frame["id"].gather(at.set(at < 0, None))
        table = table.with_columns(is_matched=at >= 0, matched_id=matched_id)
        if flags is not None:
            table = table.with_columns(flags.drop("is_matched", "matched_row"))
        tables.append(table)
    return tables[0], tables[1]


def neighbour_separations(matched: Matched) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest other truth, arcsec, of each truth (N,) and each detection (M,); inf without one.

    "Other" of a detection is any truth but the one that it is matched to.
    """
    n = len(matched.truth)
    own = np.arange(n), matched.of_detected
    result = []
    for points, partner in zip((matched.truth.points, matched.detected.points), own, strict=True):
        if n == 0 or len(points) == 0:
            result.append(np.full(len(points), np.inf))
            continue
        chords, rows = cKDTree(matched.truth.points).query(points, k=[1, 2])
        first_is_own = rows[:, 0] == partner
        nearest_other = np.where(first_is_own, chords[:, 1], chords[:, 0])
        result.append(np.where(np.isfinite(nearest_other), angle_arcsec(np.minimum(nearest_other, 2)), np.inf))
    return result[0], result[1]


def densities(truth: Sources, points: np.ndarray, radius_arcsec: float) -> np.ndarray:
    """Truths per square arcmin within a circle about each point, float64 (M,)."""
    if len(truth) == 0 or len(points) == 0:
        return np.zeros(len(points))
    counts = cKDTree(truth.points).query_ball_point(points, float(chord(radius_arcsec)), return_length=True)
    cap = 2 * np.pi * (1 - np.cos(radius_arcsec * ARCSEC)) / (60 * ARCSEC) ** 2  # square arcmin
    return np.asarray(counts, dtype=np.float64) / cap
