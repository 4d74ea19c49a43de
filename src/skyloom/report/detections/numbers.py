"""The numbers of one catalogue against the truth, as plain values and as tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from skyloom.match.blends import group_counts
from skyloom.match.fof import fof_table
from skyloom.metric.blend_rates import blend_rates
from skyloom.metric.catalog_scores import Counted, binned, brighter_than, counted, scores
from skyloom.metric.classification import class_report, confusion_matrix, scores_of
from skyloom.metric.deblending import flux_errors, mask_ious
from skyloom.metric.residuals import binned_residuals, centre_and_spread, position_offsets
from skyloom.report.detections.columns import CATEGORIES
from skyloom.report.detections.match import Matched, neighbour_separations
from skyloom.report.detections.options import Bins
from skyloom.report.selection.numbers import stream

CLASS_EDGES = np.array([-0.5, 0.5, 1.5])


@dataclass(frozen=True)
class Measured:
    """What was measured of one catalogue: plain numbers, and tables by name."""

    numbers: dict[str, Any]
    tables: dict[str, pl.DataFrame]


def judged(matched: Matched, faintest_mag: float | None) -> Counted:
    """Truths and detections of a sample, both sides cut by one rule."""
    if faintest_mag is None:
        return counted(matched.of_truth, matched.of_detected)
    return counted(
        matched.of_truth, matched.of_detected,
        truth_kept=brighter_than(matched.truth.values("mag"), faintest_mag, unknown=False),
        alone_kept=brighter_than(matched.detected.values("mag"), faintest_mag, unknown=True),
    )  # fmt: skip


def score_numbers(
    matched: Matched, limits: Mapping[str, float | None], bins: Bins, *, bootstrap: int, seed: int
) -> Measured:
    """Scores and blend rates for every limit, and scores in bins."""
    numbers: dict[str, Any] = {"scores": {}, "blends": {}}
    tables = []
    values = _bin_values(matched)
    for name, faintest in limits.items():
        sample = judged(matched, faintest)
        numbers["scores"][name] = scores(sample)
        if matched.truth_flags is not None and matched.detected_flags is not None:
            numbers["blends"][name] = blend_rates(
                matched.truth_flags, matched.detected_flags, truth_kept=sample.truth, detected_kept=sample.detected,
                samples=bootstrap, rng=stream(seed, f"bootstrap {matched.detected.name} {name}"),
            )  # fmt: skip
        for quantity, (of_truth, of_detected) in values.items():
            edges = CLASS_EDGES if quantity == "class" else bins.edges(quantity)
            if edges is not None:
                table = binned(sample, truth_value=of_truth, detected_value=of_detected, edges=edges)
                head = [pl.lit(text).alias(key) for key, text in
                        (("catalog", matched.detected.name), ("limit", name), ("quantity", quantity))]  # fmt: skip
                tables.append(table.select(*head, pl.all()))
    return Measured(numbers, {"bins": pl.concat(tables)} if tables else {})


def _bin_values(matched: Matched) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values by which the truths and the detections are binned, of quantities that one side has at least."""
    truth, detected = matched.truth, matched.detected
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for quantity in ("mag", "snr", "size", "colour"):
        if quantity in truth.has | detected.has:
            found[quantity] = truth.values(quantity), detected.values(quantity)
    if "category" in truth.has | detected.has:
        found["class"] = _class_number(truth.frame), _class_number(detected.frame)
    found["separation"] = neighbour_separations(matched)
    return found


def _class_number(frame: pl.DataFrame) -> np.ndarray:
    """0 galaxy, 1 star, NaN unknown."""
    numbers = {name: float(i) for i, name in enumerate(CATEGORIES)}
    return frame["category"].replace_strict(numbers, default=None, return_dtype=pl.Float64).fill_null(np.nan).to_numpy()


def group_numbers(matched: Matched, linking: Mapping[str, Any]) -> Measured:
    """Labels of friends-of-friends groups of truth and detections, for each choice of linking lengths."""
    numbers, tables = {}, []
    frames = {side.name: side.frame for side in (matched.truth, matched.detected)}
    for name, lengths in linking.items():
        groups = fof_table(frames, lengths, ra="ra_deg", dec="dec_deg")
        table = group_counts(groups, truth=matched.truth.name, detected=matched.detected.name)
        numbers[name] = {str(label): int(n) for label, n in table["label"].value_counts().sort("label").rows()}
        sizes = table.group_by("n_truth", "n_detected").agg(groups=pl.len().cast(pl.Int64))
        head = [pl.lit(matched.detected.name).alias("catalog"), pl.lit(name).alias("linking")]
        tables.append(sizes.sort("n_truth", "n_detected").select(*head, pl.all()))
    return Measured({"labels": numbers}, {"groups": pl.concat(tables)} if tables else {})


def class_numbers(matched: Matched, limits: Mapping[str, float | None]) -> dict[str, Any]:
    """Star and galaxy confusion of the matched pairs whose classes both sides know; empty without classes."""
    left, right = matched.matches
    true, said = (_class_number(side.frame)[rows]
                  for side, rows in ((matched.truth, left), (matched.detected, right)))  # fmt: skip
    known = np.isfinite(true) & np.isfinite(said)
    result = {}
    for name, faintest in limits.items():
        use = known & judged(matched, faintest).true[right]
        if not use.any():
            continue
        one, other = (np.eye(len(CATEGORIES), dtype=bool)[values[use].astype(int)] for values in (true, said))
        result[name] = {
            "pairs": int(use.sum()), "confusion": confusion_matrix(one, other).tolist(),
            **scores_of(one, other, multi_label=False),
            "classes": class_report(one, other, list(CATEGORIES)),
        }  # fmt: skip
    return result


def residual_numbers(matched: Matched, bins: Bins) -> Measured:
    """Offsets on the sky and in magnitude of the matched pairs, all and in bins of the true magnitude."""
    left, right = matched.matches
    truth, detected = matched.truth.frame[left], matched.detected.frame[right]
    east, north = position_offsets(*(side[c].to_numpy() for side in (truth, detected) for c in ("ra_deg", "dec_deg")))
    values = {"east_arcsec": east, "north_arcsec": north, "mag": (detected["mag"] - truth["mag"]).to_numpy()}
    if {"flux"} <= matched.truth.has & matched.detected.has:
        values["flux_error"] = flux_errors(truth["flux"].to_numpy(), detected["flux"].to_numpy())
    numbers = {name: centre_and_spread(residual) for name, residual in values.items()}
    numbers = {name: entry for name, entry in numbers.items() if entry["number"] or name.endswith("arcsec")}
    tables, edges = [], bins.edges("mag")
    if edges is not None:
        for name, residual in values.items():
            head = [pl.lit(matched.detected.name).alias("catalog"), pl.lit(name).alias("residual")]
            table = binned_residuals(residual, truth["mag"].to_numpy(), edges)
            tables.append(table.filter(pl.col("number") > 0).select(*head, pl.all()))
    return Measured({"residuals": numbers}, {"residuals": pl.concat(tables)} if tables else {})


def mask_numbers(matched: Matched) -> tuple[dict[str, Any], pl.DataFrame | None]:
    """Overlap of the masks of matched pairs on the cutouts that show both; None where a side has no masks."""
    one, other = matched.truth.masks, matched.detected.masks
    if one is None or other is None:
        return {}, None
    left, right = matched.matches
    table = pl.DataFrame({"truth": left, "detected": right}).join(one, left_on="truth", right_on="index")
    table = table.join(other, left_on=["detected", "cutout_id"], right_on=["index", "cutout_id"], suffix="_detected")
    same = [pl.col(side) == pl.col(f"{side}_detected") for side in ("height_px", "width_px")]
    table = table.filter(*same).sort("truth", "cutout_id")  # masks on two grids cannot be compared pixel by pixel
    table = table.with_columns(
        iou=mask_ious(table["rle"].to_list(), table["rle_detected"].to_list(),
                      table.select("height_px", "width_px").to_numpy())
    )  # fmt: skip
    blended = (matched.truth_flags["is_part_of_blend"].to_numpy() if matched.truth_flags is not None
               else np.zeros(len(matched.truth), bool))[table["truth"].to_numpy()]  # fmt: skip
    iou = table["iou"].to_numpy()
    compared = table.select("truth", "detected").n_unique()
    numbers: dict[str, Any] = {"pairs": compared, "pairs_without_common_cutout": len(left) - compared}
    for name, use in (("all", blended | True), ("blended", blended), ("isolated", ~blended)):
        half = float((iou[use] >= 0.5).mean()) if use.any() else float("nan")
        numbers[name] = {**centre_and_spread(iou[use]), "above_half": half}
    frame, truth = matched.detected.frame, matched.truth.frame
    table = table.select(
        truth_id=truth["id"].gather(table["truth"]), detected_id=frame["id"].gather(table["detected"]),
        cutout_id="cutout_id", iou="iou", is_part_of_blend=pl.Series(blended),
    )  # fmt: skip
    return {"masks": numbers}, table
