"""The plots of a report on detections, each from plain tables to PNG bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from skyloom.report.figures import ALL, RANDOM, SELECTED, draw

WIDTH_IN = 9.0
COLOURS = (SELECTED, RANDOM, "#2c8a4b", "#a0307a", "#6b4fb0", "#00838f")  # of the catalogues, in their order
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 4)))
LARGEST_GROUP = 8  # larger groups are counted with these
FEW = 10  # bins with fewer are not drawn: their intervals reach over the plot


def colour_of(number: int) -> str:
    """Colour of the catalogue of this number."""
    return COLOURS[number % len(COLOURS)]


def scores_plot(bins: pl.DataFrame, catalogs: Sequence[str], *, xlabel: str, log: bool, dpi: int) -> bytes:
    """Completeness and purity in bins of one quantity at one limit, with Wilson intervals, all catalogues together."""

    def make(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, score in zip(panels, ("completeness", "purity"), strict=True):
            for number, name in enumerate(catalogs):
                rows = bins.filter(pl.col("catalog") == name, pl.col(score).is_not_nan())
                middle = (rows["low"] + rows["high"]).to_numpy() / 2
                low, value, high = (rows[c].to_numpy() for c in (f"{score}_low", score, f"{score}_high"))
                axes.fill_between(middle, low, high, color=colour_of(number), alpha=0.2, linewidth=0)
                axes.plot(middle, value, color=colour_of(number), marker="o", markersize=3, label=name)
            axes.set(xlabel=xlabel if score == "completeness" else f"{xlabel}, of the detection", ylabel=score)
            if bins[score].is_nan().all():
                axes.text(0.5, 0.5, "no values on this side", ha="center", transform=axes.transAxes, color=ALL)
                axes.set(xticks=[])
            else:
                axes.set(xscale="log" if log else "linear")
            axes.set(ylim=(-0.02, 1.05))
            axes.grid(visible=True)
        panels[0].legend(loc="lower left")

    return draw(make, width_in=WIDTH_IN, height_in=3.4, dpi=dpi)


def groups_plot(groups: pl.DataFrame, catalogs: Sequence[str], linking: Sequence[str], *, dpi: int) -> bytes:
    """Number of friends-of-friends groups by their true and detected members; a panel per catalogue and length."""
    sizes = groups.select("n_truth", "n_detected").to_numpy().max(initial=1)
    largest = min(int(sizes), LARGEST_GROUP)
    panels_wanted = [(name, link) for link in linking for name in catalogs]
    columns = min(3, len(panels_wanted))
    rows = -(-len(panels_wanted) // columns)

    def make(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(panels_wanted) :]:
            axes.axis("off")
        for axes, (name, link) in zip(panels, panels_wanted, strict=False):
            counts = np.zeros((largest + 1, largest + 1))
            own = groups.filter(catalog=name, linking=link).select("n_truth", "n_detected", "groups").to_numpy()
            np.add.at(counts, tuple(np.minimum(own[:, :2], largest).T), own[:, 2])
            top = max(counts.max(), 2)
            axes.imshow(np.ma.masked_equal(counts.T, 0), origin="lower", cmap="viridis", norm=LogNorm(1, top))
            for a, b in zip(*np.nonzero(counts), strict=True):
                ink = "black" if counts[a, b] > top**0.6 else "white"
                axes.text(a, b, f"{int(counts[a, b]):,}", ha="center", va="center", fontsize=6, color=ink)
            axes.plot([0.5, largest], [0.5, largest], color=ALL, linewidth=0.6)
            texts = [str(n) for n in range(largest)] + [f"{largest}{'+' if sizes > largest else ''}"]
            axes.set(xlabel="truths", ylabel="detections", title=f'{name}, {link}"')
            axes.set_xticks(range(largest + 1), texts)
            axes.set_yticks(range(largest + 1), texts)

    return draw(make, width_in=WIDTH_IN, height_in=(WIDTH_IN / max(columns, 2) + 0.2) * rows, dpi=dpi)


def unrecognised_plot(table: pl.DataFrame, catalogs: Sequence[str], *, dpi: int) -> bytes:
    """Fraction of unrecognised blends against magnitude and density: a colour per catalogue, a line per definition."""
    definitions = table["definition"].unique(maintain_order=True).to_list()

    def make(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (against, label) in zip(
            panels, (("mag", "magnitude"), ("density", "truths per square arcmin around")), strict=True
        ):
            for i, name in enumerate(catalogs):
                for j, definition in enumerate(definitions):
                    rows = table.filter(
                        pl.col("considered") > FEW, catalog=name, definition=definition, against=against
                    )
                    middle = (rows["low"] + rows["high"]).to_numpy() / 2
                    low, value, high = (rows[c].to_numpy() for c in ("fraction_low", "fraction", "fraction_high"))
                    errors = np.maximum(np.stack([value - low, high - value]), 0)
                    axes.errorbar(
                        middle, value, errors, color=colour_of(i), linestyle=LINES[j % len(LINES)], linewidth=1.2,
                        elinewidth=0.6, marker=".", label=f"{name}, {definition}",
                    )  # fmt: skip
            axes.set(xlabel=label, ylabel="unrecognised")
            axes.grid(visible=True)
        handles, labels = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=3)

    return draw(make, width_in=WIDTH_IN, height_in=4.4, dpi=dpi)


def residuals_plot(
    offsets: Mapping[str, tuple[np.ndarray, np.ndarray]], table: pl.DataFrame | None, *, radius_arcsec: float, dpi: int
) -> bytes:
    """Offsets on the sky of a sample of the pairs, and the median magnitude residual in bins with its spread."""

    def make(figure: Figure) -> None:
        sky, mag = figure.subplots(1, 2)
        for number, (name, (east, north)) in enumerate(offsets.items()):
            sky.scatter(east, north, s=3, alpha=0.4, color=colour_of(number), label=name, linewidths=0)
            if table is not None:
                rows = table.filter(pl.col("number") > FEW, catalog=name, residual="mag")
                middle = (rows["low"] + rows["high"]).to_numpy() / 2
                median, spread = rows["median"].to_numpy(), rows["spread"].to_numpy()
                mag.fill_between(middle, median - spread, median + spread, color=colour_of(number), alpha=0.15)
                mag.plot(middle, median, color=colour_of(number), marker="o", markersize=3, label=name)
        limit = max(radius_arcsec, 1e-3)
        sky.set(xlabel="east (arcsec)", ylabel="north (arcsec)", xlim=(limit, -limit), ylim=(-limit, limit))
        sky.set_aspect("equal")
        mag.axhline(0, color=ALL, linewidth=0.8)
        mag.set(xlabel="true magnitude", ylabel="measured minus true (mag)")
        sky.legend(loc="upper right", markerscale=3)

    return draw(make, width_in=WIDTH_IN, height_in=4.0, dpi=dpi)


def confusion_plot(classes: Mapping[str, dict[str, Any]], names: Sequence[str], *, dpi: int) -> bytes:
    """Confusion matrices of the catalogues, each with numbers and shares of the true class."""

    def make(figure: Figure) -> None:
        panels = figure.subplots(1, len(classes), squeeze=False)[0]
        for axes, (name, entry) in zip(panels, classes.items(), strict=True):
            counts = np.asarray(entry["confusion"], dtype=np.float64)
            share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
            for i, j in np.ndindex(*counts.shape):
                text = f"{int(counts[i, j]):,}\n{100 * share[i, j]:.1f} %"
                axes.text(j, i, text, ha="center", va="center", color="white" if share[i, j] > 0.6 else "black")
            axes.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="said", ylabel="true", title=name)
            axes.set_xticklabels(names)
            axes.set_yticklabels(names)

    return draw(make, width_in=min(WIDTH_IN, 3.0 * len(classes)), height_in=3.0, dpi=dpi)


def masks_plot(overlaps: Mapping[str, np.ndarray], *, dpi: int) -> bytes:
    """Distribution of the overlap of masks, by catalogue."""

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        edges = np.linspace(0, 1, 21)
        for number, (name, iou) in enumerate(overlaps.items()):
            fraction = np.histogram(iou, edges)[0] / max(len(iou), 1)
            axes.stairs(fraction, edges, color=colour_of(number), label=name, linewidth=1.5)
        axes.set(xlabel="intersection over union", ylabel="fraction of the pairs")
        axes.legend(loc="upper left")

    return draw(make, width_in=WIDTH_IN * 0.6, height_in=3.0, dpi=dpi)


def sweep_plot(ranked: pl.DataFrame, columns: Sequence[str], *, dpi: int) -> bytes:
    """A heat map over score and NMS threshold of each column; the chosen point is marked."""
    score, nms = (np.unique(ranked[key].to_numpy()) for key in ("score", "nms"))
    at = np.searchsorted(nms, ranked["nms"].to_numpy()), np.searchsorted(score, ranked["score"].to_numpy())

    def make(figure: Figure) -> None:
        panels = figure.subplots(-(-len(columns) // 3), min(3, len(columns)), squeeze=False).ravel()
        for axes in panels[len(columns) :]:
            axes.axis("off")
        for axes, name in zip(panels, columns, strict=False):
            values = np.full((len(nms), len(score)), np.nan)
            values[at] = ranked[name].cast(pl.Float64).to_numpy()
            image = axes.imshow(np.ma.masked_invalid(values), origin="lower", aspect="auto", cmap="viridis")
            figure.colorbar(image, ax=axes, shrink=0.8)
            axes.plot(at[1][0], at[0][0], marker="o", markersize=9, markerfacecolor="none", color="white")
            axes.set(xlabel="score", ylabel="NMS", title=name)
            for axis, values_of in ((axes.xaxis, score), (axes.yaxis, nms)):
                ticks = np.unique(np.linspace(0, len(values_of) - 1, min(len(values_of), 6)).astype(int))
                axis.set_ticks(ticks, [f"{values_of[i]:g}" for i in ticks])

    return draw(make, width_in=WIDTH_IN, height_in=2.8 * -(-len(columns) // 3), dpi=dpi)
