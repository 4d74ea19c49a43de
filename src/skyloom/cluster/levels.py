"""Levels of a hierarchy: what is asked for, what was found, where an unfinished one stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from skyloom.cluster.kmeans import LloydState, check_clusters
from skyloom.cluster.rows import Rows
from skyloom.errors import ConfigError, InputError


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


def images_below(results: Sequence[LevelResult]) -> np.ndarray:
    """Count the images below each cluster of the uppermost level: (K,) float64."""
    counts = np.diff(results[0].indptr)
    for result in results[1:]:
        counts = np.bincount(result.assignment, weights=counts, minlength=len(result.centroids))
    return counts.astype(np.float64)


def check_levels(levels: Sequence[Level], images: int) -> None:
    """Raise ConfigError unless clusters decrease from level to level and there are enough images."""
    if not levels:
        raise ConfigError("levels is empty; give at least one level with clusters, sample_size and resamples")
    clusters = [level.clusters for level in levels]
    if any(upper >= lower for lower, upper in pairwise(clusters)):
        raise ConfigError(
            f"clusters must decrease from level to level, found {clusters}; list the largest number first"
        )
    check_clusters(clusters[0], images)


def check_done(done: Sequence[LevelResult], levels: Sequence[Level], images: Rows) -> None:
    """Raise InputError when finished levels do not belong to these images and levels."""
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
