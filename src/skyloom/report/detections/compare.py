"""Measures every catalogue against the truth, and puts the parts of the page together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from skyloom.datamodule.band_index import BandIndex
from skyloom.report.detections import sections as parts
from skyloom.report.detections.examples import blend_examples, examples_plot
from skyloom.report.detections.match import Matched, Matching, match_sources
from skyloom.report.detections.numbers import (
    class_numbers,
    group_numbers,
    mask_numbers,
    residual_numbers,
    score_numbers,
)
from skyloom.report.detections.options import Bins, Density, Neighbours
from skyloom.report.detections.tables import Sources
from skyloom.report.detections.unrecognised import unrecognised_numbers
from skyloom.report.page import Plot, Section
from skyloom.store import Artifact


@dataclass(frozen=True)
class Compared:
    """All catalogues: matches and numbers by name, and tables of all of them by name of the table."""

    matched: dict[str, Matched]
    numbers: dict[str, dict[str, Any]]
    tables: dict[str, pl.DataFrame]
    overlaps: dict[str, np.ndarray]


def compare(
    truth: Sources, found: Mapping[str, Sources], how: Matching, *, cuts: Mapping[str, float | None],
    linking: Mapping[str, Any], bins: Bins, neighbours: Neighbours, density: Density, bootstrap: int, seed: int,
) -> Compared:  # fmt: skip
    """Match and measure every catalogue."""
    matched = {name: match_sources(truth, one, how) for name, one in found.items()}
    numbers: dict[str, dict[str, Any]] = {}
    tables: dict[str, list[pl.DataFrame]] = {}
    overlaps = {}
    for name, own in matched.items():
        numbers[name] = {"counts": found[name].counts, "matches": int((own.of_detected >= 0).sum())}
        for measured in (
            score_numbers(own, cuts, bins, bootstrap=bootstrap, seed=seed),
            group_numbers(own, linking),
            unrecognised_numbers(own, linking, neighbours, density, bins),
            residual_numbers(own, bins),
        ):
            numbers[name] |= measured.numbers
            for key, table in measured.tables.items():
                tables.setdefault(key, []).append(table)
        numbers[name]["classes"] = class_numbers(own, cuts)
        masks, iou = mask_numbers(own)
        numbers[name] |= masks
        if iou is not None:
            tables.setdefault("masks", []).append(iou.select(pl.lit(name).alias("catalog"), pl.all()))
            overlaps[name] = iou["iou"].to_numpy()
    joined = {key: pl.concat(own) for key, own in tables.items()}
    return Compared(matched, numbers, {"scores": _scores_table(numbers, cuts), **joined}, overlaps)


def _scores_table(numbers: Mapping[str, Any], cuts: Mapping[str, float | None]) -> pl.DataFrame:
    """A row per catalogue and limit: scores, and the rates of the flags with their bootstrap intervals."""
    rows = []
    for limit, mag in cuts.items():
        for name, entry in numbers.items():
            row: dict[str, Any] = {"catalog": name, "limit": limit, "limit_mag": mag, **entry["scores"][limit]}
            for rate, one in entry["blends"].get(limit, {}).items():
                row[rate] = one["value"]
                row |= {f"{rate}_{key}": one[key] for key in ("bootstrap_low", "bootstrap_high") if key in one}
            rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"limit_mag": pl.Float64})


def page_sections(
    result: Compared, *, cuts: Mapping[str, float | None], radius_arcsec: float, images: Artifact | None,
    image_roots: str | None, examples: int, example_size_arcsec: float, example_band: str | None, dpi: int, seed: int,
) -> list[Section]:  # fmt: skip
    """The parts of the page, without the sweep."""
    numbers, tables = result.numbers, result.tables
    sections = [
        parts.scores_section(numbers, cuts, tables.get("bins"), dpi),
        parts.blends_section(numbers, cuts, tables.get("groups"), dpi),
        parts.unrecognised_section(numbers, tables.get("unrecognised"), dpi),
        parts.residuals_section(numbers, result.matched, tables.get("residuals"), radius_arcsec, dpi, seed),
        parts.classes_section(numbers, dpi),
    ]
    if masks := parts.masks_section(numbers, result.overlaps, dpi):
        sections.append(masks)
    if images is not None and examples:
        index = BandIndex(images, image_roots=image_roots)
        drawn, text = [], []
        for name, matched in result.matched.items():
            found = blend_examples(matched, index, number=examples, size_arcsec=example_size_arcsec, band=example_band)
            caption = (
                f"Blends as {name} sees them. Rings are truths, crosses detections; above each are its kind and the "
                "numbers of truths and detections shown."
            )
            if found:
                drawn.append(Plot(f"blends_{name}.png", examples_plot(found, dpi=dpi), caption, photo=True))
            else:
                text.append(f"No blend of {name} lies in one of the images.")
        sections.append(Section("Examples", text=text, plots=drawn))
    return sections


def lead_and_facts(result: Compared, radius_arcsec: float, method: str) -> tuple[str, list[tuple[str, str]]]:
    """The first sentences of the page, and its key figures."""
    some = next(iter(result.matched.values()))
    lead = (
        f"{len(some.truth):,} truths and {len(result.matched)} catalogues, matched within {radius_arcsec:g} arcsec "
        f"(method {method}): how much is found, how much of it is real, what becomes of blends, and how well "
        "positions, magnitudes and classes are measured."
    )
    facts = [(f"{len(some.truth):,}", "truths")]
    for name, entry in result.numbers.items():
        own = entry["scores"]["all"]
        text = f"{parts.text_of(own['completeness'])} / {parts.text_of(own['purity'])}"
        facts.append((text, f"completeness / purity of {name}"))
    return lead, facts
