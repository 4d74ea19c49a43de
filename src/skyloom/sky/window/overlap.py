"""Windows that show the same pixels or the same sky, and which of them to keep."""

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from skyloom.sky.geometry.sphere import chord

CHUNK = 50_000  # windows whose neighbours are looked up at once; bounds the memory, never changes the result


def keep_best(number: int, first: np.ndarray, second: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Go through items from the best to the worst and keep each that conflicts with none kept before.

    This is the sequential greedy choice, done in rounds: in each round every item whose better rivals are all
    decided is decided. No two kept items conflict, and each item left out conflicts with a better one that is kept.

    Parameters
    ----------
    number
        Number of items N.
    first, second
        Pairs of items in conflict, shape (P,), each pair once and in either order.
    rank
        Shape (N,), all different; lower is better.

    Returns
    -------
    ndarray
        int64 (N,): -1 for items that are kept, else the best kept item that it conflicts with.
    """
    swap = rank[first] > rank[second]
    better, worse = np.where(swap, second, first), np.where(swap, first, second)
    every = better, worse
    kept, undecided = np.zeros(number, dtype=bool), np.ones(number, dtype=bool)
    while len(better):
        waits = np.zeros(number, dtype=bool)
        waits[worse] = True
        kept |= undecided & ~waits
        undecided &= waits
        undecided[worse[kept[better]]] = False
        alive = undecided[better] & undecided[worse]
        better, worse = better[alive], worse[alive]
    kept |= undecided
    better, worse = (ends[kept[every[0]]] for ends in every)
    order = np.argsort(-rank[better], kind="stable")
    lost_to = np.full(number, -1, dtype=np.int64)
    lost_to[worse[order]] = better[order]  # of several assignments the last one stands: that of the best
    return lost_to


def nonoverlapping(row0: np.ndarray, col0: np.ndarray, size_px: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Choose windows of one image that share no pixel.

    Windows of one size on a grid of stride ``s``: of every ``ceil(size / s)``-th row and column of windows, take the
    phase that has most; members of one phase start at least ``size`` pixels apart along an axis, so they are disjoint.
    Then, from the best to the worst, each window is added that overlaps none chosen before. Where windows lie on no
    grid (or differ in size) that second part is tried alone too, and what keeps more is taken.

    Parameters
    ----------
    row0, col0, size_px
        Windows, integer, shape (N,).
    rank
        Shape (N,), all different; lower is better.

    Returns
    -------
    ndarray
        int64 (N,): -1 for windows that are kept, else a kept window that it overlaps, the nearest one.
    """
    row0, col0, size_px = (np.asarray(a, dtype=np.int64) for a in (row0, col0, size_px))
    number = len(row0)
    best = _best_at_each_place(row0, col0, rank)
    chosen, ways = np.zeros(number, dtype=bool), 1
    chosen[best], ways = _largest_phase(row0[best], col0[best], size_px[best])
    kept = _complete(chosen, row0, col0, size_px, rank)
    if chosen.sum() * ways < len(best):  # by the pigeonhole principle the windows cannot be on one grid
        other = _complete(np.zeros(number, dtype=bool), row0, col0, size_px, rank)
        if other.sum() > kept.sum():
            kept = other
    return _nearest_overlapping(kept, row0, col0, size_px)


def sky_pairs(
    vectors: np.ndarray, group: np.ndarray, radius_arcsec: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of points of different groups that lie nearer to each other than both of their radii.

    Parameters
    ----------
    vectors
        Unit vectors, shape (N, 3).
    group
        Integer, shape (N,); pairs within a group are left out.
    radius_arcsec
        Shape (N,); the smaller one of a pair counts.

    Yields
    ------
    first, second : int64 (P,)
        Points, ``first < second``; each pair comes once.
    distance : float64 (P,)
        Straight distance between the unit vectors.
    """
    if len(vectors) == 0:
        return
    radius = chord(radius_arcsec)
    tree = cKDTree(vectors)
    order = tree.indices  # points in the order of the tree's leaves: a run of them lies close together
    for start in range(0, len(order), CHUNK):
        part = order[start : start + CHUNK]
        own = cKDTree(vectors[part])
        found = own.sparse_distance_matrix(tree, float(radius[part].max()), output_type="ndarray")
        first, second, distance = part[found["i"]], found["j"], found["v"]
        near = (first < second) & (group[first] != group[second])
        first, second, distance = first[near], second[near], distance[near]
        near = distance < np.minimum(radius[first], radius[second])
        yield first[near], second[near], distance[near]


def _best_at_each_place(row0: np.ndarray, col0: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Of windows that start at one pixel the best one, as item numbers."""
    order = np.lexsort((rank, col0, row0))
    row, col = row0[order], col0[order]
    return order[np.r_[True, (np.diff(row) != 0) | (np.diff(col) != 0)]]


def _largest_phase(row0: np.ndarray, col0: np.ndarray, size_px: np.ndarray) -> tuple[np.ndarray, int]:
    """Members of the largest phase, bool (N,), and the number of phases of such a grid; none for mixed sizes."""
    size = int(size_px[0])
    if (size_px != size).any():
        return np.zeros(len(row0), dtype=bool), 1
    every_row, every_col = (-(-size // stride) * stride for stride in (_stride(row0, size), _stride(col0, size)))
    phase = (row0 % every_row) * every_col + col0 % every_col
    phases, counts = np.unique(phase, return_counts=True)
    ways = (every_row // _stride(row0, size)) * (every_col // _stride(col0, size))
    return phase == phases[np.argmax(counts)], ways


def _stride(start: np.ndarray, size: int) -> int:
    """The most common distance between neighbouring starts (a last one may be moved inwards), at most ``size``."""
    steps = np.diff(np.unique(start))
    if len(steps) == 0:
        return size
    values, counts = np.unique(steps, return_counts=True)
    return min(int(values[np.argmax(counts)]), size)


def _complete(
    chosen: np.ndarray, row0: np.ndarray, col0: np.ndarray, size_px: np.ndarray, rank: np.ndarray
) -> np.ndarray:
    """Add to the chosen windows, from the best on, each that overlaps none of them; bool (N,)."""
    kept = chosen.copy()
    rest = np.flatnonzero(~chosen)
    if chosen.any():
        taken, _ = _overlaps(rest, np.flatnonzero(chosen), row0, col0, size_px)
        rest = np.setdiff1d(rest, taken)
    if len(rest):
        first, second = _overlaps(rest, rest, row0, col0, size_px)
        once = first < second
        place = np.full(len(row0), -1)
        place[rest] = np.arange(len(rest))
        kept[rest] = keep_best(len(rest), place[first[once]], place[second[once]], rank[rest]) < 0
    return kept


def _nearest_overlapping(kept: np.ndarray, row0: np.ndarray, col0: np.ndarray, size_px: np.ndarray) -> np.ndarray:
    lost_to = np.full(len(row0), -1, dtype=np.int64)
    lost, winner = _overlaps(np.flatnonzero(~kept), np.flatnonzero(kept), row0, col0, size_px)
    apart = np.hypot(
        row0[lost] + size_px[lost] / 2 - row0[winner] - size_px[winner] / 2,
        col0[lost] + size_px[lost] / 2 - col0[winner] - size_px[winner] / 2,
    )
    order = np.lexsort((col0[winner], row0[winner], apart))[::-1]  # the nearest one is written last
    lost_to[lost[order]] = winner[order]
    return lost_to


def _overlaps(
    some: np.ndarray, others: np.ndarray, row0: np.ndarray, col0: np.ndarray, size_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (one of ``some``, one of ``others``) of different windows that share a pixel."""
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    if len(some) == 0 or len(others) == 0:
        return firsts[0], seconds[0]
    centre = np.column_stack([row0 + size_px / 2, col0 + size_px / 2])
    tree = cKDTree(centre[others])
    for start in range(0, len(some), CHUNK):
        part = some[start : start + CHUNK]
        reach = (size_px[part].max() + size_px[others].max()) / 2
        found = cKDTree(centre[part]).sparse_distance_matrix(tree, reach, p=np.inf, output_type="ndarray")
        first, second = part[found["i"]], others[found["j"]]
        shared = first != second
        for low in (row0, col0):
            shared &= low[first] < low[second] + size_px[second]
            shared &= low[second] < low[first] + size_px[first]
        firsts.append(first[shared])
        seconds.append(second[shared])
    return np.concatenate(firsts), np.concatenate(seconds)
