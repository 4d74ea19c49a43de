"""The plots of a report on a selection, each from plain arrays to PNG bytes."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skyloom.report.figures import ALL, NIGHT, RANDOM, SELECTED, draw, grid, ranked, step_histogram, stretch
from skyloom.report.sky_map import sky_axes

WIDTH_IN = 9.0


def occupancy_plot(levels: list[dict[str, np.ndarray]], *, dpi: int) -> bytes:
    """Images per cluster, fullest first, a panel per level; each level maps all, random and selection to counts."""

    def make(figure: Figure) -> None:
        panels = figure.subplots(1, len(levels), squeeze=False)[0]
        for number, (axes, counts) in enumerate(zip(panels, levels, strict=True), start=1):
            clusters = len(counts["all"])
            even = counts["selection"].sum() / clusters
            axes.axhline(even, color=SELECTED, linewidth=0.8, linestyle=":", label=f"even share, {even:,.3g} each")
            ranked(axes, counts["all"], color=ALL, label=_empty("all", counts["all"]))
            ranked(axes, counts["random"], color=RANDOM, label=_empty("random", counts["random"]), linestyle="--")
            ranked(axes, counts["selection"], color=SELECTED, label=_empty("selection", counts["selection"]))
            axes.set(yscale="log", xlabel="rank of the cluster", title=f"Level {number}: {clusters:,} clusters")
            margin = max(0.3, 0.02 * clusters)
            axes.set_xlim(1 - margin, clusters + margin)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="y")
            axes.legend(loc="best")
        panels[0].set_ylabel("images in the cluster")

    return draw(make, width_in=WIDTH_IN, height_in=3.6, dpi=dpi)


def thumbnails_plot(
    sets: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], *, titles: dict[str, str], dpi: int
) -> bytes:
    """Grids of cutouts side by side; each set maps to pixels (n, S, S), rms (n,) and peak S/N (n,)."""
    columns = 6 if max(len(pixels) for pixels, _, _ in sets.values()) > 16 else 4

    def make(figure: Figure) -> None:
        figure.set_facecolor(NIGHT)
        panels = figure.subplots(1, len(sets), squeeze=False, gridspec_kw={"wspace": 0.06})[0]
        for axes, (name, (pixels, rms, snr)) in zip(panels, sets.items(), strict=True):
            captions = [f"S/N {_short(value)}" for value in snr]
            grid(axes, stretch(pixels, rms), captions, columns=columns, title=titles[name])

    rows = max(-(-len(pixels) // columns) for pixels, _, _ in sets.values())
    height = 0.4 + rows * (WIDTH_IN / len(sets) / columns) * 1.08
    return draw(make, width_in=WIDTH_IN, height_in=height, dpi=dpi)


def principal_axes(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (D,), first two principal axes (2, D) and the fraction of the variance along them (2,).

    The sign of an axis is free; here its largest component is positive, so that a plot is not mirrored at random.
    Feature vectors of one dimension get a second axis of zeros.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features.astype(np.float64) - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / max(len(features) - 1, 1))
    axes = np.zeros((2, features.shape[1]))
    fractions = np.zeros(2)
    total = values.clip(min=0).sum()
    for i in range(min(2, features.shape[1])):
        axis = vectors[:, -1 - i]
        axes[i] = axis * np.sign(axis[np.argmax(np.abs(axis))])
        fractions[i] = max(values[-1 - i], 0) / total if total > 0 else 0.0
    return mean, axes, fractions


def pca_plot(all_features: np.ndarray, selected_features: np.ndarray, *, dpi: int) -> tuple[bytes, np.ndarray]:
    """Features (M, D) and those of selected images (m, D) along the principal axes of the former; PNG, fractions."""
    mean, axes_d, fractions = principal_axes(all_features)

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        x, y = ((all_features - mean) @ axes_d.T).T
        _scatter(figure, axes, x, y, *((selected_features - mean) @ axes_d.T).T, keywords={})
        axes.set(
            xlabel=f"first principal component ({100 * fractions[0]:.0f} % of the variance)",
            ylabel=f"second ({100 * fractions[1]:.0f} %)",
        )
        axes.grid()

    return draw(make, width_in=6.5, height_in=4.6, dpi=dpi), fractions


def sky_plot(all_sky: tuple[np.ndarray, np.ndarray], selected_sky: tuple[np.ndarray, np.ndarray], *, dpi: int) -> bytes:
    """Positions (RA, Dec) in degrees of all and of the selected images."""

    def make(figure: Figure) -> None:
        axes, keywords = sky_axes(figure, *all_sky)
        _scatter(figure, axes, *all_sky, *selected_sky, keywords=keywords)

    return draw(make, width_in=6.5, height_in=4.6, dpi=dpi)


def snr_plot(all_snr: np.ndarray, selected_snr: np.ndarray, *, dpi: int) -> bytes:
    """Distribution of peak S/N, positive finite values only, in logarithmic bins."""

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        low, high = np.log10([all_snr.min(), all_snr.max()])
        bins = int(np.clip(np.sqrt(len(selected_snr)) * 2, 10, 60))
        edges = np.logspace(low, max(high, low + 0.01) + 1e-6, bins + 1)
        edges[0] = min(edges[0], all_snr.min())
        step_histogram(axes, all_snr, edges, color=ALL, label=f"all, {len(all_snr):,}", fill=True)
        step_histogram(axes, selected_snr, edges, color=SELECTED, label=f"selection, {len(selected_snr):,}", fill=False)
        axes.set(xscale="log", xlabel="peak signal to noise", ylabel="fraction of the images")
        axes.grid(axis="y")
        axes.legend()

    return draw(make, width_in=6.5, height_in=3.4, dpi=dpi)


def training_plot(metrics: pl.DataFrame, *, dimensions: int | None, dpi: int) -> bytes:
    """Loss and, where it was logged, the spread of the features against the step of training."""
    losses = loss_columns(metrics)
    spreads = [name for name in metrics.columns if name.endswith("collapse_std") and metrics[name].count()]

    def make(figure: Figure) -> None:
        panels = figure.subplots(1, 2 if spreads else 1, squeeze=False)[0]
        _curves(panels[0], metrics, losses, "loss")
        if spreads:
            _curves(panels[1], metrics, spreads, "spread of the features")
            if dimensions:
                ideal = dimensions**-0.5
                panels[1].axhline(ideal, color=ALL, linestyle=":", label=f"no collapse, 1/√{dimensions} = {ideal:.3f}")
            panels[1].set_ylim(bottom=0)
            panels[1].legend()

    return draw(make, width_in=WIDTH_IN if spreads else 6.5, height_in=3.4, dpi=dpi)


def loss_columns(metrics: pl.DataFrame) -> list[str]:
    """Columns of a Lightning ``metrics.csv`` that hold a loss and at least one value."""
    return [name for name in metrics.columns if "loss" in name and metrics[name].count()]


def _curves(axes: Axes, metrics: pl.DataFrame, columns: list[str], label: str) -> None:
    x_name = "step" if "step" in metrics.columns else None
    for name, color in zip(columns, (SELECTED, RANDOM, ALL, "#5b7f3a", "#8b4a8b") * len(columns), strict=False):
        rows = metrics.with_row_index("row").drop_nulls(name)
        x: Any = rows[x_name or "row"].to_numpy()
        axes.plot(x, rows[name].to_numpy(), color=color, label=name, marker="o" if len(x) <= 30 else "", markersize=3)
    axes.set(xlabel="training step" if x_name else "row of metrics.csv", ylabel=label)
    axes.grid()
    axes.legend()


def _scatter(
    figure: Figure,
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    x_sel: np.ndarray,
    y_sel: np.ndarray,
    *,
    keywords: dict[str, Any],
) -> None:
    size = float(np.clip(9000 / max(len(x), 1), 2.0, 12.0))
    size_sel = float(np.clip(5000 / max(len(x_sel), 1), 3.0, 12.0))
    axes.scatter(x, y, s=size, color=ALL, alpha=0.5, linewidths=0, label=f"all ({len(x):,} shown)", **keywords)
    axes.scatter(x_sel, y_sel, s=size_sel, color=SELECTED, alpha=0.8, linewidths=0,
                 label=f"selection ({len(x_sel):,} shown)", **keywords)  # fmt: skip
    figure.legend(loc="outside upper left", ncols=2, markerscale=1.5)


def _short(value: float) -> str:
    """Three digits at most, no exponent."""
    if not np.isfinite(value):
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _empty(label: str, counts: np.ndarray) -> str:
    empty = int((counts == 0).sum())
    return f"{label}, {empty:,} empty" if empty else label
