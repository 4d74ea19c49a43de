"""The fraction of unrecognised blends by its three definitions, against magnitude and the density of truths."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from skyloom.match import fof_table, unrecognised_by_graph, unrecognised_by_groups, unrecognised_by_neighbours
from skyloom.metric.catalog_scores import wilson
from skyloom.report.detections.match import Matched, densities
from skyloom.report.detections.numbers import Measured
from skyloom.report.detections.options import Bins, Density, Neighbours


@dataclass(frozen=True)
class Definition:
    """Who is looked at and who is an unrecognised blend, with magnitude and density of each, shape (K,)."""

    considered: np.ndarray
    unrecognised: np.ndarray
    mag: np.ndarray
    density: np.ndarray


def unrecognised_numbers(
    matched: Matched, linking: Mapping[str, Any], neighbours: Neighbours, density: Density, bins: Bins
) -> Measured:
    """Fractions with Wilson intervals: of everything, and in bins.

    ``groups <linking>``: detections alone in a group with two truths or more, of all detections. ``neighbours``:
    detections with more truths than detections around, of those with at least as many; ``neighbours_window`` counts
    only truths not much fainter than the brightest. ``graph``: truths of blends in which one is unmatched, of all.
    """
    found = _definitions(matched, linking, neighbours, density)
    numbers, tables = {}, []
    for name, one in found.items():
        part, whole = int(one.unrecognised.sum()), int(one.considered.sum())
        low, high = wilson(np.array([part]), np.array([whole]))
        numbers[name] = {"value": part / whole if whole else float("nan"), "part": part, "whole": whole,
                         "low": float(low[0]), "high": float(high[0])}  # fmt: skip
        for against, values, edges in (
            ("mag", one.mag, bins.edges("mag")),
            ("density", one.density, _even_edges(one.density[one.considered], density.bins)),
        ):
            if edges is None:
                continue
            total, good = (np.histogram(values[use & np.isfinite(values)], edges)[0]
                           for use in (one.considered, one.unrecognised))  # fmt: skip
            low, high = wilson(good, total)
            with np.errstate(invalid="ignore"):
                columns = {"low": edges[:-1], "high": edges[1:], "considered": total, "unrecognised": good,
                           "fraction": good / total, "fraction_low": low, "fraction_high": high}  # fmt: skip
            head = [pl.lit(text).alias(key) for key, text in
                    (("catalog", matched.detected.name), ("definition", name), ("against", against))]  # fmt: skip
            tables.append(pl.DataFrame(columns).filter(pl.col("considered") > 0).select(*head, pl.all()))
    return Measured({"unrecognised": numbers}, {"unrecognised": pl.concat(tables)} if tables else {})


def _definitions(
    matched: Matched, linking: Mapping[str, Any], neighbours: Neighbours, density: Density
) -> dict[str, Definition]:
    truth, detected = matched.truth, matched.detected
    around = densities(truth, detected.points, density.radius_arcsec)
    own_mag, everyone = detected.values("mag"), np.ones(len(detected), dtype=bool)
    found = {}
    frames = {side.name: side.frame for side in (truth, detected)}
    for name, lengths in linking.items():
        groups = fof_table(frames, lengths, ra="ra_deg", dec="dec_deg")
        blended = unrecognised_by_groups(groups, truth=truth.name, detected=detected.name)
        found[f"groups {name}"] = Definition(everyone, blended, own_mag, around)
    windows: dict[str, float | None] = {"neighbours": None}
    if neighbours.window_mag is not None and "mag" in truth.has:
        windows["neighbours_window"] = neighbours.window_mag
    for name, window in windows.items():
        counts = unrecognised_by_neighbours(
            truth.points, detected.points, neighbours.radius_arcsec, truth_mag=truth.values("mag"), window_mag=window
        )
        found[name] = Definition(counts["considered"], counts["unrecognised"], own_mag, around)
    if matched.truth_flags is not None:
        density_of_truth = densities(truth, truth.points, density.radius_arcsec)
        flags = unrecognised_by_graph(matched.truth_flags)
        found["graph"] = Definition(np.ones(len(truth), bool), flags, truth.values("mag"), density_of_truth)
    return found


def _even_edges(values: np.ndarray, bins: int) -> np.ndarray | None:
    """Edges of bins with about as many values each; None where all values are equal."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1))) if len(values) else np.empty(0)
    return edges if len(edges) > 1 else None
