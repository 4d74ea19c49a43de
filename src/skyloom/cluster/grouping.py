"""Finds groups of neighbouring rows for a k-means, before it starts."""

import numpy as np

from skyloom.cluster.assign import nearest
from skyloom.cluster.guide import Guide
from skyloom.cluster.init import kmeans_plus_plus
from skyloom.cluster.rows import Rows

LEAST_WORK = 2_000_000  # rows x centroids; below, finding the groups costs more than it spares
MOST_GROUPS = 1024
_ROWS_PER_GROUP = 32  # at least, on average
_SAMPLE_PER_GROUP = 16  # rows from which the places of the groups are found
_PASSES = 2  # of Lloyd over the sample; the groups need not be good, only small


def make_guide(rows: Rows, clusters: int) -> Guide | None:
    """Find groups that suit a k-means with so many clusters; None where they would spare nothing.

    Groups decide which distances are computed and never what is found, so they need no random stream of the caller.
    """
    groups = min(MOST_GROUPS, clusters // 2, len(rows) // _ROWS_PER_GROUP)
    if len(rows) * clusters < LEAST_WORK or groups < 8:
        return None
    number = min(len(rows), _SAMPLE_PER_GROUP * groups)
    sample = rows.subset(np.linspace(0, len(rows) - 1, number).astype(np.int64))
    distinct = len(np.unique(np.concatenate([block for _, block in sample.blocks()]), axis=0))
    centre = kmeans_plus_plus(sample, min(groups, distinct), np.random.default_rng(0), trials=2)
    for _ in range(_PASSES):
        index, _, sums = nearest(sample, centre)
        counts = np.bincount(index, minlength=len(centre))[:, None]
        centre = np.where(counts > 0, sums / np.maximum(counts, 1), centre).astype(np.float32)
    label, squared, _ = nearest(rows, centre, with_sums=False)
    radius = np.zeros(len(centre))
    np.maximum.at(radius, label, np.sqrt(squared, dtype=np.float64))
    return Guide(label.astype(np.int16), centre.astype(np.float64), radius)


def prepare(rows: Rows, clusters: int) -> None:
    """Get rows ready for a k-means: find groups unless there are some, and keep tiles of rows that are in memory."""
    if rows.guide is None:
        rows.guide = make_guide(rows, clusters)
    if rows.in_memory:
        rows.keep_tiles()
