"""step=cluster: hierarchical k-means with resampling on a features artifact."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from skyloom.cluster.files import read_level, read_state, write_level, write_state
from skyloom.cluster.hierarchy import hierarchical_kmeans
from skyloom.cluster.levels import Level, LevelResult, LevelState
from skyloom.cluster.rows import Picked
from skyloom.cluster.work import workers
from skyloom.errors import InputError
from skyloom.store import Artifact, Build, builds, of_kind


@builds(
    "clusters",
    version=3,
    inputs={"features": of_kind("features"), "selection": of_kind("selection")},
    free=("backend", "memory_budget_gb", "threads", "checkpoint_s"),
)
def cluster(
    build: Build,
    *,
    features: Artifact,
    selection: Artifact | None,
    levels: list[Level],
    metric: Literal["l2", "cosine"],
    resample: Literal["closest", "random"],
    init: Literal["auto", "kmeans++", "kmeans||", "random"],
    upper_restarts: PositiveInt,
    weights: Literal["none", "counts"],
    iterations: PositiveInt,
    tolerance: NonNegativeFloat,
    draft_tolerance: NonNegativeFloat,
    draft_trials: PositiveInt | None,
    backend: Literal["auto", "numpy", "torch", "faiss"],
    memory_budget_gb: PositiveFloat,
    threads: PositiveInt | None,
    checkpoint_s: NonNegativeFloat,
    seed: NonNegativeInt,
) -> None:
    """Cluster features in levels.

    Writes ``cutout_id.npy`` and, per level, ``level<l>/`` with ``centroids.npy`` (K, D), ``assignment.npy`` and the
    members sorted by distance in CSR form: ``indptr.npy``, ``indices.npy``, ``distance.npy``. Items are cutouts at
    level 1 and the clusters of the level below above that. With a ``selection``, ``row.npy`` says which row of the
    features each item is. A killed run goes on after its last finished level and, in the next, from the last stored
    iteration; the result is the same.

    Parameters
    ----------
    build
        Where to write.
    features
        Artifact of kind ``features``.
    selection
        Only cluster the cutouts of this selection; None takes all.
    levels
        From the bottom up: ``clusters``, ``sample_size`` and ``resamples`` of each.
    metric
        ``l2`` or ``cosine``.
    resample
        Which members a cluster gives to a resampling.
    init
        How a k-means starts.
    upper_restarts
        Starts of each k-means above level 1; the best is kept.
    weights
        Whether centroids count by the number of cutouts below them (``counts``) or all the same (``none``).
    iterations
        Most Lloyd iterations of one k-means.
    tolerance
        The last k-means of a level ends when its inertia falls by less than this fraction.
    draft_tolerance, draft_trials
        The same for the k-means before, which only decide what the next one sees, and the candidates of their starts
        for each centroid (None: as many as of the last).
    backend
        What multiplies rows with centroids; all find the same.
    memory_budget_gb
        Features larger than half of this stay on disk.
    threads
        Threads; None takes OMP_NUM_THREADS or, unset, all processors.
    checkpoint_s
        Least time between two stored iterations.
    seed
        Start of the random streams, one per level and resampling.

    Raises
    ------
    ConfigError
        More clusters than items, levels that do not shrink.
    InputError
        Features that are not finite; a selection of cutouts that the features do not hold.
    """
    finished: list[LevelResult] = []
    while build.done(key := f"level{len(finished) + 1}"):
        finished.append(read_level(build.shard(key, _unused)))
    saved = time.monotonic()
    state = read_state(build.scratch("state") / "level.npz") if build.done("state") else None

    def keep(number: int, result: LevelResult) -> None:
        build.shard(f"level{number}", lambda folder: write_level(folder, result))

    def keep_state(state: LevelState) -> None:
        nonlocal saved
        if time.monotonic() - saved >= checkpoint_s:
            write_state(build.scratch("state") / "level.npz", state)
            saved = time.monotonic()

    with h5py.File(features.file("features.h5")) as file, workers(threads):
        x = file["features"]
        cutout_id = file["cutout_id"][:]
        read = len(cutout_id)
        if selection is not None:
            rows = _rows_of(selection, features, cutout_id)
            x, cutout_id = Picked(x, rows), cutout_id[rows]
        results = hierarchical_kmeans(
            x, levels, seed=seed, iterations=iterations, tolerance=tolerance,
            draft_tolerance=draft_tolerance, draft_trials=draft_trials, metric=metric, resample=resample,
            init=init, upper_restarts=upper_restarts, weights=weights, backend=backend,
            memory_bytes=int(memory_budget_gb * 1e9), on_level=keep, done=finished,
            on_state=keep_state, state=state,
        )  # fmt: skip
    if selection is not None:
        with build.write("row.npy") as path:
            np.save(path, rows)
    for number, result in enumerate(results, start=1):
        with build.write(f"level{number}") as folder:
            write_level(folder, result)
    with build.write("cutout_id.npy") as path:
        np.save(path, cutout_id)
    build.count(read=read, kept=len(cutout_id))
    build.drop("not selected", read - len(cutout_id), why="features of cutouts that the selection leaves out")
    build.note(
        levels=[len(result.centroids) for result in results],
        settings=[asdict(level) for level in levels],
        metric=metric,
        mean_distance=float(np.mean(results[0].distance, dtype=np.float64)),
    )


def _rows_of(selection: Artifact, features: Artifact, cutout_id: np.ndarray) -> np.ndarray:
    """Rows of the features, ascending, that hold the cutouts of the selection, each once."""
    wanted = np.unique(selection.table("selection.parquet")["cutout_id"].to_numpy())
    rows = np.flatnonzero(np.isin(cutout_id, wanted))
    if len(rows) != len(wanted):
        raise InputError(
            f"selection {selection.id} names {len(wanted)} cutouts, of which features {features.id} hold {len(rows)}; "
            "give a selection of the same cutouts"
        )
    return rows


def _unused(path: Path) -> None:
    raise RuntimeError(f"{path} was finished already and is not made again")
