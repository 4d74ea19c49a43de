"""Near-duplicates among feature vectors: within each cluster, all but one of what points in the same direction."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skyloom.cluster.rows import Rows
from skyloom.errors import ConfigError, unknown_choice

Keep = Literal["farthest", "closest", "random"]
KEEPS = ("farthest", "closest", "random")
BLOCK = 1024  # items compared at once: a block of similarities takes 4 MiB


@dataclass(frozen=True)
class Bucket:
    """Clusters whose rows are held in memory together.

    Attributes
    ----------
    first, last : int
        Clusters ``first`` to ``last`` (exclusive).
    rows : ndarray
        int64 (M,), ascending.
    """

    first: int
    last: int
    rows: np.ndarray


def preference(to_centroid: np.ndarray, cutout_id: np.ndarray, keep: Keep, rng: np.random.Generator) -> np.ndarray:
    """Place of each item when a group must choose whom to keep; the lowest is kept.

    Abbas et al. 2023 keep the item with the lowest cosine similarity to the centroid of its cluster (``farthest``).

    Parameters
    ----------
    to_centroid
        Cosine similarity of each item to the centroid of its cluster, shape (N,).
    cutout_id
        Shape (N,), all different; decides between equals and carries the random order, so that the order of the
        rows has no influence.
    keep
        ``farthest`` from the centroid, ``closest`` to it, or ``random``.
    rng
        Source of the random order.

    Returns
    -------
    ndarray
        int64 (N,), a permutation.

    Raises
    ------
    ConfigError
        Unknown ``keep``.
    """
    if keep not in KEEPS:
        raise unknown_choice("keep", keep, KEEPS)
    number = len(cutout_id)
    by_id = np.argsort(cutout_id, kind="stable")
    place = np.empty(number, dtype=np.int64)
    if keep == "random":
        place[by_id] = rng.permutation(number)
    else:
        value = to_centroid if keep == "farthest" else -to_centroid
        place[np.lexsort((cutout_id, value))] = np.arange(number)
    return place


def mark_duplicates(x: np.ndarray, eps: float, *, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Go through the items of a cluster in order of preference and drop what is nearly the same as a kept one.

    SemDeDup (Abbas et al. 2023, arXiv 2303.09540, section 3): items with a cosine similarity above ``1 - eps`` are
    duplicates. The published code also drops an item for its likeness to one that was dropped itself; here only kept
    items count, so that each dropped item has a kept one that stands for it, however long a chain of likenesses is.
    Similarities are computed block by block and never for a whole cluster.

    Parameters
    ----------
    x
        Unit vectors, float32 (N, D), those to be kept rather than others first.
    eps
        In (0, 2).
    block
        Items compared at once.

    Returns
    -------
    duplicate_of : int64 (N,)
        -1 for items that are kept, else the most similar of the kept items before it.
    similarity : float32 (N,)
        Cosine similarity to that one; NaN for items that are kept.

    Raises
    ------
    ConfigError
        ``eps`` out of range.
    """
    if not 0 < eps < 2:
        raise ConfigError(f"eps must lie in (0, 2), found {eps}; 0.01 to 0.1 is usual")
    number, limit = len(x), np.float32(1 - eps)
    duplicate_of = np.full(number, -1, dtype=np.int64)
    similarity = np.full(number, -np.inf, dtype=np.float32)
    kept = np.empty(0, dtype=np.int64)
    for start in range(0, number, block):
        own = x[start : start + block]
        best, winner = similarity[start : start + block], duplicate_of[start : start + block]
        for low in range(0, len(kept), block):
            part = kept[low : low + block]
            _take_better(best, winner, own @ x[part].T, part)
        out = best > limit
        inside = own @ own.T
        near = np.triu(inside > limit, 1)
        for i in np.flatnonzero(near.any(axis=1)):
            if not out[i]:
                out |= near[i]
        alive = np.flatnonzero(~out)
        later = np.where(alive[None, :] < np.arange(len(own))[:, None], inside[:, alive], -np.inf)
        if len(alive):
            _take_better(best, winner, later, alive + start)
        winner[~out], best[~out] = -1, np.nan
        kept = np.concatenate([kept, alive + start])
    return duplicate_of, similarity


def buckets(assignment: np.ndarray, clusters: int, max_rows: int, start: int = 0) -> Iterator[Bucket]:
    """Share clusters, in order, among buckets of at most ``max_rows`` rows; a larger cluster gets one of its own.

    Parameters
    ----------
    assignment
        Cluster of each row, shape (N,).
    clusters
        Number of clusters.
    max_rows
        Rows of a bucket.
    start
        First cluster.
    """
    sizes = np.bincount(assignment, minlength=clusters)
    while start < clusters:
        total = np.cumsum(sizes[start:])
        stop = start + max(int(np.searchsorted(total, max_rows, side="right")), 1)
        rows = np.flatnonzero((assignment >= start) & (assignment < stop))
        yield Bucket(start, stop, rows)
        start = stop


def bucket_duplicates(
    rows: Rows, bucket: Bucket, assignment: np.ndarray, centroids: np.ndarray, cutout_id: np.ndarray, *,
    eps: float, keep: Keep, seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Near-duplicates within the clusters of a bucket; the features are read once, in order.

    Parameters
    ----------
    rows
        All features, opened with the metric ``cosine``.
    bucket
        Clusters to look at.
    assignment
        Cluster of each row, shape (N,).
    centroids
        (K, D), of any length.
    cutout_id
        Shape (N,).
    eps, keep
        As in :func:`mark_duplicates` and :func:`preference`.
    seed
        Start of the random order.

    Returns
    -------
    dropped, duplicate_of : int64 (P,)
        Rows.
    similarity : float32 (P,)
        Their cosine similarity.
    """
    x = _read(rows, bucket.rows)
    own = assignment[bucket.rows].astype(np.int64)
    centre = np.asarray(centroids[bucket.first : bucket.last], dtype=np.float64)
    length = np.linalg.norm(centre, axis=1, keepdims=True)
    centre /= np.where(length > 0, length, 1)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    order = np.argsort(own, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(own[order])) + 1) if len(order) else []:
        cluster = int(own[members[0]])
        to_centroid = x[members].astype(np.float64) @ centre[cluster - bucket.first]
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(cluster,)))
        place = preference(to_centroid, cutout_id[bucket.rows[members]], keep, rng)
        members = members[np.argsort(place)]
        duplicate_of, similarity = mark_duplicates(x[members], eps)
        out = np.flatnonzero(duplicate_of >= 0)
        found.append((bucket.rows[members[out]], bucket.rows[members[duplicate_of[out]]], similarity[out]))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    dropped, kept, likeness = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(dropped)
    return dropped[order], kept[order], likeness[order]


def _take_better(best: np.ndarray, winner: np.ndarray, similar: np.ndarray, names: np.ndarray) -> None:
    """Replace the best match of each row of ``similar`` (n, m) where a column, named by ``names``, is better."""
    column = similar.argmax(axis=1)
    value = similar[np.arange(len(similar)), column]
    better = value > best
    best[better], winner[better] = value[better], names[column[better]]


def _read(rows: Rows, wanted: np.ndarray) -> np.ndarray:
    """Rows at ascending positions by one pass in reading order: scattered reads of HDF5 are far slower."""
    x = np.empty((len(wanted), rows.shape[1]), dtype=np.float32)
    for start, block in rows.blocks():
        low, high = np.searchsorted(wanted, (start, start + len(block)))
        x[low:high] = block[wanted[low:high] - start]
    return x
