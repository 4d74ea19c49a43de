"""Members of clusters in CSR form, and picking some of each cluster without a loop over clusters."""

import numpy as np


def group(assignment: np.ndarray, clusters: int, *keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List the items of each cluster, in the order of ``keys`` and then of the item number.

    Parameters
    ----------
    assignment
        (N,) cluster of each item, 0 to ``clusters`` - 1.
    clusters
        Number of clusters K.
    keys
        (N,) sort keys within a cluster, the first one weighing most.

    Returns
    -------
    indptr : (K + 1,) int64
    indices : (N,) int64
        Items of cluster ``k`` are ``indices[indptr[k]:indptr[k + 1]]``.
    """
    indptr = np.zeros(clusters + 1, dtype=np.int64)
    np.cumsum(np.bincount(assignment, minlength=clusters), out=indptr[1:])
    indices = np.lexsort((*reversed(keys), assignment)).astype(np.int64)  # lexsort is stable
    return indptr, indices


def shuffle(indptr: np.ndarray, indices: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Return ``indices`` with each cluster ordered by ``priority[item]``, which is (N,) for N items."""
    cluster = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return indices[np.lexsort((priority[indices], cluster))]


def first_of_each(indptr: np.ndarray, indices: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """Return the first ``count`` (a number, or (K,) one per cluster) items of every cluster, all where it has fewer."""
    sizes = np.diff(indptr)
    rank = np.arange(len(indices)) - np.repeat(indptr[:-1], sizes)
    return indices[rank < np.repeat(np.broadcast_to(count, sizes.shape), sizes)]
