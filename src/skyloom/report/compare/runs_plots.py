"""The plots of runs side by side: a number on the way, and against each parameter."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from skyloom.report.compare.plots import COLOURS, WIDTH_IN, short
from skyloom.report.figures import SELECTED, draw

if TYPE_CHECKING:
    from skyloom.report.compare.runs import RunLine

COLUMNS = 3  # panels side by side
DECADES = 30.0  # values that span more than this factor get a logarithmic axis


def curves_plot(lines: "Sequence[RunLine]", metric: str, *, dpi: int) -> bytes:
    """A number against the epoch, a curve per run; against the number of the measurement where there are no epochs."""

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        epochs = True
        for number, line in enumerate(lines):
            series = line.numbers.series.get(metric, [])
            x, epochs = _places([epoch for epoch, _ in series], epochs)
            label = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in line.facts.items()) or line.id
            axes.plot(
                x, [value for _, value in series], color=COLOURS[number % len(COLOURS)],
                linestyle=["-", "--", ":"][number // len(COLOURS) % 3], marker="o", markersize=3, label=short(label),
            )  # fmt: skip
        axes.set(xlabel="epoch" if epochs else "measurement", ylabel=metric)
        axes.grid()
        axes.legend(loc="best", fontsize=7)

    return draw(make, width_in=WIDTH_IN, height_in=4.0, dpi=dpi)


def parameters_plot(lines: "Sequence[RunLine]", names: Sequence[str], metric: str, *, dpi: int) -> bytes:
    """What runs ended with against each parameter, a panel each; texts stand side by side in the order of the table."""
    down = -(-len(names) // COLUMNS)

    def make(figure: Figure) -> None:
        panels = figure.subplots(down, COLUMNS, squeeze=False).ravel()
        for axes, name in zip(panels, names, strict=False):
            known = [line for line in lines if line.value is not None]
            texts = [line.facts[name] for line in known]
            values = [line.value for line in known]
            numbers = _numbers(texts)
            if numbers is None:
                ticks = list(dict.fromkeys(texts))
                axes.plot([ticks.index(text) for text in texts], values, "o", color=SELECTED, alpha=0.75)
                axes.set_xticks(range(len(ticks)), [short(tick)[:16] for tick in ticks], rotation=30, ha="right")
            else:
                axes.plot(numbers, values, "o", color=SELECTED, alpha=0.75)
                if numbers.min() > 0 and numbers.max() / numbers.min() > DECADES:
                    axes.set_xscale("log")
            axes.set(xlabel=name, ylabel=metric)
            axes.grid()
        for axes in panels[len(names) :]:
            axes.axis("off")

    return draw(make, width_in=WIDTH_IN, height_in=2.8 * down, dpi=dpi)


def _places(epochs: "list[float | None]", so_far: bool) -> tuple[list[float], bool]:
    known = [epoch for epoch in epochs if epoch is not None]
    if len(known) < len(epochs):
        return list(map(float, range(len(epochs)))), False
    # Several values of one epoch stand within it, in their order.
    counts = {epoch: known.count(epoch) for epoch in set(known)}
    seen: dict[float, int] = {}
    places = []
    for epoch in known:
        seen[epoch] = seen.get(epoch, 0) + 1
        places.append(epoch + seen[epoch] / counts[epoch])
    return places, so_far


def _numbers(texts: list[str]) -> np.ndarray | None:
    try:
        return np.array([float(text) for text in texts]) if texts else None
    except ValueError:
        return None
