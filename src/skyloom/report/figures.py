"""Figures as PNG bytes in one style: no pyplot, no state left behind, the same bytes for the same data."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# One colour per set of images on every plot; they stay apart for colour-blind readers and in grey print.
ALL, SELECTED, RANDOM = "#8a93a0", "#1d5fa8", "#d07a00"
INK, FAINT = "#22262c", "#c9ced6"
NIGHT, STARLIGHT = "#2b2e33", "#dfe2e6"  # behind pictures of the sky and their captions, on light and dark pages
THUMBNAIL_MAP = "inferno"

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same letters
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": ALL,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


def draw(make: Callable[[Figure], None], *, width_in: float, height_in: float, dpi: int) -> bytes:
    """Draw one figure.

    Parameters
    ----------
    make
        Draws on the empty figure it is given.
    width_in, height_in
        Size in inches.
    dpi
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG without time stamp or program version.
    """
    settings: Any = {key: value for key, value in rcParamsDefault.items() if not key.startswith("backend")} | STYLE
    with rc_context(settings):  # whatever a matplotlibrc on this machine says
        figure = Figure(figsize=(width_in, height_in), dpi=dpi, layout="constrained")
        make(figure)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def step_histogram(axes: Axes, values: np.ndarray, edges: np.ndarray, *, color: str, label: str, fill: bool) -> None:
    """Outline (or fill) the fraction of ``values`` (N,) in each bin of ``edges`` (B + 1,)."""
    fraction = np.histogram(values, edges)[0] / max(len(values), 1)
    axes.stairs(fraction, edges, color=color, label=label, fill=fill, alpha=0.35 if fill else 1.0, linewidth=1.5)


def ranked(axes: Axes, counts: np.ndarray, *, color: str, label: str, linestyle: str = "-") -> None:
    """Plot counts per cluster from the fullest to the emptiest against their rank; empty ones are left out.

    Of more than 2,000 clusters every so-many-th is drawn, first and last included: a plot has no more pixels.
    """
    order = np.sort(counts[counts > 0])[::-1]
    pick = np.unique(np.linspace(0, len(order) - 1, min(len(order), 2000)).astype(np.int64))
    marker = "o" if len(counts) <= 30 else ""
    axes.plot(pick + 1, order[pick], color=color, label=label, linestyle=linestyle, marker=marker, markersize=3)


def stretch(
    pixels: np.ndarray,
    rms: np.ndarray,
    *,
    low_sigma: float = -2.0,
    high_sigma: float = 100.0,
    softening_sigma: float = 3.0,
) -> np.ndarray:
    """Bring cutouts to 0..1 with one asinh stretch of their signal to noise, so that they can be compared.

    Parameters
    ----------
    pixels
        (n, S, S), any unit, NaN where blank.
    rms
        (n,) noise in the same unit; where it is 0 or not finite, the standard deviation of the cutout is taken.
    low_sigma, high_sigma
        Signal to noise shown as black and as the brightest colour.
    softening_sigma
        Signal to noise at which the stretch turns from linear to logarithmic.

    Returns
    -------
    ndarray
        (n, S, S) float64 in [0, 1]; NaN stays.

    Notes
    -----
    Lupton, Gunn & Szalay 1999, AJ 118, 1406.
    """
    out = np.full(pixels.shape, np.nan)
    low, high = np.arcsinh([low_sigma / softening_sigma, high_sigma / softening_sigma])
    for i, (image, noise) in enumerate(zip(pixels, rms, strict=True)):
        finite = np.isfinite(image)
        if not finite.any():
            continue
        scale = noise if np.isfinite(noise) and noise > 0 else float(np.std(image[finite], dtype=np.float64)) or 1.0
        centre = float(np.median(image[finite]))
        signal = np.arcsinh((image[finite].astype(np.float64) - centre) / scale / softening_sigma)
        out[i][finite] = np.clip((signal - low) / (high - low), 0, 1)
    return out


def grid(axes: Axes, tiles: np.ndarray, captions: list[str], *, columns: int, title: str) -> None:
    """Show tiles (n, S, S) in [0, 1] row by row on a figure of colour ``NIGHT``, captions below; blank is grey."""
    size = tiles.shape[1]
    gap_x, gap_y = max(1, round(0.05 * size)), max(1, round(0.17 * size))
    rows = -(-len(tiles) // columns)
    axes.set(xlim=(0, columns * (size + gap_x) - gap_x), ylim=(rows * (size + gap_y), 0), aspect="equal")
    axes.axis("off")
    axes.set_title(title, color=STARLIGHT)
    colours = colormaps[THUMBNAIL_MAP].with_extremes(bad=FAINT)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        top, left = (i // columns) * (size + gap_y), (i % columns) * (size + gap_x)
        box = (left, left + size, top, top + size)  # drawn downwards: FITS rows count from the bottom, hence the flip
        axes.imshow(tile[::-1], cmap=colours, vmin=0, vmax=1, extent=(box[0], box[1], box[3], box[2]))
        axes.text(
            left + size / 2, top + size + 0.02 * size, caption, ha="center", va="top", fontsize=6, color=STARLIGHT
        )
    axes.set(xlim=(0, columns * (size + gap_x) - gap_x), ylim=(rows * (size + gap_y), 0))
