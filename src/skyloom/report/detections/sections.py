"""The parts of a page on detections: each says in words and numbers what the tables hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from skyloom.metric.classification import METRICS
from skyloom.metric.residuals import position_offsets
from skyloom.report.detections import plots
from skyloom.report.detections.columns import CATEGORIES
from skyloom.report.detections.match import Matched
from skyloom.report.page import Plot, Section, Table
from skyloom.report.selection.numbers import stream

SHOWN = 5_000  # pairs drawn of each catalogue, at random: more only blacken it
LABELS = {
    "mag": ("magnitude", False), "snr": ("signal to noise", True), "size": ("size", False),
    "separation": ("distance to the nearest other truth (arcsec)", False), "colour": ("colour (mag)", False),
}  # fmt: skip
TERMS = [
    ("Completeness", "found truths / truths of the sample."),
    ("Purity", "detections that belong to a truth of the sample / detections that are judged. A detection that belongs "
               "to a truth beyond the limit is not judged; one without a truth is judged by its own magnitude."),
    ("Brackets", "95 % intervals: Wilson, or, for F1 and the rates, percentiles of a bootstrap of components."),
]  # fmt: skip
BLEND_TERMS = [
    ("blend_loss_frac", "truths that no detection is left for, though one is within the radius."),
    ("missed_frac", "truths with no detection within the radius."),
    ("unrec_blend_frac_total", "truths in a blend of which a truth is unmatched / all truths; _blended: of truths in "
                               "blends; _matched: matched ones of matched truths; _detections: detections of such "
                               "blends of all detections."),
    ("resolved_frac", "truths in blends all of whose truths are matched / truths in blends."),
    ("shred_frac", "truths beside an unmatched detection; shred_det_frac: unmatched detections beside a truth."),
    ("spurious_frac", "detections with no truth within the radius."),
]  # fmt: skip


def text_of(value: float | None) -> str:
    """A fraction as a text; a hyphen where there is none."""
    return "-" if value is None or not np.isfinite(value) else f"{value:.4f}"


def scores_section(
    numbers: Mapping[str, Any], limits: Mapping[str, float | None], bins: pl.DataFrame | None, dpi: int
) -> Section:
    """Completeness, purity and F1 of all catalogues side by side, and against every quantity that is binned."""
    rows = []
    for limit, mag in limits.items():
        for name, entry in numbers.items():
            own, f1 = entry["scores"][limit], entry["blends"].get(limit, {}).get("f1", {})
            ends = (
                f" [{text_of(f1['bootstrap_low'])}, {text_of(f1['bootstrap_high'])}]" if "bootstrap_low" in f1 else ""
            )
            spans = [f"{text_of(own[key])} [{text_of(own[f'{key}_low'])}, {text_of(own[f'{key}_high'])}]"
                     for key in ("completeness", "purity")]  # fmt: skip
            shown = limit if mag is None or limit == f"{mag:g}" else f"{limit} ({mag:.2f})"
            rows.append([shown, name, f"{own['truths']:,}", f"{own['detections']:,}", f"{own['not_judged']:,}", *spans,
                         text_of(own["f1"]) + ends])  # fmt: skip
    heads = ["Limit (mag)", "Catalogue", "Truths", "Detections judged", "Not judged", "Completeness", "Purity", "F1"]
    drawn = []
    if bins is not None:
        first = next(iter(limits))
        for quantity, (label, log) in LABELS.items():
            own_bins = bins.filter(quantity=quantity, limit=first)
            if own_bins.select((pl.col("truths") + pl.col("detections")).sum()).item() > 0:
                picture = plots.scores_plot(own_bins, list(numbers), xlabel=label, log=log, dpi=dpi)
                caption = (
                    f"Completeness against the {label} of the truth, and purity against the detection's own, without a "
                    "limit in magnitude; bands are Wilson intervals (95 %)."
                )
                drawn.append(Plot(f"scores_{quantity}.png", picture, caption))
    return Section(
        "Completeness and purity", tables=[Table(heads, rows, text_columns=2)], terms=TERMS, plots=drawn,
        text=[f"There are {len(numbers)} catalogues, matched to all truths and cut afterwards."],
    )  # fmt: skip


def blends_section(
    numbers: Mapping[str, Any], limits: Mapping[str, float | None], groups: pl.DataFrame | None, dpi: int
) -> Section:
    """Stage 1 and 2: labels of groups and rates of the flags."""
    names, tables = list(numbers), []
    first = numbers[names[0]]
    text = []
    for limit in limits:
        rates = first["blends"].get(limit)
        if rates is None:
            continue
        rows = [[rate, *(_rate(numbers[name]["blends"][limit][rate]) for name in names)] for rate in rates]
        tables.append(Table([f"Rate, limit {limit}", *names], rows))
    if not tables:
        text.append("method=nearest is not one-to-one, so there are no blend flags.")
    links = list(first["labels"])
    for link in links:
        labels = sorted({label for name in names for label in numbers[name]["labels"][link]})
        rows = [[label, *(f"{numbers[name]['labels'][link].get(label, 0):,}" for name in names)] for label in labels]
        tables.append(Table([f'Groups, linked at {link}"', *names], rows))
    drawn = []
    if groups is not None and len(groups):
        caption = (
            "Friends-of-friends groups by their true and detected members. On the grey line there are as many of both; "
            "below it truths are blended or missed, above it detections are spurious or shreds."
        )
        drawn = [Plot("groups.png", plots.groups_plot(groups, names, links, dpi=dpi), caption)]
    return Section("Blends", text=text, tables=tables, terms=BLEND_TERMS, plots=drawn)


def _rate(entry: Mapping[str, Any]) -> str:
    text = text_of(entry["value"])
    if "bootstrap_low" in entry:
        return f"{text} [{text_of(entry['bootstrap_low'])}, {text_of(entry['bootstrap_high'])}]"
    return f"{text} [{text_of(entry['low'])}, {text_of(entry['high'])}]" if "low" in entry else text


def unrecognised_section(numbers: Mapping[str, Any], table: pl.DataFrame | None, dpi: int) -> Section:
    """The fraction of unrecognised blends, by three definitions."""
    names = list(numbers)
    definitions = list(numbers[names[0]]["unrecognised"])
    rows = [[one, *(_rate(numbers[name]["unrecognised"][one]) for name in names)] for one in definitions]
    terms = [
        ("groups", "detections alone in a friends-of-friends group with two truths or more / detections."),
        ("neighbours", "detections with more truths than detections around / those with at least as many; _window "
                       "counts only truths not much fainter than the brightest."),
        ("graph", "truths of blends in which a truth is unmatched / truths; this one counts truths, not detections."),
    ]  # fmt: skip
    drawn = []
    if table is not None and len(table):
        caption = "Unrecognised blends in bins with more than 10, by definition, with Wilson intervals (95 %)."
        drawn = [Plot("unrecognised.png", plots.unrecognised_plot(table, names, dpi=dpi), caption)]
    return Section("Unrecognised blends", tables=[Table(["Definition", *names], rows)], terms=terms, plots=drawn)


def residuals_section(
    numbers: Mapping[str, Any], matched: Mapping[str, Matched], table: pl.DataFrame | None, radius: float, dpi: int,
    seed: int,
) -> Section:  # fmt: skip
    """Offsets of matched pairs on the sky, in magnitude and in flux."""
    keys = list(dict.fromkeys(key for entry in numbers.values() for key in entry["residuals"]))
    rows = []
    for key in keys:
        cells = [entry["residuals"].get(key) for entry in numbers.values()]
        rows.append([key, *("-" if c is None or not c["number"] else f"{c['median']:.4f} ± {c['spread']:.4f}"
                            for c in cells)])  # fmt: skip
    offsets = {}
    for name, own in matched.items():
        left, right = own.matches
        some = np.arange(len(left)) if len(left) <= SHOWN else stream(seed, f"offsets {name}").choice(len(left), SHOWN)
        places = (side.frame[at[some]] for side, at in ((own.truth, left), (own.detected, right)))
        offsets[name] = position_offsets(*(part[c].to_numpy() for part in places for c in ("ra_deg", "dec_deg")))
    picture = plots.residuals_plot(offsets, table, radius_arcsec=radius, dpi=dpi)
    caption = (
        "Left: offsets of matched detections from their truths. Right: median magnitude residual and its spread "
        "(1.4826 median absolute deviations) in bins with more than 10 pairs."
    )
    return Section(
        "Residuals of matched pairs", tables=[Table(["Measured minus true, median ± spread", *numbers], rows)],
        plots=[Plot("residuals.png", picture, caption)],
    )  # fmt: skip


def classes_section(numbers: Mapping[str, Any], dpi: int) -> Section:
    """Stars taken for galaxies and galaxies taken for stars."""
    known = {name: entry["classes"]["all"] for name, entry in numbers.items() if "all" in entry["classes"]}
    if not known:
        return Section("Stars and galaxies", text=["No catalogue has classes beside those of the truth."])
    rows = [[name, f"{entry['pairs']:,}", *(text_of(entry[key]) for key in METRICS)] for name, entry in known.items()]
    caption = (
        "Rows are true classes, columns what the catalogue says, of matched pairs; per cent are of the true class."
    )
    return Section(
        "Stars and galaxies", tables=[Table(["Catalogue", "Pairs", "Accuracy", "Balanced", "Macro F1"], rows)],
        plots=[Plot("classes.png", plots.confusion_plot(known, CATEGORIES, dpi=dpi), caption)],
    )  # fmt: skip


def masks_section(numbers: Mapping[str, Any], overlaps: Mapping[str, np.ndarray], dpi: int) -> Section | None:
    """Overlap of masks, where there are any."""
    if not overlaps:
        return None
    rows = []
    for name in overlaps:
        for kind in ("all", "isolated", "blended"):
            own = numbers[name]["masks"][kind]
            rows.append([name, kind, f"{own['number']:,}", text_of(own["median"]), text_of(own["above_half"])])
    table = Table(["Catalogue", "Pairs", "Number", "Median overlap", "At least 0.5"], rows, text_columns=2)
    caption = "Intersection over union of the masks of matched pairs, on every cutout that shows both."
    return Section("Masks", tables=[table], plots=[Plot("masks.png", plots.masks_plot(overlaps, dpi=dpi), caption)])
