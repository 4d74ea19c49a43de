"""The plots of a report on segmentation, each from plain tables to PNG bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skyloom.report.detections.plots import LINES, WIDTH_IN, colour_of
from skyloom.report.figures import NIGHT, STARLIGHT, draw, stretch
from skyloom.report.segmentation.examples import Example
from skyloom.report.segmentation.numbers import ANY

DRAWN_IOUS = (0.5, 0.75, 0.9)
FEW = 10  # bins with fewer truths are not drawn: their intervals reach over the plot
TRUE, RIGHT, WRONG, MISSED = "#dfe2e6", "#4da3ff", "#d07a00", "#e0528b"


def curves_plot(curves: pl.DataFrame, catalogs: Sequence[str], classes: Sequence[str], *, dpi: int) -> bytes:
    """Precision over recall of masks: whatever the class, and of each class; a colour per catalogue, a line per IoU."""
    panels_wanted = [ANY, *classes]

    def make(figure: Figure) -> None:
        panels = figure.subplots(1, len(panels_wanted), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, panels_wanted, strict=True):
            for number, catalog in enumerate(catalogs):
                for line, iou in zip(LINES, DRAWN_IOUS, strict=False):
                    own = curves.filter(pl.col("iou").is_close(iou), catalog=catalog, kind="mask", **{"class": name})
                    own = own.drop_nulls("precision")
                    axes.plot(own["recall"], own["precision"], color=colour_of(number), linestyle=line, linewidth=1.2,
                              label=f"{catalog}, IoU {iou:g}")  # fmt: skip
            title = "whatever the class" if name == ANY else name
            axes.set(xlabel="recall", xlim=(0, 1), ylim=(-0.02, 1.03), title=title)
            axes.grid(visible=True)
        panels[0].set_ylabel("precision")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)

    return draw(make, width_in=WIDTH_IN, height_in=3.7 + 0.15 * len(catalogs), dpi=dpi)


def bins_plot(bins: pl.DataFrame, catalogs: Sequence[str], *, labels: Mapping[str, str], dpi: int) -> bytes:
    """Recall at an IoU of 0.5 with Wilson intervals, and AP, in bins of magnitude and signal to noise."""
    own = bins.filter(mode=ANY, kind="mask")

    def make(figure: Figure) -> None:
        panels = figure.subplots(len(labels), 2, sharey=True, squeeze=False)
        for pair, (quantity, label) in zip(panels, labels.items(), strict=True):
            for axes, score in zip(pair, ("recall50", "ap"), strict=True):
                for number, name in enumerate(catalogs):
                    rows = own.filter(pl.col(score).is_not_null(), catalog=name, quantity=quantity)
                    _binned(axes, rows.filter(pl.col("truths") >= FEW), score, number, name)
                axes.set(xlabel=label, ylim=(-0.02, 1.05), ylabel="recall (IoU 0.5)" if score == "recall50" else "AP")
                axes.set_xscale("log" if quantity == "snr" else "linear")
                axes.grid(visible=True)
        panels[0, 0].legend(loc="lower left")

    return draw(make, width_in=WIDTH_IN, height_in=3.0 * len(labels), dpi=dpi)


def _binned(axes: Axes, rows: pl.DataFrame, score: str, number: int, name: str) -> None:
    middle = (rows["low"] + rows["high"]).to_numpy() / 2
    if score == "recall50":
        low, high = rows["recall50_low"].to_numpy(), rows["recall50_high"].to_numpy()
        axes.fill_between(middle, low, high, color=colour_of(number), alpha=0.2, linewidth=0)
    axes.plot(middle, rows[score].to_numpy(), color=colour_of(number), marker="o", markersize=3, label=name)


def examples_plot(examples: Sequence[Example], catalogs: Sequence[str], *, dpi: int) -> bytes:
    """A row per image: the truths, and what each catalogue found; outlines tell what is right, wrong and missed."""
    columns = 1 + len(catalogs)
    caption: Any = {"color": STARLIGHT, "fontsize": min(9, 26 / columns)}

    def make(figure: Figure) -> None:
        figure.set_facecolor(NIGHT)
        panels = figure.subplots(len(examples), columns, squeeze=False)
        for pair, example in zip(panels, examples, strict=True):
            finite = example.pixels[np.isfinite(example.pixels)]
            noise = 0.7413 * float(np.subtract(*np.percentile(finite, [75, 25]))) if len(finite) else 1.0
            shown = stretch(example.pixels[None], np.array([noise]))[0]
            for axes in pair:
                axes.imshow(shown, origin="lower", cmap="gray", vmin=0, vmax=1)
                axes.axis("off")
            _outlines(pair[0], example.truth, [TRUE] * len(example.truth))
            pair[0].set_title(f"{example.title}: {len(example.truth)} true", **caption)
            for axes, name in zip(pair[1:], catalogs, strict=True):
                seen = example.seen[name]
                _outlines(axes, example.truth[seen.missed], [MISSED] * int(seen.missed.sum()), linestyles="dotted")
                _outlines(axes, seen.masks, [RIGHT if one else WRONG for one in seen.right])
                right, wrong, missed = (int(one.sum()) for one in (seen.right, ~seen.right, seen.missed))
                axes.set_title(f"{name}: {right} right, {wrong} wrong, {missed} missed", **caption)

    side = WIDTH_IN / max(columns, 2)
    return draw(make, width_in=side * columns, height_in=len(examples) * (side + 0.2), dpi=dpi)


def _outlines(axes: Axes, masks: np.ndarray, colours: Sequence[str], **options: Any) -> None:
    """Outline masks (n, H, W), each in its colour; the edge of the image counts as outside."""
    for mask, colour in zip(masks, colours, strict=True):
        if mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=[colour], linewidths=0.8, **options)
