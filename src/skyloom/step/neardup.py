"""step=neardup: a selection without near-duplicates, by the likeness of features within clusters (SemDeDup)."""

from pathlib import Path
from typing import Annotated, Literal

import h5py
import numpy as np
import polars as pl
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from skyloom.cluster.files import read_levels
from skyloom.cluster.kmeans import kmeans
from skyloom.cluster.neardup import bucket_duplicates, buckets
from skyloom.cluster.rows import Rows
from skyloom.errors import InputError
from skyloom.progress import progress
from skyloom.store import Artifact, Build, builds, of_kind

ROWS_PER_CLUSTER = 1000  # of an own k-means when no number of clusters is given
CLUSTERING = "0-clustering"


@builds(
    "selection", version=1, inputs={"features": of_kind("features"), "clusters": of_kind("clusters")},
    free=("memory_gb",),
)  # fmt: skip
def neardup(
    build: Build,
    *,
    features: Artifact,
    clusters: Artifact | None,
    eps: Annotated[float, Field(gt=0, lt=2)],
    keep: Literal["farthest", "closest", "random"],
    own_clusters: PositiveInt | None,
    iterations: PositiveInt,
    tolerance: Annotated[float, Field(ge=0, lt=1)],
    seed: NonNegativeInt,
    memory_gb: PositiveFloat,
) -> None:
    """Select cutouts of which no two in a cluster are nearly the same.

    Writes ``selection.parquet``: ``cutout_id`` int64, ``row`` int64 (in the features), ``cluster_1`` int32, by row; and
    ``dropped.parquet``: ``cutout_id``, ``row``, ``duplicate_of`` (a kept cutout), ``similarity``, ``cluster_1``.

    Parameters
    ----------
    build
        Where to write.
    features
        Artifact of kind ``features``.
    clusters
        Artifact of kind ``clusters`` made from these features, whose lowest level is used; None clusters here.
    eps
        Cutouts with a cosine similarity above ``1 - eps`` are duplicates.
    keep
        Of a group of duplicates, the one ``farthest`` from the centroid of the cluster (as Abbas et al. 2023), the
        ``closest``, or a ``random`` one.
    own_clusters
        Clusters to make when none are given; None makes one per 1,000 cutouts.
    iterations, tolerance
        Of that k-means.
    seed
        Start of the random streams.
    memory_gb
        Features held at once; each further share costs one more pass over the file.

    Raises
    ------
    ConfigError
        More clusters than cutouts.
    InputError
        Clusters of other features, features that are not finite or zero.
    """
    with h5py.File(features.file("features.h5")) as file:
        cutout_id = file["cutout_id"][:]
        rows = Rows(file["features"], "cosine")
        assignment, centroids = _clustering(build, rows, clusters, cutout_id, own_clusters, iterations, tolerance, seed)
        number, total = len(centroids), len(cutout_id)
        max_rows = max(int(memory_gb * 2**30 / (4 * rows.shape[1])), 1)
        # Pieces are named by their clusters: after an interruption the work goes on with the next cluster, also
        # when another memory_gb is given.
        done = [p for p in build.shards() if p.name != CLUSTERING]
        start = int(done[-1].name.split("-")[-1]) if done else 0
        with progress(number, "neardup", "clusters") as bar:
            bar.advance(start)
            for bucket in buckets(assignment, number, max_rows, start):

                def make(folder: Path, bucket=bucket) -> None:  # type: ignore[no-untyped-def]
                    found = bucket_duplicates(rows, bucket, assignment, centroids, cutout_id,
                                              eps=eps, keep=keep, seed=seed)  # fmt: skip
                    folder.mkdir()
                    for name, array in zip(("dropped", "kept", "similarity"), found, strict=True):
                        np.save(folder / f"{name}.npy", array)

                build.shard(f"clusters-{bucket.first:09d}-{bucket.last:09d}", make)
                bar.advance(bucket.last - bucket.first)
    pieces = [p for p in build.shards() if p.name != CLUSTERING]
    out, kept, similarity = (
        np.concatenate([np.load(p / f"{name}.npy") for p in pieces]) for name in ("dropped", "kept", "similarity")
    )
    _write(build, cutout_id, assignment, out, kept, similarity)
    build.count(read=total, kept=total - len(out))
    why = f"cosine similarity above {1 - eps:g} to a kept cutout of its cluster; all are listed in dropped.parquet"
    build.drop("near-duplicate", len(out), why=why)
    build.note(levels=[number], clusters=clusters.id if clusters else "made here", eps=eps)


def _clustering(
    build: Build, rows: Rows, clusters: Artifact | None, cutout_id: np.ndarray, own_clusters: int | None,
    iterations: int, tolerance: float, seed: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Cluster of each row and centroids: given, or made here (spherical k-means) as a piece of its own."""
    if clusters is not None:
        if not np.array_equal(np.load(clusters.file("cutout_id.npy")), cutout_id):
            raise InputError(f"clusters {clusters.id} were made from other cutouts than the features; give clusters of "
                             "these features, or clusters=null")  # fmt: skip
        lowest = read_levels(clusters)[0]
        return np.asarray(lowest.assignment), lowest.centroids

    def make(folder: Path) -> None:
        wanted = own_clusters or -(-len(rows) // ROWS_PER_CLUSTER)
        rng = np.random.default_rng(seed)
        result = kmeans(rows, wanted, rng=rng, iterations=iterations, tolerance=tolerance, metric="cosine")
        folder.mkdir()
        np.save(folder / "assignment.npy", result.assignment)
        np.save(folder / "centroids.npy", result.centroids)

    piece = build.shard(CLUSTERING, make)
    return np.load(piece / "assignment.npy"), np.load(piece / "centroids.npy")


def _write(
    build: Build, cutout_id: np.ndarray, assignment: np.ndarray, out: np.ndarray, kept: np.ndarray,
    similarity: np.ndarray,
) -> None:  # fmt: skip
    stays = np.ones(len(cutout_id), dtype=bool)
    stays[out] = False
    row = np.flatnonzero(stays)
    cluster = assignment.astype(np.int32)
    selection = pl.DataFrame({"cutout_id": cutout_id[row], "row": row, "cluster_1": cluster[row]})
    dropped = pl.DataFrame({"cutout_id": cutout_id[out], "row": out, "duplicate_of": cutout_id[kept],
                            "similarity": similarity, "cluster_1": cluster[out]}).sort("row")  # fmt: skip
    for name, table in (("selection", selection), ("dropped", dropped)):
        with build.write(f"{name}.parquet") as path:
            table.write_parquet(path, compression="zstd")
    build.table = "selection.parquet"
