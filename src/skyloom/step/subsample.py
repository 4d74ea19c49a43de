"""step=subsample: a balanced selection of cutouts, drawn from the top of a cluster hierarchy down."""

from typing import Literal

import numpy as np
import polars as pl
from pydantic import NonNegativeInt, PositiveInt

from skyloom.cluster.files import feature_rows, read_levels
from skyloom.cluster.sampling import (
    flat_selection,
    image_assignment,
    random_selection,
    sample_hierarchy,
    top_level_selection,
)
from skyloom.errors import ConfigError
from skyloom.store import Artifact, Build, builds, of_kind


@builds("selection", version=2, inputs={"clusters": of_kind("clusters")})
def subsample(
    build: Build,
    *,
    clusters: Artifact,
    target_size: PositiveInt,
    method: Literal["hierarchical", "flat", "top_level", "random"],
    multiplier: PositiveInt,
    leaf: Literal["random", "closest"],
    seed: NonNegativeInt,
) -> None:
    """Select cutouts so that every cluster gives as evenly as its size allows.

    Writes ``selection.parquet``: ``cutout_id`` int64, ``row`` int64 (in the features) and
    ``cluster_<l>`` int32 per level; by increasing row, a cutout as often as it was chosen.

    Parameters
    ----------
    build
        Where to write.
    clusters
        Artifact of kind ``clusters``.
    target_size
        Number of rows wanted.
    method
        ``hierarchical`` shares from the top level down. The others are controls: ``flat`` shares over the clusters of
        level 1, ``top_level`` over those of the top level, ``random`` draws from all alike.
    multiplier
        How often one cutout may be chosen.
    leaf
        Within a cluster of the lowest level: ``random`` members, or those ``closest`` to its centroid.
    seed
        Start of the random stream.

    Raises
    ------
    ConfigError
        When the target is more than ``multiplier`` times the cutouts there are, or a control is given options that only
        the hierarchical method has.
    """
    levels = read_levels(clusters)
    cutout_id = np.load(clusters.file("cutout_id.npy"))
    rng = np.random.default_rng(seed)
    if method != "hierarchical" and (multiplier != 1 or leaf != "random"):
        raise ConfigError(
            f"method={method} takes random cutouts, each at most once, found multiplier={multiplier} and leaf={leaf}; "
            "use multiplier=1 leaf=random, or method=hierarchical"
        )
    if method == "hierarchical":
        rows = sample_hierarchy(levels, target_size, rng=rng, multiplier=multiplier, leaf=leaf)
    elif method == "random":
        rows = random_selection(len(cutout_id), target_size, rng)
    elif method == "flat":
        rows = flat_selection(levels[0].assignment, target_size, rng)
    else:
        rows = top_level_selection(levels, target_size, rng)
    table = pl.DataFrame({"cutout_id": cutout_id[rows], "row": feature_rows(clusters)[rows]}).with_columns(
        pl.Series(f"cluster_{level}", image_assignment(levels, level)[rows].astype(np.int32))
        for level in range(1, len(levels) + 1)
    )
    with build.write("selection.parquet") as path:
        table.write_parquet(path, compression="zstd")
    build.table = "selection.parquet"
    build.count(read=len(cutout_id), kept=len(table), distinct=table["cutout_id"].n_unique())
    build.drop("not selected", len(cutout_id) - table["cutout_id"].n_unique(),
               why="not drawn; they are the cutouts of the features that selection.parquet does not name")  # fmt: skip
    build.note(levels=clusters.notes["levels"], method=method)
