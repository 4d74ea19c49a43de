"""Patches of one pixel grid (a tract): which of them fill a rectangle, and joined by which whole pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS

from skyloom.sky.geometry.wcs_cards import wcs_of

WHOLE_PX = 1e-3  # reference pixels of patches of one grid differ by whole pixels, to this


@dataclass(frozen=True)
class PatchGrid:
    """Patches whose pixels are those of one grid.

    Attributes
    ----------
    wcs : WCS
        Of the first patch, whose pixels count in all rectangles.
    names : tuple of str
        Of the patches.
    rectangles : ndarray
        int64 (P, 4): row0, col0, height, width of each patch.
    """

    wcs: WCS
    names: tuple[str, ...]
    rectangles: np.ndarray


@dataclass(frozen=True)
class Filling:
    """How a rectangle is filled.

    Attributes
    ----------
    pieces : ndarray
        int64 (n, 7): number of the patch; row0, col0 in the patch, height, width; row and column in the rectangle.
    covered : float
        Part of the rectangle's area that they fill.
    margin_px : float
        Distance of the rectangle from the nearest edge of the one patch that holds it; negative when none does.
    """

    pieces: np.ndarray
    covered: float
    margin_px: float

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Larger is better: one patch before several, then what is covered, then far from the edge."""
        return self.margin_px >= 0, self.covered, self.margin_px


def patch_grids(names: Sequence[str], cards: Sequence[str], shapes: Sequence[tuple[int, int]]) -> list[PatchGrid]:
    """Sort patches into grids.

    Two patches are of one grid when their projections are the same and their reference pixels differ by whole pixels.

    Parameters
    ----------
    names, cards, shapes
        Name, FITS cards of the WCS, and height and width of each patch.

    Returns
    -------
    list of PatchGrid
        In the order of their first patches.
    """
    found: list[tuple[tuple[object, ...], WCS, list[str], list[tuple[int, int, int, int]]]] = []
    for name, one, shape in zip(names, cards, shapes, strict=True):
        wcs = wcs_of(one)
        key = _projection(wcs)
        for other, first, held, rectangles in found:
            col0, row0 = first.wcs.crpix - wcs.wcs.crpix
            if other == key and abs(col0 - round(col0)) < WHOLE_PX and abs(row0 - round(row0)) < WHOLE_PX:
                held.append(name)
                rectangles.append((round(row0), round(col0), *shape))
                break
        else:
            found.append((key, wcs, [name], [(0, 0, *shape)]))
    return [PatchGrid(wcs, tuple(held), np.array(boxes, np.int64)) for _, wcs, held, boxes in found]


def fill(grid: PatchGrid, box: np.ndarray) -> Filling:
    """Fill a rectangle with patches of a grid.

    One patch fills it if one holds it: that from whose edges it is farthest. Otherwise it is cut along the edges of the
    patches, and each part taken from the patch in which it lies deepest.

    Parameters
    ----------
    grid
        Patches.
    box
        row0, col0, height, width in the grid's pixels, shape (4,).
    """
    row0, col0, height, width = (int(value) for value in box)
    first, last = grid.rectangles[:, :2], grid.rectangles[:, :2] + grid.rectangles[:, 2:]
    start, end = np.array([row0, col0]), np.array([row0 + height, col0 + width])
    margin = np.minimum(start - first, last - end).min(axis=1)
    best = int(margin.argmax())
    if margin[best] >= 0:
        piece = [best, row0 - first[best, 0], col0 - first[best, 1], height, width, 0, 0]
        return Filling(np.array([piece], np.int64), 1.0, float(margin[best]))
    near = np.flatnonzero(((first < end) & (last > start)).all(axis=1))
    edges = [
        np.unique(np.clip(np.concatenate([[start[k], end[k]], first[near, k], last[near, k]]), start[k], end[k]))
        for k in (0, 1)
    ]
    parts = _merged(_parts(first, last, near, edges[0], edges[1]))
    pieces = np.array(
        [[p, r - first[p, 0], c - first[p, 1], h, w, r - row0, c - col0] for p, r, c, h, w in parts], np.int64
    ).reshape(-1, 7)
    covered = float((pieces[:, 3] * pieces[:, 4]).sum() / (height * width)) if height * width else 0.0
    return Filling(pieces, covered, float(margin[best]))


def _parts(
    first: np.ndarray, last: np.ndarray, near: np.ndarray, rows: np.ndarray, cols: np.ndarray
) -> list[tuple[int, int, int, int, int]]:
    """Patch, row0, col0, height and width of each part between the edges that a patch fills, row by row."""
    parts = []
    for top, bottom in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True):
        for left, right in zip(cols[:-1].tolist(), cols[1:].tolist(), strict=True):
            depth = np.minimum([top, left] - first[near], last[near] - [bottom, right]).min(axis=1)
            if len(depth) and depth.max() >= 0:
                parts.append((int(near[depth.argmax()]), top, left, bottom - top, right - left))
    return parts


def _merged(parts: list[tuple[int, int, int, int, int]]) -> list[tuple[int, int, int, int, int]]:
    """Parts of one patch that lie side by side as one, then those that lie one below the other."""
    rows: list[tuple[int, int, int, int, int]] = []
    for p, r, c, h, w in parts:
        if rows and (rows[-1][0], rows[-1][1], rows[-1][2] + rows[-1][4]) == (p, r, c):
            rows[-1] = (p, r, rows[-1][2], h, rows[-1][4] + w)
        else:
            rows.append((p, r, c, h, w))
    whole: list[tuple[int, int, int, int, int]] = []
    for p, r, c, h, w in rows:
        above = next((i for i, q in enumerate(whole) if (q[0], q[1] + q[3], q[2], q[4]) == (p, r, c, w)), None)
        if above is None:
            whole.append((p, r, c, h, w))
        else:
            whole[above] = (p, whole[above][1], c, whole[above][3] + h, w)
    return whole


def _projection(wcs: WCS) -> tuple[object, ...]:
    """All of a WCS but the reference pixel, rounded to what no reading of a header changes."""
    cards = wcs.to_header(relax=True)
    skipped = ("CRPIX", "DATE", "MJD", "WCSNAME")
    return tuple(
        (key, float(f"{value:.10e}") if isinstance(value, float) else value)
        for key, value in sorted(cards.items())
        if not key.startswith(skipped)
    )
