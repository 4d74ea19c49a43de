"""Hierarchical k-means with resampling: clusters of images, clusters of these, and so on."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from skyloom.cluster.grouping import prepare
from skyloom.cluster.kmeans import Init, LloydState, check_run, kmeans, nearest_without_empty
from skyloom.cluster.levels import Level, LevelResult, LevelState, check_done, check_levels, images_below
from skyloom.cluster.members import first_of_each, group, shuffle
from skyloom.cluster.rows import Metric, Rows
from skyloom.cluster.search import BACKENDS, Backend, fastest
from skyloom.cluster.work import workers
from skyloom.errors import ConfigError, unknown_choice
from skyloom.progress import progress

Resample = Literal["closest", "random"]
RESAMPLE = ("closest", "random")
Weights = Literal["none", "counts"]
WEIGHTS = ("none", "counts")


def hierarchical_kmeans(
    x: Any,
    levels: Sequence[Level],
    *,
    seed: int,
    iterations: int = 50,
    tolerance: float = 1e-4,
    metric: Metric = "l2",
    draft_tolerance: float = 1e-3,
    draft_trials: int | None = 4,
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
    draft_tolerance, draft_trials
        ``tolerance`` and ``trials`` of :func:`skyloom.cluster.kmeans.kmeans` for all k-means of a level but its last,
        which only decide what the next one sees.
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
    check_run(iterations, draft_tolerance)
    if backend not in BACKENDS:
        raise unknown_choice("backend", backend, BACKENDS)
    if weights not in WEIGHTS:
        raise unknown_choice("weights", weights, WEIGHTS)
    images = Rows(x, metric, memory_bytes=memory_bytes)
    check_levels(levels, len(images))
    check_done(done, levels, images)
    results = list(done)
    with progress(sum(level.resamples + 1 for level in levels[len(done) :]), "clustering", "k-means") as bar:
        for number, level in enumerate(levels[len(done) :], start=len(done) + 1):
            rows = Rows(results[-1].centroids, metric) if results else images
            with workers():
                prepare(rows, level.clusters)
                chosen_backend = fastest(rows, level.clusters) if backend == "auto" else backend
            mass = images_below(results) if results and weights == "counts" else None
            found: LevelResult | None = None
            last: np.ndarray | None = None  # centroids of the step before, as its k-means left them
            first, lloyd = 0, None
            if state is not None and state.level == number:
                first, last, lloyd = state.step, state.last, state.lloyd
                found = None if last is None else _level_result(rows, last, chosen_backend)
                bar.advance(first)
            for step in range(first, level.resamples + 1):  # step 0 sees all items
                rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, step)))
                draft = step < level.resamples
                chosen = slice(None) if found is None else _resampled(found, level.sample_size, resample, rng)
                run = kmeans(
                    rows if isinstance(chosen, slice) else rows.subset(chosen), level.clusters, rng=rng,
                    iterations=iterations, tolerance=draft_tolerance if draft else tolerance,
                    trials=draft_trials if draft else None, restarts=upper_restarts if results else 1,
                    metric=metric, init=init, weights=None if mass is None else mass[chosen], backend=chosen_backend,
                    state=lloyd, on_iteration=_teller(on_state, number, step, last),
                )  # fmt: skip
                last, lloyd = run.centroids, None
                found = _level_result(rows, last, chosen_backend)
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


def _level_result(rows: Rows, centroids: np.ndarray, backend: Backend) -> LevelResult:
    centroids = centroids.copy()
    with workers():
        assignment, squared, _ = nearest_without_empty(rows, centroids, backend=backend, with_sums=False)
    distance = np.sqrt(squared)
    indptr, indices = group(assignment, len(centroids), distance)
    return LevelResult(centroids, assignment, indptr, indices, distance[indices])
