"""Draw a balanced subset from a hierarchy of clusters, and the baselines it is compared with."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from skyloom.cluster.levels import LevelResult
from skyloom.cluster.members import first_of_each, group, shuffle
from skyloom.errors import ConfigError, InputError, unknown_choice

Leaf = Literal["random", "closest"]
LEAVES = ("random", "closest")


def water_fill(sizes: np.ndarray, target: int, rng: np.random.Generator) -> np.ndarray:
    """Share ``target`` among clusters as evenly as their sizes allow.

    Every cluster gives min(x, size) for the largest whole x whose sum does not exceed ``target``; what is left, fewer
    than one for each cluster that has more than x, goes to as many of these, one each, drawn at random.

    Parameters
    ----------
    sizes
        (K,) whole numbers, what each cluster can give at most; 0 is allowed.
    target
        Sum to reach, 0 to sum(sizes).
    rng
        Draws which clusters give one more.

    Returns
    -------
    (K,) int64
        Sums to ``target`` exactly. Sizes 1, 5, 10 with target 9 give 1, 4, 4.

    Raises
    ------
    ConfigError
        ``target`` is negative or more than all clusters hold.

    Notes
    -----
    Vo et al. 2024, arXiv 2405.15613, section 3 (hierarchical sampling).
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    return _fill(sizes, target, rng.random(len(sizes)))


def sample_hierarchy(
    levels: Sequence[LevelResult],
    target: int,
    *,
    rng: np.random.Generator,
    multiplier: int = 1,
    leaf: Leaf = "random",
) -> np.ndarray:
    """Choose ``target`` images, shared evenly from the top level down.

    The target is water-filled over the top clusters by the number of images below each, the share of each cluster over
    its members, and so on down to the images. All random numbers are drawn per level, one per item, before anything is
    shared, so the result depends on nothing but ``rng``.

    Parameters
    ----------
    levels
        Result of :func:`skyloom.cluster.hierarchy.hierarchical_kmeans`, from the bottom up.
    target
        Number of images, at least 1 and at most ``multiplier`` x N.
    rng
        Source of all randomness.
    multiplier
        How often an image may be taken. Where a level-1 cluster of n images has to give t > n, each is taken
        floor(t / n) times and the rest drawn as ``leaf`` says.
    leaf
        Images of a level-1 cluster: ``random`` without replacement, or ``closest`` to the centroid.

    Returns
    -------
    (target,) int64
        Row numbers of the features that were clustered, ascending; unique when ``multiplier`` is 1.

    Raises
    ------
    ConfigError
        Target out of range, multiplier below 1, unknown leaf.
    InputError
        No levels, or levels that do not fit together.

    Notes
    -----
    Vo et al. 2024, arXiv 2405.15613, section 3 (hierarchical sampling).
    """
    if leaf not in LEAVES:
        raise unknown_choice("leaf", leaf, LEAVES)
    if multiplier < 1:
        raise ConfigError(f"multiplier must be at least 1, found {multiplier}; 1 takes an image at most once")
    sizes = image_counts(levels)
    _check_target(target, multiplier * len(levels[0].assignment), "images times multiplier")
    priorities = [rng.random(len(size)) for size in sizes]  # one number per cluster of each level
    share = _fill(multiplier * sizes[-1], target, priorities[-1])
    for upper in range(len(levels) - 1, 0, -1):
        below = np.zeros(len(sizes[upper - 1]), dtype=np.int64)
        for cluster, wanted in enumerate(share):
            children = _members(levels[upper], cluster)
            below[children] = _fill(multiplier * sizes[upper - 1][children], wanted, priorities[upper - 1][children])
        share = below
    level = levels[0]
    order = level.indices
    if leaf == "random":
        order = shuffle(level.indptr, order, rng.random(len(order)))
    copies, rest = np.divmod(share, np.maximum(sizes[0], 1))
    chosen = [np.repeat(np.arange(len(order)), copies[level.assignment]), first_of_each(level.indptr, order, rest)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def image_counts(levels: Sequence[LevelResult]) -> list[np.ndarray]:
    """Count the images below each cluster, (K,) int64 for every level from the bottom up.

    Raises
    ------
    InputError
        No levels, or a level whose items are not the clusters of the level below.
    """
    if not levels:
        raise InputError("there are no levels to sample from; give the levels of a hierarchical clustering")
    sizes = [np.diff(levels[0].indptr)]
    for number, level in enumerate(levels[1:], start=2):
        if len(level.assignment) != len(sizes[-1]):
            raise InputError(
                f"level {number} has {len(level.assignment)} items but level {number - 1} has {len(sizes[-1])} "
                "clusters; give the levels of one clustering, from the bottom up"
            )
        totals = np.bincount(level.assignment, weights=sizes[-1], minlength=len(level.indptr) - 1)
        sizes.append(totals.astype(np.int64))
    return sizes


def image_assignment(levels: Sequence[LevelResult], level: int) -> np.ndarray:
    """Cluster of every image at ``level``, counted from 1: (N,) int32."""
    if not 1 <= level <= len(levels):
        raise ConfigError(f"level must lie between 1 and {len(levels)}, found {level}; 1 is the level of the images")
    assignment = levels[0].assignment
    for upper in levels[1:level]:
        assignment = upper.assignment[assignment]
    return assignment


def random_selection(images: int, target: int, rng: np.random.Generator) -> np.ndarray:
    """Baseline: ``target`` of ``images`` rows, uniformly without replacement; ascending int64."""
    _check_target(target, images, "images")
    return np.sort(rng.choice(images, size=target, replace=False)).astype(np.int64)


def flat_selection(assignment: np.ndarray, target: int, rng: np.random.Generator) -> np.ndarray:
    """Baseline: share ``target`` evenly over the clusters of one level, at random within each.

    Parameters
    ----------
    assignment
        (N,) cluster of each image, whole numbers from 0; ``levels[0].assignment`` for level 1.
    target
        Number of images, 1 to N.
    rng
        Source of all randomness.

    Returns
    -------
    (target,) int64
        Row numbers, ascending and unique.
    """
    _check_target(target, len(assignment), "images")
    clusters = int(assignment.max()) + 1
    share = water_fill(np.bincount(assignment, minlength=clusters), target, rng)
    indptr, indices = group(assignment, clusters, rng.random(len(assignment)))
    return np.sort(first_of_each(indptr, indices, share))


def top_level_selection(levels: Sequence[LevelResult], target: int, rng: np.random.Generator) -> np.ndarray:
    """Baseline: like :func:`flat_selection`, over the clusters of the top level only."""
    image_counts(levels)  # the levels must fit together
    return flat_selection(image_assignment(levels, len(levels)), target, rng)


def _members(level: LevelResult, cluster: int) -> np.ndarray:
    return level.indices[level.indptr[cluster] : level.indptr[cluster + 1]]


def _check_target(target: int, capacity: int, what: str, least: int = 1) -> None:
    if target < least:
        raise ConfigError(f"target_size={target}: expected at least {least}; give the number of images wanted")
    if target > capacity:
        raise ConfigError(
            f"target_size={target} is more than the {capacity} {what} there are; ask for at most {capacity}"
        )


def _fill(caps: np.ndarray, target: int, priority: np.ndarray) -> np.ndarray:
    """Water-fill; what is left goes to the clusters of lowest ``priority`` among those with room."""
    _check_target(target, int(caps.sum()), "places", least=0)
    # With the i smallest clusters full, each of the others gets (target - sum of those) / rest.
    ordered = np.sort(caps)
    before = np.concatenate([[0], np.cumsum(ordered)[:-1]])
    rest = np.arange(len(caps), 0, -1)
    fits = ordered * rest + before <= target  # whether level x = ordered[i] can be afforded; monotone in i
    i = int(fits.sum())
    if i == len(caps):
        return caps.copy()
    level = (target - before[i]) // rest[i]
    counts = np.minimum(caps, level)
    roomy = np.flatnonzero(caps > level)
    lucky = roomy[np.argsort(priority[roomy], kind="stable")[: target - counts.sum()]]
    counts[lucky] += 1
    return counts
