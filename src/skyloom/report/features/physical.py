"""The physical-neighbour test: windows side by side on the sky should be near in the space of the features."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.spatial import cKDTree

SETS = ("overlapping", "touching", "same_image", "random")


@dataclass(frozen=True)
class Windows:
    """Geometry of N windows: image number, first row and column and side in pixels, each int64 (N,)."""

    image: np.ndarray
    row0: np.ndarray
    col0: np.ndarray
    size: np.ndarray

    def overlap(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Whether the windows of each pair share a pixel, bool; pairs are two integer arrays."""
        shared = self.image[first] == self.image[second]
        for low in (self.row0, self.col0):
            shared &= low[first] < low[second] + self.size[second]
            shared &= low[second] < low[first] + self.size[first]
        return shared


def neighbour_pairs(windows: Windows, number: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Pairs of windows at several distances on the sky, whatever their overlap.

    Parameters
    ----------
    windows
        Their geometry.
    number
        Windows drawn at random, each of which starts at most one pair of each kind.
    rng
        Draws them, and decides between partners that are equally near.

    Returns
    -------
    dict
        int64 (M, 2) each, M at most ``number``. ``overlapping``: with the nearest window that shares a pixel;
        ``touching``: with the nearest one in the image that shares none, across a gap of less than its own side;
        ``same_image``: with any window of the image whose centre is two sides or more away; ``random``: with any window
        of any image that shares no pixel.
    """
    total = len(windows.image)
    start = rng.choice(total, min(number, total), replace=False)
    start = start[np.argsort(windows.image[start], kind="stable")]
    order = np.argsort(windows.image, kind="stable")
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in SETS[:3]}
    edges = np.flatnonzero(np.diff(windows.image[start])) + 1
    for mine in np.split(start, edges) if len(start) else []:
        low, high = np.searchsorted(windows.image[order], windows.image[mine[0]] + np.array([0, 1]))
        _pairs_in_image(windows, mine, order[low:high], rng, found)
    other = rng.integers(total, size=len(start))
    apart = (start != other) & ~windows.overlap(start, other)
    pairs = {name: np.array(found[name], dtype=np.int64).reshape(-1, 2) for name in found}
    return {**pairs, "random": np.column_stack([start, other])[apart]}


def _pairs_in_image(
    windows: Windows,
    mine: np.ndarray,
    members: np.ndarray,
    rng: np.random.Generator,
    found: dict[str, list[tuple[int, int]]],
) -> None:
    centre = np.column_stack([low[members] + windows.size[members] / 2 for low in (windows.row0, windows.col0)])
    tree = cKDTree(centre)
    reach = int(windows.size[members].max())
    far = rng.integers(len(members), size=len(mine))
    for one, draw in zip(mine, far, strict=True):
        place = np.array([windows.row0[one], windows.col0[one]]) + windows.size[one] / 2
        near = members[tree.query_ball_point(place, windows.size[one] * 1.5 + reach / 2, p=np.inf)]
        near = rng.permutation(near[near != one])
        if len(near):
            between = np.abs(np.stack([low[near] + windows.size[near] / 2 for low in (windows.row0, windows.col0)]).T
                             - place)  # fmt: skip
            distance = np.max(between, axis=1) + 1e-3 * np.min(between, axis=1)
            shared = windows.overlap(np.full(len(near), one), near)
            gap = between.max(axis=1) - (windows.size[one] + windows.size[near]) / 2
            for name, ok in (("overlapping", shared), ("touching", ~shared & (gap < windows.size[one]))):
                if ok.any():
                    found[name].append((int(one), int(near[ok][np.argmin(distance[ok])])))
        other = members[draw]
        away = np.abs(centre[draw] - place).max()
        if away >= 2 * max(windows.size[one], windows.size[other]):
            found["same_image"].append((int(one), int(other)))


@dataclass(frozen=True)
class Comparison:
    """One-sided Mann-Whitney U test of distances of the ``first`` kind being smaller than those of the ``second``.

    ``auc`` is the chance that a pair of the first kind is nearer than one of the second (ties count half): 0.5 when
    there is no difference, 1 when all are.
    """

    first: str
    second: str
    auc: float
    p_value: float
    u: float


def compare(distances: dict[str, np.ndarray], first: str, second: str) -> Comparison | None:
    """Compare two kinds of pairs; None where one has fewer than 8 of them."""
    a, b = distances[first], distances[second]
    if min(len(a), len(b)) < 8:
        return None
    if np.ptp(np.concatenate([a, b])) == 0:  # as of a collapsed encoder: all ties, and the test divides by zero
        return Comparison(first, second, 0.5, 1.0, len(a) * len(b) / 2)
    test = stats.mannwhitneyu(a, b, alternative="less", method="asymptotic")
    return Comparison(first, second, 1 - float(test.statistic) / (len(a) * len(b)), float(test.pvalue),
                      float(test.statistic))  # fmt: skip


def pair_distances(pairs: dict[str, np.ndarray], take: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """Euclidean distance of the features of each pair; ``take`` reads features by position."""
    out = {}
    for name, pair in pairs.items():
        used, back = np.unique(pair, return_inverse=True)
        if len(used) == 0:
            out[name] = np.empty(0)
            continue
        values = take(used).astype(np.float64)
        at = back.reshape(-1, 2)
        out[name] = np.sqrt(np.sum((values[at[:, 0]] - values[at[:, 1]]) ** 2, axis=1))
    return out
