"""The plots of a report on features, each from plain arrays to PNG bytes."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from skyloom.metric.representation import PowerLaw
from skyloom.report.figures import ALL, FAINT, NIGHT, RANDOM, SELECTED, THUMBNAIL_MAP, draw, grid, step_histogram

CLASS_COLOURS = (
    SELECTED,
    RANDOM,
    "#5b7f3a",
    "#8b4a8b",
    "#b03a3a",
    "#3a9a9a",
    "#8a6d3b",
    "#d071a9",
    "#4b4f9c",
    "#a3a838",
)
PAIR_COLOURS = (SELECTED, "#5b7f3a", RANDOM, ALL)
DENSITY_CELLS = 150  # per side


def scatter_plot(
    xy: np.ndarray, color: np.ndarray | None, *, label: str, names: list[str], axes_labels: tuple[str, str], dpi: int
) -> bytes:
    """Points (M, 2), coloured by numbers (M,) with NaN in grey or, with ``names``, by class numbers, -1 in grey."""

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        size = max(1.0, 200 / np.sqrt(len(xy)))
        grey = np.ones(len(xy), dtype=bool) if color is None else (color < 0) if names else ~np.isfinite(color)
        axes.scatter(xy[grey, 0], xy[grey, 1], s=size, color=ALL if color is None else FAINT, linewidths=0)
        if color is not None and names:
            for number, name in enumerate(names):
                mine = color == number
                own = CLASS_COLOURS[number % len(CLASS_COLOURS)]
                axes.scatter(xy[mine, 0], xy[mine, 1], s=size, color=own, linewidths=0,
                             label=f"{name} ({int(mine.sum()):,})")  # fmt: skip
            figure.legend(loc="outside upper left", ncols=4, markerscale=max(1.0, 4 / np.sqrt(size)))
        elif color is not None and (~grey).any():
            shown = color[~grey]
            order = np.argsort(shown, kind="stable")  # the brightest last, so that they are not hidden
            x, y = xy[~grey][order].T
            points = axes.scatter(x, y, s=size, c=shown[order], cmap="viridis", norm=_norm(shown),
                                  linewidths=0)  # fmt: skip
            figure.colorbar(points, ax=axes, label=label, shrink=0.8)
        axes.set(xlabel=axes_labels[0], ylabel=axes_labels[1])

    return draw(make, width_in=7.0, height_in=5.6, dpi=dpi)


def density_plot(xy: np.ndarray, *, axes_labels: tuple[str, str], dpi: int) -> bytes:
    """Kernel density of points (M, 2) on 150 x 150 cells over the 1 to 99 % quantiles and 10 % more on each side."""
    low, high = np.quantile(xy, [0.01, 0.99], axis=0)
    margin = np.where(high > low, 0.1 * (high - low), 0.5)
    low, high = low - margin, high + margin
    counts, _, _ = np.histogram2d(xy[:, 0], xy[:, 1], bins=DENSITY_CELLS, range=[(low[0], high[0]), (low[1], high[1])])
    width = (high - low) / DENSITY_CELLS
    scott = len(xy) ** (-1 / 6) * np.minimum(xy.std(axis=0), (high - low) / 4) / width  # bandwidth in cells
    density = gaussian_filter(counts, np.maximum(scott, 0.5), mode="constant") / len(xy) / np.prod(width)

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        image = axes.imshow(density.T, origin="lower", extent=(low[0], high[0], low[1], high[1]), aspect="auto",
                            cmap="viridis")  # fmt: skip
        figure.colorbar(image, ax=axes, label="fraction of the cutouts per unit area", shrink=0.8)
        axes.set(xlabel=axes_labels[0], ylabel=axes_labels[1])

    return draw(make, width_in=7.0, height_in=5.6, dpi=dpi)


def mosaic_plot(picture: np.ndarray, *, dpi: int) -> bytes:
    """One large picture in [0, 1] without axes; NaN is dark."""

    def make(figure: Figure) -> None:
        figure.set_facecolor(NIGHT)
        axes = figure.subplots()
        axes.imshow(picture, cmap=colormaps[THUMBNAIL_MAP].with_extremes(bad=NIGHT), vmin=0, vmax=1)
        axes.axis("off")

    return draw(make, width_in=8.0, height_in=8.0, dpi=dpi)


def gallery_plot(tiles: np.ndarray, captions: list[str], *, columns: int, title: str, dpi: int) -> bytes:
    """Tiles (n, S, S) in [0, 1], row by row."""
    rows = -(-len(tiles) // columns)

    def make(figure: Figure) -> None:
        figure.set_facecolor(NIGHT)
        grid(figure.subplots(), tiles, captions, columns=columns, title=title)

    return draw(make, width_in=9.0, height_in=0.4 + rows * 9.0 / columns * 1.12, dpi=dpi)


def spectrum_plot(variances: np.ndarray, fit: PowerLaw, *, dpi: int) -> bytes:
    """Variance of each principal component with the fitted power law, and the part that the first ones hold."""
    positive = variances[variances > 0]

    def make(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        rank = np.arange(1, len(positive) + 1)
        marker = "o" if len(rank) <= 40 else ""
        left.loglog(rank, positive, color=SELECTED, marker=marker, markersize=3, label="variance λ")
        if np.isfinite(fit.alpha):
            fitted = np.arange(fit.first, fit.last + 1)
            left.loglog(fitted, fit.scale * fitted**-fit.alpha, color=RANDOM, linestyle="--",
                        label=f"j$^{{-{fit.alpha:.2f}}}$, ranks {fit.first} to {fit.last}")  # fmt: skip
        left.set(xlabel="rank j of the principal component", ylabel="variance")
        right.plot(rank, np.cumsum(positive) / positive.sum(), color=SELECTED, marker=marker, markersize=3)
        right.axhline(0.99, color=ALL, linestyle=":", linewidth=0.8)
        right.set(xlabel="number of principal components", ylabel="fraction of the variance", ylim=(0, 1.03))
        right.set_xscale("log")
        for axes in (left, right):
            axes.grid()
        left.legend()

    return draw(make, width_in=9.0, height_in=3.4, dpi=dpi)


def distances_plot(distances: dict[str, np.ndarray], *, dpi: int) -> bytes:
    """Distribution of the distance between the features of each kind of pair."""
    every = np.concatenate(list(distances.values()))
    low, high = np.quantile(every, [0.0, 0.999])
    edges = np.linspace(low, high if high > low else low + 1, 61)

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        for (name, values), color in zip(distances.items(), PAIR_COLOURS, strict=True):
            if len(values):
                label = f"{name.replace('_', ' ')} ({len(values):,})"
                step_histogram(axes, values, edges, color=color, label=label, fill=name == "random")
        axes.set(xlabel="distance of the features", ylabel="fraction of the pairs")
        axes.grid(axis="y")
        axes.legend()

    return draw(make, width_in=6.5, height_in=3.4, dpi=dpi)


def two_sets_plot(
    first: np.ndarray, second: np.ndarray, shift: np.ndarray, *, names: tuple[str, str], dpi: int
) -> bytes:
    """Both sets (n, 2) on the principal axes of the first, and the shift of each dimension, (D,), from the largest."""

    def make(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        size = max(1.0, 200 / np.sqrt(len(first)))
        for points, color, name in ((first, SELECTED, names[0]), (second, RANDOM, names[1])):
            left.scatter(points[:, 0], points[:, 1], s=size, color=color, alpha=0.5, linewidths=0, label=name)
        left.set(xlabel="first principal component", ylabel="second")
        left.legend(markerscale=3)
        right.plot(np.arange(1, len(shift) + 1), np.sort(shift)[::-1], color=SELECTED)
        right.set(xlabel="rank of the dimension", ylabel="shift of the mean / standard deviation")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.grid()

    return draw(make, width_in=9.0, height_in=3.8, dpi=dpi)


def _norm(values: np.ndarray) -> Any:
    """Logarithmic colours for positive numbers over more than a decade and a half, else linear; 1 to 99 % quantiles."""
    low, high = np.quantile(values, [0.01, 0.99])
    if low > 0 and high / low > 30:
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1)
