"""One detection per object where the tiles of a mosaic overlap."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.sky.mask.placed import PlacedMask
from skyloom.sky.window.overlap import keep_best

BOX = ("x0_px", "y0_px", "x1_px", "y1_px")
CUT_PX = 1.0  # a box that comes as near as this to a border of its tile may go on beyond it
Rectangle = tuple[int, int, int, int]
"""First row and column, and one past the last row and column."""


@dataclass(frozen=True)
class Seams:
    """What becomes of n detections.

    Attributes
    ----------
    kept
        bool (n,), one of each object.
    away
        bool (n,): dropped because the object's middle lies in the part of another tile.
    twice
        bool (n,): dropped because the same object is kept from another tile.
    cut
        bool (n,): the box ends where its tile ends and the mosaic does not, so that the object may be larger.
    """

    kept: NDArray[np.bool_]
    away: NDArray[np.bool_]
    twice: NDArray[np.bool_]
    cut: NDArray[np.bool_]


def one_per_object(found: pl.DataFrame, images: pl.DataFrame, *, seam_px: float, same_iou: float) -> Seams:
    """Choose one detection of each object.

    A tile keeps the detections whose box has its centre in the tile's own part, or at most `seam_px` outside, because
    two tiles never agree to the last pixel where a centre is. Of those from different tiles, two are the same object
    when their masks agree on the pixels that both tiles have; whole ones are kept before those that a border cuts,
    those in their tile's own part before others, then the better scored. A small object on a large one
    agrees with it nowhere, so both stay. Objects up to the size of the overlap are whole in the tile that keeps them.

    Parameters
    ----------
    found
        Detections in pixels of their tiles, image by image: image_row, x0_px … y1_px, score, and rle of the mask in
        the tile.
    images
        All tiles, see :class:`skyloom.product.detection_source.Source`.
    seam_px
        How far outside its tile's own part the centre of a box may lie.
    same_iou
        Least intersection over union, 0-1, of two masks of one object.

    Returns
    -------
    Seams
        By row of `found`; images that are no tiles keep everything.
    """
    rows = found["image_row"].to_numpy().astype(np.int64)
    boxes = found.select(BOX).to_numpy().astype(np.float64)
    outside, cut = _outside(boxes, rows, images), _cut(boxes, rows, images)
    away = outside > seam_px
    near = np.flatnonzero(~away)
    first, second = _same(found, boxes, rows, near, images, same_iou)
    order = np.lexsort((np.arange(len(rows)), -found["score"].to_numpy().astype(np.float64), outside > 0, cut))
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows))
    twice = keep_best(len(rows), first, second, rank) >= 0
    return Seams(~away & ~twice, away, twice, cut)


def reaching_in(found: pl.DataFrame, images: pl.DataFrame) -> dict[int, NDArray[np.int64]]:
    """For each tile the rows of detections of other tiles whose boxes reach into it; tiles without any are left out."""
    rows = found["image_row"].to_numpy().astype(np.int64)
    boxes = found.select(BOX).to_numpy().astype(np.float64)
    of_tile, corner = _by_tile(rows), _corners(images)
    reached: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
    for one, other, common in overlapping(images):
        for start, end in ((one, other), (other, one)):
            mine = of_tile.get(start, np.empty(0, np.int64))
            reached[end].append(mine[_touch(boxes[mine], corner[start], common)])
    return {row: np.sort(np.concatenate(parts)) for row, parts in reached.items() if sum(map(len, parts))}


def overlapping(images: pl.DataFrame) -> Iterator[tuple[int, int, Rectangle]]:
    """Pairs of rows of tiles of one mosaic that share pixels, each pair once, and what they share, in the mosaic."""
    tiles = images.filter(pl.len().over("name") > 1, pl.col("cutout_id").is_null())
    for _, group in tiles.group_by("name", maintain_order=True):
        place = {(tile["row0"], tile["col0"]): tile for tile in group.iter_rows(named=True)}
        row_starts, col_starts = (np.unique(group[name].to_numpy()) for name in ("row0", "col0"))
        for (row0, col0), tile in place.items():
            row1, col1 = row0 + tile["height_px"], col0 + tile["width_px"]
            for below in row_starts[(row_starts >= row0) & (row_starts < row1)].tolist():
                for beside in col_starts[(col_starts > col0 - tile["width_px"]) & (col_starts < col1)].tolist():
                    other = place.get((below, beside))
                    if other is not None and (below, beside) > (row0, col0):
                        ends = min(row1, below + other["height_px"]), min(col1, beside + other["width_px"])
                        yield tile["image_row"], other["image_row"], (below, max(col0, beside), *ends)


def _outside(boxes: NDArray[np.float64], rows: NDArray[np.int64], images: pl.DataFrame) -> NDArray[np.float64]:
    """How far the centre of each box lies outside the part that is its tile's own, in pixels."""
    core = images.select("core_col0", "core_row0", "core_col1", "core_row1").to_numpy().astype(float)[rows]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    edge = (centre >= core[:, 2:]) & (core[:, 2:] < images.select("width_px", "height_px").to_numpy()[rows])
    beyond = np.maximum(core[:, :2] - centre, np.where(edge, np.maximum(centre - core[:, 2:], 1e-9), 0.0))
    return np.asarray(np.maximum(beyond, 0.0).max(axis=1, initial=0.0))


def _cut(boxes: NDArray[np.float64], rows: NDArray[np.int64], images: pl.DataFrame) -> NDArray[np.bool_]:
    """Whether each box touches a border of its tile beyond which the mosaic goes on, that is one of no core."""
    tiles = images.select("width_px", "height_px", "core_col0", "core_row0", "core_col1", "core_row1").to_numpy()[rows]
    size, first, last = tiles[:, :2], tiles[:, 2:4], tiles[:, 4:]
    low = (boxes[:, :2] <= CUT_PX) & (first > 0)
    high = (boxes[:, 2:] >= size - CUT_PX) & (last < size)
    return np.asarray((low | high).any(axis=1))


def _same(
    found: pl.DataFrame,
    boxes: NDArray[np.float64],
    rows: NDArray[np.int64],
    near: NDArray[np.int64],
    images: pl.DataFrame,
    same_iou: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of detections that are the same object."""
    counts, shapes, corner = found["rle"], images.select("height_px", "width_px").to_numpy(), _corners(images)
    of_tile = {row: near[mine] for row, mine in _by_tile(rows[near]).items()}
    masks: dict[int, PlacedMask] = {}

    def mask(place: int, common: Rectangle) -> NDArray[np.bool_]:
        """The part of a mask on the common pixels."""
        if place not in masks:
            shape, at = tuple(shapes[rows[place]].tolist()), corner[rows[place]].tolist()
            masks[place] = PlacedMask.from_rle(counts[place], shape, row0=at[0], col0=at[1])
        one = masks[place]
        full = np.zeros((common[2] - common[0], common[3] - common[1]), bool)
        window, part = PlacedMask(one.pixels, one.row0 - common[0], one.col0 - common[1]).on(full.shape)
        full[window] = part
        return full

    pairs: list[tuple[int, int]] = []
    for one, other, common in overlapping(images):
        ours, theirs = (of_tile.get(tile, np.empty(0, np.int64)) for tile in (one, other))
        ours = ours[_touch(boxes[ours], corner[one], common)]
        theirs = theirs[_touch(boxes[theirs], corner[other], common)]
        moved = [boxes[mine] + np.tile(corner[tile][::-1], 2) for mine, tile in ((ours, one), (theirs, other))]
        meet = (moved[0][:, None, :2] < moved[1][None, :, 2:]) & (moved[1][None, :, :2] < moved[0][:, None, 2:])
        for i, j in zip(*np.nonzero(meet.all(axis=2)), strict=True):
            first, second = mask(int(ours[i]), common), mask(int(theirs[j]), common)
            union = np.count_nonzero(first | second)
            if union and np.count_nonzero(first & second) >= same_iou * union:
                pairs.append((int(ours[i]), int(theirs[j])))
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def _touch(boxes: NDArray[np.float64], corner: NDArray[np.int64], common: Rectangle) -> NDArray[np.bool_]:
    """Which boxes, in pixels of a tile at a corner, reach into a rectangle of the mosaic."""
    low = np.array([common[1] - corner[1], common[0] - corner[0]])
    high = np.array([common[3] - corner[1], common[2] - corner[0]])
    return np.asarray(((boxes[:, 2:] > low) & (boxes[:, :2] < high)).all(axis=1))


def _by_tile(rows: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    order = np.argsort(rows, kind="stable")
    tiles, starts = np.unique(rows[order], return_index=True)
    return dict(zip(tiles.tolist(), np.split(order, starts[1:]), strict=True)) if len(rows) else {}


def _corners(images: pl.DataFrame) -> NDArray[np.int64]:
    return images.select("row0", "col0").to_numpy().astype(np.int64)
