"""step=subsample: a balanced selection of cutouts, drawn from the top of a cluster hierarchy down."""

from typing import Literal

import numpy as np
import polars as pl
from pydantic import NonNegativeInt, PositiveInt

from skyloom.cluster.files import read_levels
from skyloom.cluster.sampling import image_assignment, sample_hierarchy
from skyloom.store import Artifact, Build, builds, of_kind


@builds("selection", version=1, inputs={"clusters": of_kind("clusters")})
def subsample(
    build: Build,
    *,
    clusters: Artifact,
    target_size: PositiveInt,
    multiplier: PositiveInt,
    leaf: Literal["random", "closest"],
    seed: NonNegativeInt,
) -> None:
    """Select cutouts so that every cluster gives as evenly as its size allows.

    Writes ``selection.parquet``: ``cutout_id`` int64, ``row`` int64 (in the features and clusters) and
    ``cluster_<l>`` int32 per level; by increasing row, a cutout as often as it was chosen.

    Parameters
    ----------
    build
        Where to write.
    clusters
        Artifact of kind ``clusters``.
    target_size
        Number of rows wanted.
    multiplier
        How often one cutout may be chosen.
    leaf
        Within a cluster of the lowest level: ``random`` members, or those ``closest`` to its centroid.
    seed
        Start of the random stream.

    Raises
    ------
    ConfigError
        When the target is more than ``multiplier`` times the cutouts there are.
    """
    levels = read_levels(clusters)
    cutout_id = np.load(clusters.file("cutout_id.npy"))
    rng = np.random.default_rng(seed)
    rows = sample_hierarchy(levels, target_size, rng=rng, multiplier=multiplier, leaf=leaf)
    table = pl.DataFrame({"cutout_id": cutout_id[rows], "row": rows}).with_columns(
        pl.Series(f"cluster_{level}", image_assignment(levels, level)[rows].astype(np.int32))
        for level in range(1, len(levels) + 1)
    )
    with build.write("selection.parquet") as path:
        table.write_parquet(path, compression="zstd")
    build.table = "selection.parquet"
    build.count(read=len(cutout_id), kept=len(table), distinct=table["cutout_id"].n_unique())
    build.drop("not selected", len(cutout_id) - table["cutout_id"].n_unique(),
               why="not drawn; they are the cutouts of the features that selection.parquet does not name")  # fmt: skip
    build.note(levels=clusters.notes["levels"])
