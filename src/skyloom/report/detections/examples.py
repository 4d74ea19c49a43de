"""Example blends drawn from the images: what the truth says there, and what a catalogue found."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from astropy.wcs import WCS
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from skyloom.datamodule.band_index import BandIndex
from skyloom.errors import unknown_choice
from skyloom.match.points import Points, sky_points
from skyloom.report.detections.match import Matched
from skyloom.report.detections.plots import WIDTH_IN
from skyloom.report.figures import NIGHT, RANDOM, STARLIGHT, draw, stretch
from skyloom.sky.geometry.sphere import chord

TRUTH, FOUND = "#7fd1ff", RANDOM
NEAREST = 4  # cutouts looked into for one place: those of overlapping grids
KINDS = (("unrecognised", "is_unrec_blend"), ("resolved", "is_resolved_blend"), ("shredded", "is_shredded"))


@dataclass(frozen=True)
class Example:
    """A stamp (h, w) around a blend, with the pixels x, y of the truths (n, 2) and detections (m, 2) in it."""

    pixels: np.ndarray
    truths: np.ndarray
    detections: np.ndarray
    title: str


def blend_examples(
    matched: Matched, index: BandIndex, *, number: int, size_arcsec: float, band: str | None
) -> list[Example]:
    """At most ``number`` blends that lie in a cutout: unrecognised, resolved and shredded ones by turns, large first.

    Raises
    ------
    ConfigError
        There is no such band.
    """
    shown = index.bands[-1] if band is None else band
    if shown not in index.bands:
        raise unknown_choice("example_band", shown, index.bands)
    centres = index.table.select("ra_deg", "dec_deg").to_numpy()
    if matched.truth_flags is None or not len(centres):
        return []
    tree = cKDTree(sky_points(*centres.T))
    found: list[Example] = []
    for kind, centre in _places(matched):
        if len(found) == number:
            break
        example = _drawn(matched, index, tree, centre, kind, size_arcsec=size_arcsec, band=shown)
        if example is not None:
            found.append(example)
    return found


def _places(matched: Matched) -> list[tuple[str, Points]]:
    """Kind and centre (unit vector) of the components to show, in their order."""
    flags = matched.truth_flags
    assert flags is not None
    x, y, z = matched.truth.points.T if len(flags) else np.empty((3, 0))
    table = flags.with_columns(x=pl.Series(x), y=pl.Series(y), z=pl.Series(z))
    lists = []
    for kind, flag in KINDS:
        own = table.filter(flag).group_by("component").agg(pl.len(), pl.col("x", "y", "z").mean())
        own = own.sort(["len", "component"], descending=[True, False])
        lists.append([(kind, row) for row in own.select("x", "y", "z").to_numpy()])
    turns = max(map(len, lists))
    return [one[i] for i in range(turns) for one in lists if i < len(one)]


def _drawn(
    matched: Matched, index: BandIndex, tree: cKDTree, centre: Points, kind: str, *, size_arcsec: float, band: str
) -> Example | None:
    """The stamp around a place, from the cutout in which it lies farthest from the border; None if there is none."""
    near = np.atleast_1d(tree.query(centre, k=min(NEAREST, tree.n))[1])
    half = max(2, round(size_arcsec / index.pixel_scale_arcsec / 2))
    best: tuple[float, int, float, float] | None = None
    for row in near.tolist():
        height, width = index.shape(row)
        x, y = _pixels(index.wcs(row), centre[None])[0]
        room = min(x + 0.5, y + 0.5, width - 0.5 - x, height - 0.5 - y)
        if np.isfinite(room) and room > 0 and (best is None or room > best[0]):
            best = (room, row, x, y)
    if best is None:
        return None
    _, row, x, y = best
    image = index.read(row, (band,))[0]
    top, left = max(0, round(y) - half), max(0, round(x) - half)
    stamp = image[top : round(y) + half + 1, left : round(x) + half + 1]
    sides = []
    for side in (matched.truth, matched.detected):
        inside = np.linalg.norm(side.points - centre, axis=1) <= float(chord(0.71 * size_arcsec))
        places = _pixels(index.wcs(row), side.points[inside]) - [left, top]
        fits = ((places > -0.5) & (places < np.array(stamp.shape[::-1]) - 0.5)).all(1)
        sides.append(places[fits])
    return Example(stamp, sides[0], sides[1], kind)


def _pixels(wcs: WCS, points: Points) -> np.ndarray:
    """Pixels x, y (n, 2) of unit vectors (n, 3)."""
    ra, dec = np.degrees(np.arctan2(points[:, 1], points[:, 0])), np.degrees(np.arcsin(np.clip(points[:, 2], -1, 1)))
    return np.column_stack(wcs.world_to_pixel_values(ra % 360, dec))


def examples_plot(examples: list[Example], *, dpi: int) -> bytes:
    """Stamps with truths as rings and detections as crosses."""
    columns = min(6, len(examples))
    rows = -(-len(examples) // columns)

    def make(figure: Figure) -> None:
        figure.set_facecolor(NIGHT)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels:
            axes.axis("off")
        for axes, example in zip(panels, examples, strict=False):
            finite = example.pixels[np.isfinite(example.pixels)]
            noise = 0.7413 * float(np.subtract(*np.percentile(finite, [75, 25]))) if len(finite) else 1.0
            shown = stretch(example.pixels[None], np.array([noise]))[0]
            axes.imshow(shown, origin="lower", cmap="gray", vmin=0, vmax=1)
            axes.scatter(*example.truths.T, s=60, facecolors="none", edgecolors=TRUTH, linewidths=1)
            axes.scatter(*example.detections.T, s=40, marker="+", color=FOUND, linewidths=1)
            axes.set_title(f"{example.title}: {len(example.truths)} / {len(example.detections)}", color=STARLIGHT)

    return draw(make, width_in=WIDTH_IN, height_in=(WIDTH_IN / columns + 0.25) * rows, dpi=dpi)
