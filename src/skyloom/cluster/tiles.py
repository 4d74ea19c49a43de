"""Rows sorted by group and cut into tiles, ready for matrix products; and the nearest centroid of each."""

import itertools
from collections.abc import Iterator

import numpy as np

from skyloom.cluster.guide import Guide
from skyloom.cluster.work import ordered

TILE_ROWS = 512  # rows of one matrix product: what it yields stays in the cache while the minimum is taken
_TASK_TILES = 16  # tiles that a thread works on at a time
_TILE_VALUES = 2**24  # bounds what a product yields to 64 MB for very many centroids
SMALL = 200  # columns of a product; with fewer, threads would hinder each other
_WORTHWHILE = 0.7  # of the centroids; leaving out fewer costs more than it spares
ROUNDING = 1e-6  # of the largest squared length in a product: nearer than this, float32 cannot tell which is less


class Tiles:
    """Centred rows in an order in which rows of one group follow each other.

    Parameters
    ----------
    block
        (N, D) float32 rows.
    shift
        (D,) float32, taken off all rows, so that an offset common to all costs no precision.
    guide
        Groups of exactly these rows; None for rows without groups.

    Attributes
    ----------
    order : ndarray
        (N,) int64, the row at each place.
    values : ndarray
        (N, D + 2) float32: row less ``shift``, 1, and a column that is free to be used.
    length : ndarray
        (N,) float32, squared length of the row less ``shift``.
    bounds : ndarray
        (T + 1,) int64; tile ``t`` has the places ``bounds[t]`` to ``bounds[t + 1]``.
    """

    def __init__(self, block: np.ndarray, shift: np.ndarray, guide: Guide | None) -> None:
        number, dim = block.shape
        self.guide, self.shift = guide, shift
        label = np.zeros(number, dtype=np.int16) if guide is None else guide.label
        self.order = np.argsort(label, kind="stable") if guide is not None else np.arange(number)
        self.values = np.ones((number, dim + 2), dtype=np.float32)
        for start in range(0, number, TILE_ROWS):  # piece by piece, so that no second copy is in memory
            places = slice(start, start + TILE_ROWS)
            np.subtract(block[self.order[places]], shift, out=self.values[places, :dim])
        self.length = np.einsum("ij,ij->i", self.centred, self.centred)
        label = label[self.order]
        runs = np.flatnonzero(np.diff(label, prepend=-1, append=-1))  # a group starts at each, but the last
        self._runs, self._run_label = runs[:-1], label[runs[:-1]].astype(np.int64)
        self.bounds = _cut(runs)
        # The groups that occur in each tile: one at its start, and those that start inside.
        at = np.union1d(self.bounds[:-1], runs[:-1])
        self._pair_label = label[at].astype(np.int64)
        self._pair_start = np.searchsorted(at, self.bounds[:-1])

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def centred(self) -> np.ndarray:
        """(N, D), the rows less ``shift``."""
        return self.values[:, :-2]

    def tasks(self) -> Iterator[range]:
        """Consecutive tiles for one thread each; the same whatever the number of threads."""
        for first in range(0, len(self), _TASK_TILES):
            yield range(first, min(first + _TASK_TILES, len(self)))

    def places(self, tile: int) -> slice:
        """Places of a tile."""
        return slice(int(self.bounds[tile]), int(self.bounds[tile + 1]))

    def within(self, points: np.ndarray, squared: np.ndarray) -> list[np.ndarray] | None:
        """Of M points, those that can be nearer to a row of each tile than its ``squared`` (N,) says; None for all."""
        if self.guide is None:
            return None
        reach = np.zeros(len(self.guide.radius), dtype=np.float32)
        reach[self._run_label] = np.sqrt(np.maximum.reduceat(squared, self._runs))
        near = self.guide.gaps(points) <= reach[:, None] * (1 + 1e-5)
        tile, point = np.nonzero(np.logical_or.reduceat(near[self._pair_label], self._pair_start, axis=0))
        cuts = np.searchsorted(tile, np.arange(len(self) + 1)).tolist()
        return [point[a:b] for a, b in itertools.pairwise(cuts)]

    def nearest(self, centroids: np.ndarray) -> np.ndarray:
        """Find the nearest of the centroids (K, D) for each row, in the order of the rows: (N,) int32.

        |c|^2 - 2 x.c comes from one product per tile, in float32. Where that cannot tell which of several centroids is
        nearest, float64 decides, and of equal ones the lowest. The result therefore does not depend on the tiles.
        """
        right = centroids - self.shift
        norms = np.einsum("ij,ij->i", right, right, dtype=np.float64).astype(np.float32)
        factors = np.concatenate([-2 * right, norms[:, None]], axis=1)
        doubt = ROUNDING * (self.length + norms.max())
        keep = None if self.guide is None else self.guide.nearest_candidates(centroids)
        most = max(1, _TILE_VALUES // len(centroids))
        index = np.empty(len(self.order), dtype=np.int32)

        def one(task: range) -> None:
            for tile in task:
                few = None
                if keep is not None:
                    few = np.flatnonzero(keep[self._groups(tile)].any(axis=0))
                few = few if few is not None and len(few) < _WORTHWHILE * len(centroids) else None
                places = self.places(tile)
                for start in range(places.start, places.stop, most):
                    part = slice(start, min(start + most, places.stop))
                    found = self._nearest(part, factors if few is None else factors[few], doubt[part])
                    index[self.order[part]] = found if few is None else few[found]

        for _ in ordered(one, self.tasks(), alone=keep is not None and keep.mean() * keep.shape[1] < SMALL):
            pass
        return index

    def _groups(self, tile: int) -> np.ndarray:
        """The groups that occur in a tile."""
        last = self._pair_start[tile + 1] if tile + 1 < len(self._pair_start) else None
        return self._pair_label[self._pair_start[tile] : last]

    def _nearest(self, places: slice, factors: np.ndarray, doubt: np.ndarray) -> np.ndarray:
        """Row of the factors that is nearest, for some places."""
        scores = self.values[places, :-1] @ factors.T
        found = scores.argmin(axis=1)
        least = scores[np.arange(len(found)), found]
        close = scores <= (least + doubt)[:, None]
        if np.count_nonzero(close) > len(found):
            unsure = np.flatnonzero(np.count_nonzero(close, axis=1) > 1)
            found[unsure] = _least_of(self.centred[places][unsure], factors[:, :-1] / -2, close[unsure])
        return found


def exact_nearest(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Find the nearest centroid (K, D) of each row (N, D) in float64, of equal ones the lowest: (N,) int64."""
    return _least_of(rows, centroids, np.ones((len(rows), len(centroids)), dtype=bool))


def _least_of(rows: np.ndarray, centroids: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The nearest centroid (K, D) of each row (N, D) among those ``allowed`` (N, K), in float64."""
    row, column = np.nonzero(allowed)
    exact = np.square(rows[row].astype(np.float64) - centroids[column]).sum(axis=1)
    first = np.flatnonzero(np.diff(row, prepend=-1))
    least = np.repeat(np.minimum.reduceat(exact, first), np.diff(first, append=len(row)))
    hits = np.flatnonzero(exact == least)
    return column[hits[np.unique(row[hits], return_index=True)[1]]]


def _cut(runs: np.ndarray) -> np.ndarray:
    """Bounds of tiles of at most ``TILE_ROWS``, cut where a new group starts unless that leaves less than half."""
    bounds = [0]
    for stop in runs[1:].tolist():
        if stop - bounds[-1] < TILE_ROWS // 4 and stop != runs[-1]:
            continue
        first, pieces = bounds[-1], -(-(stop - bounds[-1]) // TILE_ROWS)
        bounds += [first + (stop - first) * (i + 1) // pieces for i in range(pieces)]
    return np.array(bounds, dtype=np.int64)
