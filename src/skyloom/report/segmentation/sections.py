"""The parts of a page on segmentation: each says in words and numbers what the tables hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from skyloom.report.detections.plots import confusion_plot
from skyloom.report.page import Plot, Section, Table
from skyloom.report.segmentation import plots
from skyloom.report.segmentation.examples import band_shown, drawn_examples
from skyloom.report.segmentation.numbers import ANY, CLASSES, NOTHING, Judged
from skyloom.report.segmentation.truth import Truth
from skyloom.report.selection.numbers import stream

MAIN = ("ap", "ap50", "ap75", "ar")
HEADS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR"}
KIND_NAMES = {"mask": "mask", "box": "box"}
MODE_NAMES = {CLASSES: "class must agree", ANY: "whatever the class"}
TERMS = [
    ("AP", "mean precision over 101 recalls, and over the least overlaps (IoU) 0.50, 0.55 … 0.95 and the classes that "
           "have truths, as COCO defines it. AP50 and AP75: at one IoU."),
    ("AR", "share of the truths that are found, mean over the same."),
    ("Whatever the class", "all objects are taken for one class: the fair view of a detector that tells no classes."),
    ("Least score", "below it the catalogue keeps nothing. AP takes the unsure detections too, so that a catalogue cut "
                    "at a high score is given less than its detector can do."),
]  # fmt: skip
BIN_LABELS = {"mag": "true magnitude", "snr": "signal to noise of the truth"}


def text_of(value: float | None) -> str:
    """A score as it stands on the page."""
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"


def scores_section(catalogs: Mapping[str, Judged], least: Mapping[str, float]) -> Section:
    """AP and AR of all catalogues in one table, with and without classes."""
    rows = [
        [name, MODE_NAMES[mode], *(text_of(one.numbers[mode][f"{kind}_{key}"]) for kind in KIND_NAMES for key in MAIN),
         f"{one.numbers['detections']:,}", f"{least[name]:g}"]
        for name, one in catalogs.items() for mode in (CLASSES, ANY)
    ]  # fmt: skip
    heads = [f"{HEADS[key]} {kind}" for kind in KIND_NAMES.values() for key in MAIN]
    table = Table(["Catalogue", "Judged", *heads, "Detections", "Least score"], rows, text_columns=2)
    return Section("Scores", terms=TERMS, tables=[table])


def areas_section(catalogs: Mapping[str, Judged], areas: Mapping[str, tuple[float, float]]) -> Section:
    """The same by area of the truth."""
    heads = [f"{name} {kind}" for kind in KIND_NAMES.values() for name in areas]
    rows = [
        [name, MODE_NAMES[mode], HEADS[key],
         *(text_of(one.numbers[mode][f"{kind}_{key}_{area}"]) for kind in KIND_NAMES for area in areas)]
        for name, one in catalogs.items() for mode in (CLASSES, ANY) for key in ("ap", "ar")
    ]  # fmt: skip
    ranges = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in areas.items())
    text = f"Areas of the true masks in px² of the annotated images: {ranges}. Small, medium and large are COCO's."
    table = Table(["Catalogue", "Judged", "Score", *heads], rows, text_columns=3)
    return Section("By size", text=[text], tables=[table])


def classes_section(catalogs: Mapping[str, Judged], classes: Sequence[str], dpi: int) -> Section:
    """AP and AR by class, and the confusion matrices at the operating score."""
    heads = [f"{HEADS[key]} {kind}, {name}" for kind in KIND_NAMES.values() for key in ("ap", "ar") for name in classes]
    rows = [
        [name, *(text_of(one.numbers[CLASSES][f"{kind}_{key}_{label}"])
                 for kind in KIND_NAMES for key in ("ap", "ar") for label in classes)]
        for name, one in catalogs.items()
    ]  # fmt: skip
    own = [
        [name, *(text_of(one.numbers["operating"][key]) for key in ("score", "precision", "recall", "f1"))]
        for name, one in catalogs.items()
    ]
    text = (
        "The matrices count pairs of a detection and a truth whose masks overlap by an IoU of 0.5 or more, one-to-one, "
        f"the best score first, from the score below on. Row {NOTHING}: false detections; column {NOTHING}: missed "
        "truths. A score found as the best F1 was chosen on these very images, so that F1 is the best there can be."
    )
    tables = [Table(["Catalogue", *heads], rows)]
    tables += [Table(["Catalogue", "From score", "Precision", "Recall", "F1"], own)]
    matrices = {name: {"confusion": one.numbers["confusion"]} for name, one in catalogs.items()}
    picture = confusion_plot(matrices, [*classes, NOTHING], dpi=dpi)
    caption = "Confusion matrices: numbers, and shares of the true class."
    return Section("Classes", text=[text], tables=tables, plots=[Plot("confusion.png", picture, caption)])


def curves_section(curves: pl.DataFrame, catalogs: Sequence[str], classes: Sequence[str], dpi: int) -> Section:
    """Precision over recall."""
    caption = "Precision of masks over recall; precision is made to fall with the recall, as in AP."
    picture = plots.curves_plot(curves, catalogs, classes, dpi=dpi)
    return Section("Precision and recall", plots=[Plot("curves.png", picture, caption)])


def bins_section(
    bins: pl.DataFrame, catalogs: Mapping[str, Judged], truth: Truth, edges: Mapping[str, np.ndarray], dpi: int
) -> Section:
    """Recall and AP by magnitude and signal to noise; says why a quantity is missing."""
    title = "By magnitude and signal to noise"
    if truth.band is None or not edges:
        why = "the annotations have no magnitudes" if truth.band is None else "bins are null"
        return Section(title, text=[f"There are no such bins: {why}."])
    known = bins.group_by("quantity").agg(pl.col("truths").sum())
    shown = {name: BIN_LABELS[name] for name, total in known.iter_rows() if total}
    shown = {name: shown[name] for name in BIN_LABELS if name in shown}
    text = [f"In band {truth.band}. The lower edge belongs to a bin; bins with fewer than {plots.FEW} truths are in "
            "bins.parquet and not drawn."]  # fmt: skip
    text += [f"No truth has a value in the bins of {BIN_LABELS[name]}." for name in edges if name not in shown]
    if bare := [name for name, one in catalogs.items() if not one.has_mag]:
        text.append(
            f"Nobody measured magnitudes of the detections of {', '.join(bare)} in this band, so that false ones "
            "belong to no bin: these have a recall and no AP."
        )
    if not shown:
        return Section(title, text=text)
    caption = "Masks, whatever the class: recall at an IoU of 0.5 with 95 % Wilson intervals, and AP."
    picture = plots.bins_plot(bins, list(catalogs), labels=shown, dpi=dpi)
    return Section(title, text=text, plots=[Plot("bins.png", picture, caption)])


def examples_section(
    truth: Truth, catalogs: Mapping[str, Judged], rows: np.ndarray, number: int, band: str | None, dpi: int, seed: int
) -> Section:
    """Some images with the outlines of truths and detections."""
    title = "Examples"
    if truth.index is None or not number:
        why = "examples=0" if not number else "the data set has no cutouts"
        return Section(title, text=[f"No images are shown: {why}."])
    shown = band_shown(truth, band)
    rng = stream(seed, "examples")
    examples = drawn_examples(truth, catalogs, rows, number=number, band=shown, rng=rng)
    if not examples:
        return Section(title, text=["No images are shown: none has an object."])
    caption = (
        f"Band {shown}. Left the true masks; then each catalogue from its score under Classes on: blue outlines are "
        "right, orange ones wrong, dotted pink ones missed truths."
    )
    picture = plots.examples_plot(examples, list(catalogs), dpi=dpi)
    return Section(title, plots=[Plot("examples.png", picture, caption, photo=True)])


def coverage_section(counts: Mapping[str, Any], part: str | None) -> Section:
    """Which images were judged, and which not."""
    rows = [[name, f"{one['looked_at']:,}", f"{one['missing']:,}", f"{one['other_images']:,}", f"{one['outside']:,}"]
            for name, one in counts["catalogs"].items()]  # fmt: skip
    heads = ["Catalogue", "Images of the part", "Images it lacks", "Images outside the part", "Detections off image"]
    text = (
        f"{counts['judged']:,} of {counts['images']:,} images of {f'part {part}' if part else 'the data set'} were "
        "judged: those that every catalogue looked at, also where it found nothing."
    )
    return Section("What was judged", text=[text], tables=[Table(heads, rows)])
