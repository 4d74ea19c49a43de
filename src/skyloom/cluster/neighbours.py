"""Exact nearest neighbours of some rows among all, and how isolated every row is, in one pass of bounded memory."""

from typing import Any

import numpy as np

from skyloom.cluster.rows import Metric, Rows
from skyloom.cluster.work import ordered, workers

SPARE = 16  # candidates kept beyond k in float32; the exact distances then decide among them
QUERY_TILE = 512  # queries compared with a block of 8,192 rows at once: 16 MB of scores
SCREEN_TILE = 512  # rows compared with all references at once: 10 MB of scores for 5,000 references


def nearest_rows(
    x: Rows, queries: np.ndarray, k: int, *, metric: Metric = "l2", own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest rows of each query among all rows.

    Parameters
    ----------
    x
        (N, D) features, opened with metric ``l2``; read once from the first to the last row.
    queries
        (Q, D).
    k
        How many; fewer are returned when there are fewer rows.
    metric
        ``l2``: Euclidean distance; ``cosine``: 1 - cosine similarity, where a row of zeros is orthogonal to all.
    own
        (Q,) row of each query in ``x``, which is not its own neighbour; None when the queries are none of the rows.

    Returns
    -------
    index : (Q, k) int64
        Nearest first; the lower row of two that are equally near.
    distance : (Q, k) float64
        Computed from the two vectors, so that copies have distance 0.
    """
    queries = _ready(queries, metric)
    k = min(k, len(x) - (own is not None))
    keep = min(k + SPARE, len(x) - (own is not None))
    index = np.full((len(queries), keep), -1, dtype=np.int64)
    score = np.full((len(queries), keep), np.inf, dtype=np.float32)
    shift = np.zeros(queries.shape[1], np.float32) if metric == "cosine" else queries.mean(axis=0)
    moved = (queries - shift).T
    for first, block in x.blocks():
        rows = _ready(block, metric) - shift
        norms = np.einsum("ij,ij->i", rows, rows)
        for start in range(0, len(queries), QUERY_TILE):
            part = slice(start, start + QUERY_TILE)
            found = (norms[:, None] - 2 * rows @ moved[:, part]).T
            if own is not None:
                mine = np.flatnonzero((own[part] >= first) & (own[part] < first + len(rows)))
                found[mine, own[part][mine] - first] = np.inf
            numbers = np.broadcast_to(np.arange(first, first + len(rows)), found.shape)
            all_scores, all_numbers = np.hstack([score[part], found]), np.hstack([index[part], numbers])
            best = np.argpartition(all_scores, keep - 1, axis=1)[:, :keep]
            score[part] = np.take_along_axis(all_scores, best, axis=1)
            index[part] = np.take_along_axis(all_numbers, best, axis=1)
    distance = np.empty(index.shape)
    for start in range(0, len(queries), QUERY_TILE):
        part = slice(start, start + QUERY_TILE)
        others = _ready(x.take(index[part].ravel()), metric).reshape(*index[part].shape, -1)
        distance[part] = _distance(queries[part, None], others, metric)
    order = np.lexsort((index, distance), axis=1)[:, :k]
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(distance, order, axis=1)


def isolation(x: Rows, reference: np.ndarray, k: int, *, threads: int | None = None) -> np.ndarray:
    """Euclidean distance of every row to its k-th nearest among reference rows, an upper bound of that among all rows.

    Parameters
    ----------
    x
        (N, D) features, opened with metric ``l2``.
    reference
        (R,) ascending rows of ``x``, more than ``k``; a row is not its own neighbour.
    k
        Which neighbour; more than 1, so that a pair of copies is isolated as well (Ramaswamy et al., SIGMOD 2000).
    threads
        As for :func:`skyloom.cluster.work.workers`.

    Returns
    -------
    ndarray
        float32, shape (N,).
    """
    others = x.take(reference)
    shift = others.mean(axis=0, dtype=np.float64).astype(np.float32)
    others = others - shift
    norms = np.einsum("ij,ij->i", others, others)
    factors = np.ascontiguousarray(-2 * others.T)
    out = np.empty(len(x), dtype=np.float32)

    def one(piece: tuple[int, np.ndarray]) -> None:
        first, block = piece
        for start in range(0, len(block), SCREEN_TILE):
            rows = block[start : start + SCREEN_TILE] - shift
            scores = rows @ factors + norms
            low = first + start
            mine = np.arange(*np.searchsorted(reference, [low, low + len(rows)]))
            scores[reference[mine] - low, mine] = np.inf
            squared = np.partition(scores, k - 1, axis=1)[:, k - 1] + np.einsum("ij,ij->i", rows, rows)
            out[low : low + len(rows)] = np.sqrt(squared.clip(min=0))

    with workers(threads):
        for _ in ordered(one, x.blocks()):
            pass
    return out


def _ready(rows: np.ndarray, metric: Metric) -> np.ndarray:
    if metric == "l2":
        return np.asarray(rows, dtype=np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return (rows / np.maximum(length, 1e-30)[:, None]).astype(np.float32)


def _distance(first: np.ndarray, second: np.ndarray, metric: Any) -> np.ndarray:
    squared = np.sum((first.astype(np.float64) - second) ** 2, axis=-1)
    if metric == "l2":
        return np.sqrt(squared)
    one_is_zero = ~(first.any(axis=-1) & second.any(axis=-1))
    return np.where(one_is_zero, 1.0, squared / 2)  # of unit vectors: |a - b|² / 2 = 1 - cos
