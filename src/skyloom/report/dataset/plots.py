"""The plots of a report on a data set, each from plain arrays to PNG bytes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from skyloom.report.figures import ALL, NIGHT, RANDOM, SELECTED, STARLIGHT, draw, stretch
from skyloom.report.sky_map import sky_axes

WIDTH_IN = 9.0
MAX_PIXELS_SHOWN_SIGMA = 100.0


def objects_plot(
    per_image: np.ndarray, area_px: Mapping[str, np.ndarray], magnitudes: Mapping[str, np.ndarray], *, dpi: int
) -> bytes:
    """Histograms of objects per image (N,), mask areas by class, and finite magnitudes by band."""

    def make(figure: Figure) -> None:
        left, middle, right = figure.subplots(1, 3)
        left.hist(per_image, bins=np.arange(-0.5, per_image.max(initial=0) + 1), color=SELECTED)
        left.set(xlabel="objects in the image", ylabel="images")
        largest = max((values.max(initial=1) for values in area_px.values()), default=1)
        edges = np.geomspace(1, max(largest, 2) * 1.01, 30)
        for (name, values), color in zip(area_px.items(), (SELECTED, RANDOM, ALL), strict=False):
            middle.stairs(np.histogram(values, edges)[0], edges, color=color, label=name, linewidth=1.5)
        middle.set(xscale="log", xlabel="area of the mask (px)", ylabel="objects")
        middle.legend()
        colours = _colours(len(magnitudes))
        for (name, values), colour in zip(magnitudes.items(), colours, strict=True):
            if len(values):
                edges = np.arange(np.floor(values.min()), np.ceil(values.max()) + 0.75, 0.5)
                right.stairs(np.histogram(values, edges)[0], edges, color=colour, label=name, linewidth=1.2)
        right.set(xlabel="magnitude (AB)", ylabel="objects", yscale="log")
        if magnitudes:
            right.legend()

    return draw(make, width_in=WIDTH_IN, height_in=3.2, dpi=dpi)


def pixels_plot(bands: Mapping[str, np.ndarray], unit: str | None, *, dpi: int) -> bytes:
    """Histogram of the pixels (P,) of each band, by asinh of their signal over noise."""

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        for (name, values), color in zip(bands.items(), _colours(len(bands)), strict=True):
            sigma = 0.7413 * float(np.subtract(*np.percentile(values, [75, 25]))) or 1.0
            scaled = np.clip(values / sigma, -MAX_PIXELS_SHOWN_SIGMA, MAX_PIXELS_SHOWN_SIGMA)
            counts, edges = np.histogram(np.arcsinh(scaled), bins=100)
            axes.stairs(
                counts / len(values), np.sinh(edges), color=color, label=f"{name}: noise {sigma:.3g} {unit or ''}"
            )
        axes.set_xscale("symlog", linthresh=3)
        axes.set(
            yscale="log",
            xlabel="pixel over noise (0.741 times the distance of the quartiles)",
            ylabel="fraction of the pixels",
        )
        axes.legend()

    return draw(make, width_in=WIDTH_IN, height_in=3.4, dpi=dpi)


def reasons_plot(reasons: Sequence[tuple[str, int]], *, dpi: int) -> bytes:
    """Bars of reasons with their numbers, the most frequent on top."""

    def make(figure: Figure) -> None:
        axes = figure.subplots()
        names, numbers = [name for name, _ in reasons], [number for _, number in reasons]
        bars = axes.barh(names[::-1], numbers[::-1], color=ALL)
        axes.bar_label(bars, [f"{number:,}" for number in numbers[::-1]], padding=3, fontsize=8)
        axes.set(xlabel="objects", xscale="log" if max(numbers) > 50 * min(numbers) else "linear")

    return draw(make, width_in=WIDTH_IN, height_in=0.8 + 0.3 * len(reasons), dpi=dpi)


def sky_plot(parts: Mapping[str, tuple[np.ndarray, np.ndarray]], *, dpi: int) -> bytes:
    """Centres of the images (deg), by part."""

    def make(figure: Figure) -> None:
        ra, dec = (np.concatenate([place[i] for place in parts.values()]) for i in (0, 1))
        axes, keywords = sky_axes(figure, ra, dec)
        for (name, place), color in zip(parts.items(), _colours(len(parts)), strict=True):
            axes.scatter(*place, s=4, color=color, label=name, **keywords)
        axes.legend(loc="upper right", markerscale=2)

    return draw(make, width_in=WIDTH_IN * 0.6, height_in=4.6, dpi=dpi)


def examples_plot(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray], labels: Sequence[np.ndarray], titles: Sequence[str], *,
    dpi: int,
) -> bytes:  # fmt: skip
    """Images (H, W) of one band with the outlines of their masks (n, H, W), coloured by category (n,)."""
    columns = min(3, len(images))
    rows = -(-len(images) // columns)

    def make(figure: Figure) -> None:
        figure.set_facecolor(NIGHT)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels:
            axes.axis("off")
        for axes, image, own, kinds, title in zip(panels, images, masks, labels, titles, strict=False):
            quiet = 0.7413 * np.subtract(*np.nanpercentile(image, [75, 25])) if np.isfinite(image).any() else 1.0
            axes.imshow(stretch(image[None], np.array([quiet]))[0], origin="lower", cmap="gray", vmin=0, vmax=1)
            for mask, kind in zip(own, kinds, strict=True):
                if mask.any() and not mask.all():
                    color = RANDOM if kind else "#4da3ff"
                    axes.contour(mask, levels=[0.5], colors=[color], linewidths=0.7)
            axes.set_title(title, color=STARLIGHT)

    return draw(make, width_in=WIDTH_IN, height_in=0.2 + rows * (WIDTH_IN / columns + 0.15), dpi=dpi)


def _colours(number: int) -> list[tuple[float, float, float, float]]:
    """Distinct colours from blue to red, in the order of the bands."""
    return [tuple(colour) for colour in colormaps["turbo"](np.linspace(0.08, 0.92, number))]
