"""Nearest-centroid search over any number of rows, with the sums that a k-means step needs."""

from typing import Any

import numpy as np

from skyloom.cluster.rows import Metric, Rows, as_rows, unit_rows
from skyloom.errors import InputError

_TILE_ROWS = 256  # rows of one matrix product: its (256, K) scores stay in the cache while the minimum is taken
_TILE_VALUES = 2**24  # bounds the scores to 64 MB for very many centroids


def assign(x: Any, centroids: np.ndarray, metric: Metric = "l2") -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest centroid of every row.

    The candidate is found with one matrix product per tile, on rows shifted by the mean centroid so that an offset
    common to all features costs no precision. The distance to it is then computed from the difference of the two
    vectors, so it is never negative, and zero for identical vectors.

    Parameters
    ----------
    x
        (N, D) features, in memory or lazy, see :class:`skyloom.cluster.rows.Rows`.
    centroids
        (K, D) float32.
    metric
        ``l2``, or ``cosine``: rows and centroids are scaled to unit length first. The distance is Euclidean in both
        cases; for unit vectors its square is twice the cosine distance.

    Returns
    -------
    index : (N,) int32
        Row of ``centroids``; the lowest one of several that are equally near.
    distance : (N,) float32
        Euclidean distance to that centroid.

    Raises
    ------
    InputError
        The features cannot be used, or the centroids have another number of columns.
    """
    rows = as_rows(x, metric)
    centroids = np.ascontiguousarray(centroids, dtype=np.float32)
    if centroids.ndim != 2 or len(centroids) == 0 or centroids.shape[1] != rows.shape[1]:
        raise InputError(
            f"centroids must have shape (K, {rows.shape[1]}) like the features, found {centroids.shape}; "
            "use centroids that were made from features of the same model"
        )
    if metric == "cosine":
        centroids = unit_rows(centroids)
    index, squared, _ = nearest(rows, centroids, with_sums=False)
    return index, np.sqrt(squared)


def nearest(
    rows: Rows, centroids: np.ndarray, *, with_sums: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Like :func:`assign`, in one pass that also adds up the rows of each cluster.

    Returns
    -------
    index : (N,) int32
    squared : (N,) float32
        Squared Euclidean distance.
    sums : (K, D) float64 or None
        Sum of the rows of each cluster; None without ``with_sums``.
    """
    clusters, dim = centroids.shape
    index = np.empty(len(rows), dtype=np.int32)
    squared = np.empty(len(rows), dtype=np.float32)
    sums = np.zeros((clusters, dim)) if with_sums else None
    # |c|^2 - 2 x.c as a single product: rows get a column of ones, centroids a column |c|^2. |x|^2 does not matter.
    shift = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = centroids - shift
    norms = np.einsum("ij,ij->i", centred, centred, dtype=np.float64).astype(np.float32)
    weights = np.ascontiguousarray(np.concatenate([-2 * centred, norms[:, None]], axis=1).T)
    tile_rows = max(1, min(_TILE_ROWS, _TILE_VALUES // clusters))
    tile = np.ones((tile_rows, dim + 1), dtype=np.float32)
    scores = np.empty((tile_rows, clusters), dtype=np.float32)
    for first, block in rows.blocks():
        for start in range(0, len(block), tile_rows):
            part = block[start : start + tile_rows]
            span = slice(first + start, first + start + len(part))
            np.subtract(part, shift, out=tile[: len(part), :dim])
            # The whole tile is multiplied even where only its first rows are filled: the shape of the product never
            # changes, hence neither does the rounding of a row.
            np.matmul(tile, weights, out=scores)
            index[span] = scores[: len(part)].argmin(axis=1)
            squared[span] = squared_distance(part, centroids[index[span]])
        if sums is not None:
            add_sums(sums, block, index[first : first + len(block)])
    return index, squared, sums


def squared_distance(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of float32 rows (N, D) to rows (N, D) or one vector (D,): (N,) float32."""
    difference = rows - others
    return np.einsum("ij,ij->i", difference, difference)


def add_sums(sums: np.ndarray, block: np.ndarray, index: np.ndarray) -> None:
    """Add the rows of ``block`` (B, D) to the float64 ``sums`` (K, D) of their clusters ``index`` (B,), in place."""
    order = np.argsort(index, kind="stable")
    labels = index[order]
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    sums[labels[starts]] += np.add.reduceat(block[order], starts, axis=0, dtype=np.float64)


def cluster_sums(rows: Rows, index: np.ndarray, clusters: int) -> np.ndarray:
    """Sum of the rows of each cluster, (clusters, D) float64."""
    sums = np.zeros((clusters, rows.shape[1]))
    for first, block in rows.blocks():
        add_sums(sums, block, index[first : first + len(block)])
    return sums
