"""Hierarchical k-means with resampling: clusters of images, clusters of these, and so on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from skyloom.cluster.assign import Backend
from skyloom.cluster.kmeans import Init, LloydState, check_clusters, check_run, kmeans, nearest_without_empty
from skyloom.cluster.members import first_of_each, group, shuffle
from skyloom.cluster.rows import Metric, Rows
from skyloom.cluster.work import workers
from skyloom.errors import ConfigError, InputError, unknown_choice
from skyloom.progress import progress

Resample = Literal["closest", "random"]
RESAMPLE = ("closest", "random")
Weights = Literal["none", "counts"]
WEIGHTS = ("none", "counts")


@dataclass(frozen=True)
class Level:
    """One level of the hierarchy.

    Attributes
    ----------
    clusters
        Number of clusters, fewer than at the level below.
    sample_size
        Members that each cluster gives to a resampling; about half the mean cluster size is a good start.
    resamples
        How often the clusters are made anew from such members, after the first k-means on everything. 0 is plain
        k-means.
    """

    clusters: int
    sample_size: int
    resamples: int

    def __post_init__(self) -> None:
        for name, least in (("clusters", 1), ("sample_size", 1), ("resamples", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} of a level must be at least {least}, found {value}; correct the level")


@dataclass(frozen=True)
class LevelResult:
    """Clusters of one level. Items are images at level 1 and the clusters of the level below above that.

    Attributes
    ----------
    centroids
        (K, D) float32.
    assignment
        (N,) int32, cluster of each item; no cluster is empty.
    indptr
        (K + 1,) int64; members of cluster ``k`` are ``indices[indptr[k]:indptr[k + 1]]``.
    indices
        (N,) int64 item numbers, per cluster by increasing distance and then by item number.
    distance
        (N,) float32, Euclidean distance to the own centroid, in the order of ``indices``.
    """

    centroids: np.ndarray
    assignment: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class LevelState:
    """Where an unfinished level stands.

    Attributes
    ----------
    level
        Its number, from 1.
    step
        0 for the k-means on all items, then the number of the resampling.
    last
        (K, D) float32 centroids of the step before; None in step 0.
    lloyd
        State of the step's k-means.
    """

    level: int
    step: int
    last: np.ndarray | None
    lloyd: LloydState


def hierarchical_kmeans(
    x: Any,
    levels: Sequence[Level],
    *,
    seed: int,
    iterations: int = 50,
    tolerance: float = 1e-4,
    metric: Metric = "l2",
    resample: Resample = "closest",
    init: Init = "auto",
    upper_restarts: int = 1,
    weights: Weights = "none",
    backend: Backend = "numpy",
    memory_bytes: int = 0,
    on_level: Callable[[int, LevelResult], None] | None = None,
    done: Sequence[LevelResult] = (),
    on_state: Callable[[LevelState], None] | None = None,
    state: LevelState | None = None,
) -> list[LevelResult]:
    """Cluster in levels, each with resampling, so that clusters cover the data evenly and not by density.

    Level 1 clusters the rows of ``x``, each further level the centroids of the level below, unweighted. Within a level
    k-means first sees all items. Then, ``resamples`` times: every cluster gives ``sample_size`` members, a new k-means
    sees only these, and all items are assigned to its centroids. Since no cluster is empty, a resampled set is never
    smaller than the number of clusters.

    Parameters
    ----------
    x
        (N, D) features, in memory or lazy, see :func:`skyloom.cluster.kmeans.kmeans`.
    levels
        From the bottom up, with strictly fewer clusters from level to level.
    seed
        Non-negative. Each (level, resampling) has its own random stream, so starting after finished levels gives the
        same result as one uninterrupted run.
    iterations, tolerance, metric
        As for :func:`skyloom.cluster.kmeans.kmeans`.
    resample
        Which members a cluster gives: the ``closest`` to its centroid, or ``random`` ones without replacement. A
        cluster with fewer than ``sample_size`` gives all.
    init, backend
        As for :func:`skyloom.cluster.kmeans.kmeans`.
    upper_restarts
        Starts of each k-means above level 1, of which the one with the lowest inertia is kept; they cost little, since
        there are only centroids to cluster.
    weights
        Above level 1: ``none`` counts all centroids the same, as the paper does; ``counts`` weights each by the number
        of images below it.
    memory_bytes
        Lazy features, and resampled sets of them, are held in memory only when they fit into this, see
        :class:`skyloom.cluster.rows.Rows`; no effect on results.
    on_level
        Called as ``on_level(number, result)`` when a level is finished, counted from 1; the caller stores it.
    done
        Results of the first levels, from an earlier run with the same arguments; work starts above them.
    on_state
        Called before every assignment of a k-means with all that is needed to go on from there; the caller stores it
        as often as it likes.
    state
        Go on from here, in the level above ``done``; of another level it is ignored.

    Returns
    -------
    list of LevelResult
        One per level, those of ``done`` included.

    Raises
    ------
    ConfigError
        An option out of range; cluster numbers that do not decrease or exceed the rows.
    InputError
        Unusable features, or ``done`` that belongs to other data or levels.

    Notes
    -----
    Vo et al. 2024, "Automatic data curation for self-supervised learning: a clustering-based approach",
    arXiv 2405.15613, section 3.
    """
    if resample not in RESAMPLE:
        raise unknown_choice("resample", resample, RESAMPLE)
    if seed < 0:
        raise ConfigError(f"seed must not be negative, found {seed}; use 0 or any positive number")
    check_run(iterations, tolerance)
    if weights not in WEIGHTS:
        raise unknown_choice("weights", weights, WEIGHTS)
    images = Rows(x, metric, memory_bytes=memory_bytes)
    _check_levels(levels, len(images))
    _check_done(done, levels, images)
    results = list(done)
    with progress(sum(level.resamples + 1 for level in levels[len(done) :]), "clustering", "k-means") as bar:
        for number, level in enumerate(levels[len(done) :], start=len(done) + 1):
            rows = Rows(results[-1].centroids, metric) if results else images
            mass = _images_below(results) if results and weights == "counts" else None
            found: LevelResult | None = None
            last: np.ndarray | None = None  # centroids of the step before, as its k-means left them
            first, lloyd = 0, None
            if state is not None and state.level == number:
                first, last, lloyd = state.step, state.last, state.lloyd
                found = None if last is None else _level_result(rows, last, backend)
                bar.advance(first)
            for step in range(first, level.resamples + 1):  # step 0 sees all items
                rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, step)))
                chosen = slice(None) if found is None else _resampled(found, level.sample_size, resample, rng)
                run = kmeans(
                    rows if isinstance(chosen, slice) else rows.subset(chosen), level.clusters, rng=rng,
                    iterations=iterations, tolerance=tolerance, restarts=upper_restarts if results else 1,
                    metric=metric, init=init, weights=None if mass is None else mass[chosen], backend=backend,
                    state=lloyd, on_iteration=_teller(on_state, number, step, last),
                )  # fmt: skip
                last, lloyd = run.centroids, None
                found = _level_result(rows, last, backend)
                bar.advance()
            assert found is not None  # step 0 always runs
            results.append(found)
            if on_level is not None:
                on_level(number, found)
    return results


def _resampled(found: LevelResult, sample_size: int, resample: Resample, rng: np.random.Generator) -> np.ndarray:
    order = found.indices
    if resample == "random":
        order = shuffle(found.indptr, order, rng.random(len(order)))
    return np.sort(first_of_each(found.indptr, order, sample_size))


def _teller(
    on_state: Callable[[LevelState], None] | None, level: int, step: int, last: np.ndarray | None
) -> Callable[[LloydState], None] | None:
    return None if on_state is None else lambda lloyd: on_state(LevelState(level, step, last, lloyd))


def _images_below(results: Sequence[LevelResult]) -> np.ndarray:
    counts = np.diff(results[0].indptr)
    for result in results[1:]:
        counts = np.bincount(result.assignment, weights=counts, minlength=len(result.centroids))
    return counts.astype(np.float64)


def _level_result(rows: Rows, centroids: np.ndarray, backend: Backend) -> LevelResult:
    centroids = centroids.copy()
    with workers():
        assignment, squared, _ = nearest_without_empty(rows, centroids, backend=backend)
    distance = np.sqrt(squared)
    indptr, indices = group(assignment, len(centroids), distance)
    return LevelResult(centroids, assignment, indptr, indices, distance[indices])


def _check_levels(levels: Sequence[Level], images: int) -> None:
    if not levels:
        raise ConfigError("levels is empty; give at least one level with clusters, sample_size and resamples")
    clusters = [level.clusters for level in levels]
    if any(upper >= lower for lower, upper in pairwise(clusters)):
        raise ConfigError(
            f"clusters must decrease from level to level, found {clusters}; list the largest number first"
        )
    check_clusters(clusters[0], images)


def _check_done(done: Sequence[LevelResult], levels: Sequence[Level], images: Rows) -> None:
    if len(done) > len(levels):
        raise ConfigError(f"done holds {len(done)} levels but only {len(levels)} are asked for; drop the upper ones")
    items = len(images)
    for number, (result, level) in enumerate(zip(done, levels, strict=False), start=1):
        expected = ((level.clusters, images.shape[1]), (items,))
        if (found := (result.centroids.shape, result.assignment.shape)) != expected:
            raise InputError(
                f"finished level {number} has centroids and assignment of shapes {found}, expected {expected}; "
                "it belongs to other features or levels, start that level again"
            )
        items = level.clusters
