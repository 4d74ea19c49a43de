"""Nearest-centroid search over any number of rows, with the sums that a k-means step needs."""

import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from skyloom.cluster.rows import Metric, Rows, as_rows, unit_rows
from skyloom.cluster.work import ordered, workers
from skyloom.errors import InputError

Backend = Literal["numpy", "torch"]
BACKENDS = ("numpy", "torch")

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
    search = _searcher(centroids, backend)

    def one(piece: tuple[int, np.ndarray]) -> tuple[int, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
        first, block = piece
        found = search(block)
        span = slice(first, first + len(block))
        index[span] = found
        squared[span] = squared_distance(block, centroids[found])
        own = None if weights is None else weights[span]
        return first, found, grouped_sums(block, found, own) if with_sums else None

    with workers():
        for _, _, part in ordered(one, rows.blocks()):
            if sums is not None and part is not None:  # added here, in the order of the blocks
                sums[part[0]] += part[1]
    return index, squared, sums


def _searcher(centroids: np.ndarray, backend: Backend) -> Callable[[np.ndarray], np.ndarray]:
    """Function from a block of rows (B, D) to the nearest centroids (B,).

    |c|^2 - 2 x.c as a single product: rows get a column of ones, centroids a column |c|^2. |x|^2 does not matter.
    """
    clusters, dim = centroids.shape
    shift = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = centroids - shift
    norms = np.einsum("ij,ij->i", centred, centred, dtype=np.float64).astype(np.float32)
    factors = np.ascontiguousarray(np.concatenate([-2 * centred, norms[:, None]], axis=1).T)
    if backend == "torch":
        return _torch_searcher(factors, shift)
    tile_rows = max(1, min(_TILE_ROWS, _TILE_VALUES // clusters))
    buffers = threading.local()  # one set per thread

    def search(block: np.ndarray) -> np.ndarray:
        if not hasattr(buffers, "tile"):
            buffers.tile = np.ones((tile_rows, dim + 1), dtype=np.float32)
            buffers.scores = np.empty((tile_rows, clusters), dtype=np.float32)
        tile, scores = buffers.tile, buffers.scores
        found = np.empty(len(block), dtype=np.int32)
        for start in range(0, len(block), tile_rows):
            part = block[start : start + tile_rows]
            np.subtract(part, shift, out=tile[: len(part), :dim])
            # The whole tile is multiplied even where only its first rows are filled: the shape of the product never
            # changes, hence neither does the rounding of a row.
            np.matmul(tile, factors, out=scores)
            found[start : start + len(part)] = scores[: len(part)].argmin(axis=1)
        return found

    return search


def _torch_searcher(factors: np.ndarray, shift: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    import torch  # only here: clustering on the CPU starts without it

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    right, offset = torch.from_numpy(factors).to(device), torch.from_numpy(shift).to(device)
    tile_rows = max(1, 16 * _TILE_VALUES // factors.shape[1]) if device.type == "cuda" else _TILE_ROWS

    def search(block: np.ndarray) -> np.ndarray:
        found = np.empty(len(block), dtype=np.int32)
        for start in range(0, len(block), tile_rows):
            part = torch.from_numpy(block[start : start + tile_rows]).to(device) - offset
            scores = torch.addmm(right[-1], part, right[:-1])
            found[start : start + len(part)] = scores.argmin(dim=1).cpu().numpy()
        return found

    return search


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
    ordered_rows = block[order] if weights is None else block[order] * weights[order, None]
    return labels[starts], np.add.reduceat(ordered_rows, starts, axis=0, dtype=np.float64)


def cluster_sums(rows: Rows, index: np.ndarray, clusters: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum of the rows of each cluster, times their weights if given, (clusters, D) float64."""
    sums = np.zeros((clusters, rows.shape[1]))
    for first, block in rows.blocks():
        span = slice(first, first + len(block))
        labels, part = grouped_sums(block, index[span], None if weights is None else weights[span])
        sums[labels] += part
    return sums
