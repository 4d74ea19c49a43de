"""step=cluster: hierarchical k-means with resampling on a features artifact."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from skyloom.cluster.files import read_level, write_level
from skyloom.cluster.hierarchy import Level, LevelResult, hierarchical_kmeans
from skyloom.store import Artifact, Build, builds, of_kind


@builds("clusters", version=1, inputs={"features": of_kind("features")})
def cluster(
    build: Build,
    *,
    features: Artifact,
    levels: list[Level],
    metric: Literal["l2", "cosine"],
    resample: Literal["closest", "random"],
    iterations: PositiveInt,
    tolerance: NonNegativeFloat,
    seed: NonNegativeInt,
) -> None:
    """Cluster features in levels.

    Writes ``cutout_id.npy`` and, per level, ``level<l>/`` with ``centroids.npy`` (K, D), ``assignment.npy`` and the
    members sorted by distance in CSR form: ``indptr.npy``, ``indices.npy``, ``distance.npy``. Items are cutouts at
    level 1 and the clusters of the level below above that. A killed run goes on after its last finished level.

    Parameters
    ----------
    build
        Where to write.
    features
        Artifact of kind ``features``.
    levels
        From the bottom up: ``clusters``, ``sample_size`` and ``resamples`` of each.
    metric
        ``l2`` or ``cosine``.
    resample
        Which members a cluster gives to a resampling.
    iterations
        Most Lloyd iterations of one k-means.
    tolerance
        A k-means ends when its inertia falls by less than this fraction.
    seed
        Start of the random streams, one per level and resampling.

    Raises
    ------
    ConfigError
        More clusters than items, levels that do not shrink.
    InputError
        Features that are not finite.
    """
    finished: list[LevelResult] = []
    while build.done(key := f"level{len(finished) + 1}"):
        finished.append(read_level(build.shard(key, _unused)))
    with h5py.File(features.file("features.h5")) as file:
        x = file["features"]
        cutout_id = file["cutout_id"][:]

        def keep(number: int, result: LevelResult) -> None:
            build.shard(f"level{number}", lambda folder: write_level(folder, result))

        results = hierarchical_kmeans(
            x, levels, seed=seed, iterations=iterations, tolerance=tolerance, metric=metric, resample=resample,
            on_level=keep, done=finished,
        )  # fmt: skip
    for number, result in enumerate(results, start=1):
        with build.write(f"level{number}") as folder:
            write_level(folder, result)
    with build.write("cutout_id.npy") as path:
        np.save(path, cutout_id)
    build.count(read=len(cutout_id), kept=len(cutout_id))
    build.note(
        levels=[len(result.centroids) for result in results],
        settings=[asdict(level) for level in levels],
        metric=metric,
        mean_distance=float(np.mean(results[0].distance, dtype=np.float64)),
    )


def _unused(path: Path) -> None:
    raise RuntimeError(f"{path} was finished already and is not made again")
