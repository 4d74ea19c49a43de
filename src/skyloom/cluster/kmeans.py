"""k-means on all rows: seeded, with float64 sums, an early stop and no empty cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skyloom.cluster.assign import cluster_sums, nearest, squared_distance
from skyloom.cluster.grouping import prepare
from skyloom.cluster.init import kmeans_parallel, kmeans_plus_plus, random_rows, too_few_distinct
from skyloom.cluster.rows import Metric, Rows, as_rows
from skyloom.cluster.search import BACKENDS, Backend, fastest
from skyloom.cluster.work import workers
from skyloom.errors import ConfigError, unknown_choice

Init = Literal["auto", "kmeans++", "kmeans||", "random"]
_INITS = {"kmeans++": kmeans_plus_plus, "kmeans||": kmeans_parallel, "random": random_rows}
GREEDY_UP_TO = 10**9  # rows x clusters; with more, a greedy start would dominate everything
GREEDY_VALUES = 2**26  # rows x dimensions, 268 MB: a greedy start holds them in memory, whatever the budget


@dataclass(frozen=True)
class LloydState:
    """Where an unfinished k-means stands; going on from it gives the result of an uninterrupted one, bit for bit.

    Attributes
    ----------
    centroids
        (K, D) float32, before the next assignment.
    moved
        How often they were moved.
    previous
        Inertia of the last assignment, infinite before the first.
    """

    centroids: np.ndarray
    moved: int
    previous: float


@dataclass(frozen=True)
class KMeansResult:
    """What k-means found; ``assignment`` and ``distance`` belong to exactly these ``centroids``.

    Attributes
    ----------
    centroids
        (K, D) float32; unit length for the cosine metric.
    assignment
        (N,) int32, the nearest centroid of each row; every cluster has at least one row.
    distance
        (N,) float32, Euclidean distance to that centroid.
    inertia
        Sum of the squared distances.
    iterations
        How often the centroids were moved.
    """

    centroids: np.ndarray
    assignment: np.ndarray
    distance: np.ndarray
    inertia: float
    iterations: int


def kmeans(
    x: Any,
    clusters: int,
    *,
    rng: np.random.Generator,
    iterations: int = 50,
    tolerance: float = 1e-4,
    restarts: int = 1,
    metric: Metric = "l2",
    init: Init = "auto",
    trials: int | None = None,
    weights: np.ndarray | None = None,
    backend: Backend = "numpy",
    state: LloydState | None = None,
    on_iteration: Callable[[LloydState], None] | None = None,
) -> KMeansResult:
    """Cluster all rows with Lloyd's algorithm (Lloyd 1982); nothing is sub-sampled.

    A cluster that loses all its rows is moved to the row that lies farthest from its own centroid (the lowest row
    number of several), among the clusters with at least two rows; all rows nearer to the new place follow. This is
    deterministic and lowers the inertia, so the inertia never grows from one iteration to the next.

    Parameters
    ----------
    x
        (N, D) features: an array, or a memmap, HDF5 or Zarr array, which is read in blocks of rows.
    clusters
        Number of clusters K, 1 <= K <= N.
    rng
        Source of all randomness; the same generator state gives the same result on the same kind of machine, bit for
        bit, whatever the number of threads and the size of the reads.
    iterations
        Most moves of the centroids, at least 1.
    tolerance
        Stop when an iteration lowers the inertia by no more than this fraction; 0 runs until nothing improves.
    restarts
        Independent starts, of which the one with the lowest inertia is kept.
    metric
        ``l2``, or ``cosine``: spherical k-means (Dhillon and Modha 2001) on rows scaled to unit length.
    init
        ``kmeans++`` (greedy), ``kmeans||``, ``random`` rows, or ``auto``: ``kmeans++`` while rows times clusters is at
        most 1e9 and the rows take at most 268 MB, ``kmeans||`` above, which reads them in a handful of passes.
    trials
        Candidates of a greedy start for each centroid; None takes ``2 + floor(ln clusters)``.
    weights
        (N,) positive, how much each row counts in the centroids and the inertia; None counts all the same.
    backend
        What multiplies rows with centroids: ``numpy``, ``torch`` (on all CUDA devices where there are some), ``faiss``
        (on GPUs if it is faiss-gpu), or ``auto``: numpy without a GPU, else the fastest in a trial. All find the same.
    state
        Go on from here instead of starting; for a single start only.
    on_iteration
        Called with the state before every assignment, when there is a single start.

    Returns
    -------
    KMeansResult

    Raises
    ------
    ConfigError
        An option out of range, or more clusters than rows.
    InputError
        Features that are not finite, zero rows with ``cosine``, or fewer different rows than clusters.
    """
    if init not in (*_INITS, "auto"):
        raise unknown_choice("init", init, (*_INITS, "auto"))
    if restarts < 1 or (state is not None and restarts > 1):
        raise ConfigError(f"restarts must be at least 1, found {restarts}; use 1 for a single start")
    check_run(iterations, tolerance)
    if backend not in BACKENDS:
        raise unknown_choice("backend", backend, BACKENDS)
    rows = as_rows(x, metric)
    check_clusters(clusters, len(rows))
    if weights is not None:
        weights = _checked_weights(weights, len(rows))
    if init == "auto":
        small = len(rows) * clusters <= GREEDY_UP_TO and rows.shape[0] * rows.shape[1] <= GREEDY_VALUES
        init = "kmeans++" if small else "kmeans||"
    best: KMeansResult | None = None
    with workers():
        prepare(rows, clusters)
        if backend == "auto":
            backend = fastest(rows, clusters)
        for _ in range(restarts):
            start = state or LloydState(_INITS[init](rows, clusters, rng, weights, trials), 0, np.inf)
            tell = on_iteration if restarts == 1 else None
            result = _lloyd(rows, start, iterations, tolerance, weights, backend, tell)
            if best is None or result.inertia < best.inertia:
                best = result
    assert best is not None  # restarts >= 1
    return best


def check_run(iterations: int, tolerance: float) -> None:
    """Raise ConfigError when the stopping rule cannot be used."""
    if iterations < 1:
        raise ConfigError(f"iterations must be at least 1, found {iterations}; 50 is a usual number")
    if not 0 <= tolerance < 1:
        raise ConfigError(
            f"tolerance must lie in [0, 1), found {tolerance}; 1e-4 is a usual value, 0 never stops early"
        )


def check_clusters(clusters: int, rows: int) -> None:
    """Raise ConfigError unless 1 <= clusters <= rows."""
    if clusters < 1:
        raise ConfigError(f"clusters must be at least 1, found {clusters}; give the number of clusters wanted")
    if clusters > rows:
        raise ConfigError(f"clusters={clusters} is more than the {rows} rows to cluster; ask for at most {rows}")


def nearest_without_empty(
    rows: Rows,
    centroids: np.ndarray,
    weights: np.ndarray | None = None,
    backend: Backend = "numpy",
    *,
    with_sums: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Assign all rows and re-seed empty clusters, see :func:`kmeans`; ``centroids`` is changed in place for these.

    Returns
    -------
    index : (N,) int32
    squared : (N,) float32
        Squared distance to the own centroid.
    sums : (K, D) float64 or None
        Sum of the rows of each cluster; None without ``with_sums``.
    """
    index, squared, sums = nearest(rows, centroids, weights=weights, backend=backend, with_sums=with_sums)
    counts = np.bincount(index, minlength=len(centroids))
    if counts.all():
        return index, squared, sums
    while not counts.all():
        slot = int(np.argmin(counts > 0))
        spread = np.where(counts[index] > 1, squared, 0)
        far = int(np.argmax(spread))
        if spread[far] <= 0:  # every cluster is a single value, repeated or not
            raise too_few_distinct(len(centroids))
        centroids[slot] = rows.take(np.array([far]))[0]
        for first, block in rows.blocks():
            span = slice(first, first + len(block))
            trial = squared_distance(block, centroids[slot])
            nearer = trial < squared[span]
            index[span][nearer] = slot
            squared[span][nearer] = trial[nearer]
        counts = np.bincount(index, minlength=len(centroids))
    return index, squared, cluster_sums(rows, index, len(centroids), weights) if with_sums else None


def _checked_weights(weights: np.ndarray, rows: int) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (rows,) or not np.isfinite(weights).all() or not (weights > 0).all():
        raise ConfigError(f"weights must be {rows} positive numbers, one per row, found shape {weights.shape}")
    return weights


def _lloyd(
    rows: Rows,
    start: LloydState,
    iterations: int,
    tolerance: float,
    weights: np.ndarray | None,
    backend: Backend,
    on_iteration: Callable[[LloydState], None] | None,
) -> KMeansResult:
    centroids, previous = start.centroids.copy(), start.previous
    for moved in range(start.moved, iterations + 1):
        if on_iteration is not None:
            on_iteration(LloydState(centroids, moved, previous))
        index, squared, sums = nearest_without_empty(rows, centroids, weights, backend)
        assert sums is not None  # they were asked for
        inertia = float((squared if weights is None else squared * weights).sum(dtype=np.float64))
        if moved == iterations or (moved > 0 and previous - inertia <= tolerance * previous):
            break
        previous = inertia
        centroids = _centres(sums, np.bincount(index, weights, len(sums)), centroids, rows.metric)
    return KMeansResult(centroids, index, np.sqrt(squared), inertia, moved)


def _centres(sums: np.ndarray, mass: np.ndarray, previous: np.ndarray, metric: Metric) -> np.ndarray:
    means = sums / mass[:, None]
    if metric == "cosine":
        length = np.linalg.norm(means, axis=1, keepdims=True)
        # Members that cancel out leave no direction; any centroid serves them equally well, so the old one stays.
        cancelled = length < 1e-7
        means = np.where(cancelled, previous, means / np.where(cancelled, 1, length))
    return means.astype(np.float32)
