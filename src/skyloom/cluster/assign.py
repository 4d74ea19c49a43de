"""Nearest-centroid search over any number of rows, with the sums that a k-means step needs."""

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from skyloom.cluster.rows import Metric, Rows, as_rows, unit_rows
from skyloom.cluster.search import Backend, make_search
from skyloom.cluster.work import ordered, workers
from skyloom.errors import InputError


def assign(x: Any, centroids: np.ndarray, metric: Metric = "l2") -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest centroid of every row.

    The candidate is found with one matrix product per tile, on shifted rows, so that an offset common to
    all features costs no precision. The distance to it is then computed from the difference of the two
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
    rows: Rows,
    centroids: np.ndarray,
    *,
    with_sums: bool = True,
    weights: np.ndarray | None = None,
    backend: Backend = "numpy",
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Like :func:`assign`, in one pass that also adds up the rows of each cluster.

    Returns
    -------
    index : (N,) int32
    squared : (N,) float32
        Squared Euclidean distance.
    sums : (K, D) float64 or None
        Sum of the rows of each cluster, times their ``weights`` (N,) if given; None without ``with_sums``.
    """
    index = np.empty(len(rows), dtype=np.int32)
    squared = np.empty(len(rows), dtype=np.float32)
    sums = np.zeros(centroids.shape) if with_sums else None

    def measure(piece: tuple[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
        span = slice(piece[0], piece[0] + len(piece[1]))
        squared[span] = squared_distance(piece[1], centroids[index[span]])
        own = None if weights is None else weights[span]
        return grouped_sums(piece[1], index[span], own) if with_sums else None

    with workers():
        search = make_search(backend, rows, centroids)
        for first, block in rows.reads():
            span = slice(first, first + len(block))
            index[span] = search.nearest(first, block)
            for part in ordered(measure, rows.grid(first, block)):
                if sums is not None and part is not None:  # added here, in the order of the grid
                    sums[part[0]] += part[1]
    return index, squared, sums


def squared_distance(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of float32 rows (N, D) to rows (N, D) or one vector (D,): (N,) float32."""
    difference = rows - others
    return np.einsum("ij,ij->i", difference, difference)


def grouped_sums(
    block: np.ndarray, index: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the rows of ``block`` (B, D) by their cluster ``index`` (B,): the C clusters that occur, (C, D) float64."""
    order = np.argsort(index, kind="stable")
    labels = index[order]
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    mass = np.ones(len(index)) if weights is None else weights[order].astype(np.float64)
    member = csr_matrix((mass, order, np.append(starts, len(index))), shape=(len(starts), len(index)))
    return labels[starts], member @ block


def cluster_sums(rows: Rows, index: np.ndarray, clusters: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum of the rows of each cluster, times their weights if given, (clusters, D) float64."""
    sums = np.zeros((clusters, rows.shape[1]))
    for first, block in rows.blocks():
        span = slice(first, first + len(block))
        labels, part = grouped_sums(block, index[span], None if weights is None else weights[span])
        sums[labels] += part
    return sums
