"""Which labelled cutouts must stay together in folds, and the tables of labels and of what has none."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skyloom.datamodule.labels import COLUMNS, FILE
from skyloom.sky.geometry.sphere import cell_of
from skyloom.step.cutouts.table import cutout_ids
from skyloom.step.labelled.format import LeftOut
from skyloom.store import Build


def groups_of(table: pl.DataFrame, level: int, alike: np.ndarray | None = None) -> np.ndarray:
    """Group of each cutout: its cell of the sky, or its image where no position is known.

    Parameters
    ----------
    table
        Rows of an index, N.
    level
        HEALPix level of the cells.
    alike
        int64 (N,): cutouts of equal number come into one group wherever they lie; None: none do.

    Returns
    -------
    ndarray
        int64 (N,): the nested cell; a 63-bit hash of the image's name; the smallest of those that ``alike`` joins.
    """
    ra, dec = (table[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("ra_deg", "dec_deg"))
    placed = np.isfinite(ra) & np.isfinite(dec)
    group = np.empty(len(table), dtype=np.int64)
    if placed.any():
        group[placed] = cell_of(ra[placed], dec[placed], level)
    lost = table.filter(~pl.Series(placed)).select("survey", "image")
    zero = np.zeros(1, dtype=np.int64)
    known = {pair: cutout_ids(str(pair[0]), str(pair[1]), zero, zero, 0)[0] for pair in lost.unique().iter_rows()}
    group[~placed] = [known[pair] for pair in lost.iter_rows()]
    if alike is None or len(np.unique(alike)) == len(alike):
        return group
    numbers, of_row = np.unique(group, return_inverse=True)
    _, of_pixels = np.unique(alike, return_inverse=True)
    nodes = len(numbers) + of_pixels.max() + 1
    edges = coo_array((np.ones(len(group)), (of_row, len(numbers) + of_pixels)), shape=(nodes, nodes))
    _, part = connected_components(edges, directed=False)
    smallest = np.full(part.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, part[of_row], group)
    return smallest[part[of_row]]


def write_labels(
    build: Build, cutout_id: pl.Series, labels: Sequence[Sequence[str]], split: Sequence[str | None],
    fold: Sequence[int | None], group: np.ndarray, *, multi_label: bool = False,
) -> None:  # fmt: skip
    """Write ``labels.parquet`` and note what is in it; see :mod:`skyloom.datamodule.labels`."""
    table = pl.DataFrame(
        {"cutout_id": cutout_id, "label": [list(own) for own in labels], "split": split, "fold": fold, "group": group},
        schema=COLUMNS,  # type: ignore[arg-type]
    )
    with build.write(FILE) as path:
        table.write_parquet(path, compression="zstd")
    flat = table.explode("label").drop_nulls("label")
    parts = table.drop_nulls("split")
    several = parts.group_by("group").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
    build.note(
        multi_label=multi_label,
        classes={name: number for name, number in flat["label"].value_counts().sort("label").iter_rows()},
        splits={name: number for name, number in parts["split"].value_counts().sort("split").iter_rows()},
        groups=table["group"].n_unique(),
        groups_in_several_splits=len(several),
    )


def write_left_out(build: Build, left_out: Sequence[LeftOut]) -> None:
    """Write ``dropped.parquet`` and count each reason, with some names."""
    schema = {"name": pl.String, "reason": pl.String, "why": pl.String}
    table = pl.DataFrame([(item.name, item.reason, item.why) for item in left_out], schema=schema, orient="row")
    with build.write("dropped.parquet") as path:
        table.write_parquet(path, compression="zstd")
    for (reason,), rows in table.group_by(["reason"], maintain_order=True):
        names = rows["name"].head(20).to_list()
        build.drop(str(reason), len(rows), why=rows["why"][0], examples=names)
