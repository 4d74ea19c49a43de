"""The plots of a comparison, each from plain values to PNG bytes."""

import numpy as np
from matplotlib.figure import Figure

from skyloom.report.compare.table import Row
from skyloom.report.figures import ALL, INK, SELECTED, draw

WIDTH_IN = 9.0
COLOURS = [SELECTED, "#d07a00", "#3f8f5b", "#9b4f96", "#8a93a0", "#b8433f", "#4aa3b8", "#6b6b2f"]
NAME_LETTERS = 60  # of a row's name on a plot; the table has all


def bars_plot(rows: list[Row], metric: str, *, dpi: int) -> bytes:
    """Mean of a metric per row, with its spread over pieces (line) and its bootstrap interval (thin line)."""

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        methods = list(dict.fromkeys(row.method for row in rows))
        for place, row in enumerate(rows):
            value = row.metrics[metric]
            if value["mean"] is None:
                continue
            axes.barh(place, value["mean"], color=COLOURS[methods.index(row.method) % len(COLOURS)], alpha=0.75)
            if value["low"] is not None and value["high"] is not None:
                axes.plot([value["low"], value["high"]], [place, place], color=ALL, linewidth=1, marker="|")
            if value["std"] is not None:
                axes.plot([value["mean"] - value["std"], value["mean"] + value["std"]], [place, place], color=INK)
        axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel=metric.replace("_", " "))
        axes.grid(axis="x")
        axes.set_axisbelow(True)

    return draw(make, width_in=WIDTH_IN, height_in=1.0 + 0.28 * len(rows), dpi=dpi)


def fractions_plot(rows: list[Row], metric: str, *, dpi: int) -> bytes:
    """A metric against the fraction of the training labels, a line per set of parameters and method."""
    lines: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.name, row.method, row.labels), []).append(row)

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        for number, ((name, method, _), points) in enumerate(lines.items()):
            points = sorted((p for p in points if p.metrics[metric]["mean"] is not None), key=lambda p: p.fraction)
            x = [100 * p.fraction for p in points]
            y, spread = ([p.metrics[metric][k] or 0.0 for p in points] for k in ("mean", "std"))
            axes.errorbar(
                x, y, yerr=spread, color=COLOURS[number % len(COLOURS)], marker="o", markersize=4, capsize=2,
                linestyle=["-", "--", ":"][number // len(COLOURS) % 3], label=f"{short(name)} ({method})",
            )  # fmt: skip
        axes.set(xscale="log", xlabel="training labels (%)", ylabel=metric.replace("_", " "))
        axes.grid()
        axes.legend(loc="best", fontsize=7)

    return draw(make, width_in=WIDTH_IN, height_in=4.0, dpi=dpi)


def confusion_plot(matrices: list[tuple[str, np.ndarray, list[str]]], *, dpi: int) -> bytes:
    """Confusion matrices side by side: colour is the share of the true class, figures are percent."""
    columns = min(3, len(matrices))
    down = -(-len(matrices) // columns)

    def make(figure: Figure) -> None:
        panels = figure.subplots(down, columns, squeeze=False).ravel()
        for axes, (title, matrix, classes) in zip(panels, matrices, strict=False):
            share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
            axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
            if len(classes) <= 12:
                for (i, j), value in np.ndenumerate(share):
                    axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=7,
                              color="white" if value > 0.6 else INK)  # fmt: skip
            axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
            axes.set_yticks(range(len(classes)), classes)
            axes.set(xlabel="predicted", ylabel="true", title=short(title))
        for axes in panels[len(matrices) :]:
            axes.axis("off")

    return draw(make, width_in=WIDTH_IN, height_in=3.4 * down, dpi=dpi)


def _label(row: Row) -> str:
    return f"{short(row.name)} | {row.method}, {100 * row.fraction:g} %"


def short(text: str) -> str:
    """The start of a long text; numbers.json has the whole."""
    return text if len(text) <= NAME_LETTERS else text[: NAME_LETTERS - 1] + "…"
