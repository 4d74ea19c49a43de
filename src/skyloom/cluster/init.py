"""Where k-means starts: greedy k-means++, k-means|| or random rows."""

from collections.abc import Iterator

import numpy as np

from skyloom.cluster.assign import nearest
from skyloom.cluster.rows import Rows
from skyloom.cluster.work import ordered
from skyloom.errors import InputError

_ROUNDS = 5  # passes of k-means||, as in section 5 of its paper


def random_rows(rows: Rows, clusters: int, rng: np.random.Generator, _weights: np.ndarray | None = None) -> np.ndarray:
    """Draw ``clusters`` different rows uniformly: (clusters, D) float32."""
    return rows.take(rng.choice(len(rows), size=clusters, replace=False))


def kmeans_plus_plus(
    rows: Rows, clusters: int, rng: np.random.Generator, weights: np.ndarray | None = None
) -> np.ndarray:
    """Draw start centroids by greedy k-means++.

    The first is a uniformly random row. For each further one, ``2 + floor(ln clusters)`` candidates are drawn with a
    probability proportional to their squared distance to the nearest centroid so far, and the candidate that leaves
    the smallest sum of squared distances is taken. Every step is one pass over all rows.

    Parameters
    ----------
    rows
        N checked rows.
    clusters
        Between 1 and N.
    rng
        Source of all randomness.
    weights
        (N,) positive, how much each row counts; None counts all the same.

    Returns
    -------
    (clusters, D) float32
        Rows of the data.

    Raises
    ------
    InputError
        Fewer different rows than ``clusters``.

    Notes
    -----
    Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding", section 2.2 and, for the greedy
    choice among several candidates, their section 5.
    """
    candidates = 2 + int(np.log(clusters))
    source = _Potential(rows, weights)
    chosen = np.empty((clusters, rows.shape[1]), dtype=np.float32)
    squared = np.full(len(rows), np.inf, dtype=np.float32)
    if weights is None:
        pick = np.array([rng.integers(len(rows))])
    else:
        pick = np.array([rng.choice(len(rows), p=weights / weights.sum())])
    for i in range(clusters):
        if i > 0:
            cumulative = np.cumsum(squared if weights is None else squared * weights, dtype=np.float64)
            if cumulative[-1] <= 0:
                raise too_few_distinct(clusters)
            # side="right" skips rows of probability 0, which are the centroids so far and their duplicates
            pick = np.searchsorted(cumulative, rng.random(candidates) * cumulative[-1], side="right")
            pick = np.minimum(pick, len(rows) - 1)
        trial = rows.take(pick)
        distance, potential = source.capped(trial, squared)
        best = int(np.argmin(potential))
        chosen[i] = trial[best]
        squared = distance[best]
        squared[pick[best]] = 0
    return chosen


def kmeans_parallel(
    rows: Rows, clusters: int, rng: np.random.Generator, weights: np.ndarray | None = None
) -> np.ndarray:
    """Draw start centroids by k-means||: a handful of passes over the rows instead of one per centroid.

    From one uniformly random row on, each of five rounds takes every row with the probability
    ``clusters / 2`` x its share of the sum of squared distances to the candidates so far, about ``clusters / 2`` rows.
    The candidates, about ``2.5 clusters``, are then weighted by the number of rows nearest to each, and greedy
    k-means++ chooses among them. Where the rounds found fewer candidates than ``clusters`` (many equal rows), greedy
    k-means++ on all rows is used instead.

    Notes
    -----
    Bahmani, Moseley, Vattani, Kumar and Vassilvitskii 2012, "Scalable k-means++", algorithm 2, with l = k / 2 and
    r = 5; their section 5 finds rounds times l above k sufficient.
    """
    factor = np.ones(len(rows)) if weights is None else weights
    first = int(rng.integers(len(rows)))
    chosen = [np.array([first])]
    owner = np.zeros(len(rows), dtype=np.int64)
    squared = np.full(len(rows), np.inf, dtype=np.float32)
    known = 0
    for round_number in range(_ROUNDS + 1):
        fresh = chosen[-1]
        if len(fresh):
            index, distance, _ = nearest(rows, rows.take(fresh), with_sums=False)
            nearer = distance < squared
            owner[nearer] = known + index[nearer]
            squared[nearer] = distance[nearer]
            known += len(fresh)
        if round_number == _ROUNDS:
            break
        cost = squared * factor
        total = cost.sum(dtype=np.float64)
        if total <= 0:
            break
        chosen.append(np.flatnonzero(rng.random(len(rows)) < clusters / 2 * cost / total))
    candidates = np.concatenate(chosen)
    if len(candidates) < clusters:
        return kmeans_plus_plus(rows, clusters, rng, weights)
    mass = np.bincount(owner, weights=factor, minlength=len(candidates))
    used = np.flatnonzero(mass > 0)  # of equal candidates one owns all rows
    if len(used) < clusters:
        return kmeans_plus_plus(rows, clusters, rng, weights)
    return kmeans_plus_plus(rows.subset(candidates[used]), clusters, rng, mass[used])


def too_few_distinct(clusters: int) -> InputError:
    """Build the error for data with fewer different rows than clusters asked for."""
    return InputError(
        f"clusters={clusters} needs at least as many different rows, but the features hold fewer; "
        "remove duplicates or ask for fewer clusters"
    )


class _Potential:
    """Squared distances of all rows to a few candidates at a time, as one matrix product per block.

    |x|^2 + |c|^2 - 2 x.c is the product of (x, |x|^2, 1) and (-2 c, 1, |c|^2), with the mean of the rows taken off
    both, so that an offset common to all features costs no precision. Rows in memory are kept in this form, transposed,
    which is the fastest layout for a product with few candidates.
    """

    def __init__(self, rows: Rows, weights: np.ndarray | None = None) -> None:
        self._rows, self._weights = rows, weights
        total = np.zeros(rows.shape[1])
        for _, block in rows.blocks():
            total += block.sum(axis=0, dtype=np.float64)
        self._mean = (total / len(rows)).astype(np.float32)
        self._kept = list(self._prepared()) if rows.in_memory else None

    def _prepared(self) -> Iterator[tuple[int, np.ndarray]]:
        dim = self._rows.shape[1]
        for first, block in self._rows.blocks():
            columns = np.ones((dim + 2, len(block)), dtype=np.float32)
            np.subtract(block.T, self._mean[:, None], out=columns[:dim])
            np.einsum("ij,ij->j", columns[:dim], columns[:dim], out=columns[dim])
            yield first, columns

    def capped(self, candidates: np.ndarray, cap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compare every row with M candidates (M, D).

        Returns
        -------
        distance : (M, N) float32
            min(cap, squared distance), never negative.
        potential : (M,) float64
            Sum of ``distance`` over the rows.
        """
        centred = candidates - self._mean
        norms = np.einsum("ij,ij->i", centred, centred)[:, None]
        weights = np.concatenate([-2 * centred, np.ones_like(norms), norms], axis=1)
        distance = np.empty((len(candidates), len(self._rows)), dtype=np.float32)
        potential = np.zeros(len(candidates))

        def one(piece: tuple[int, np.ndarray]) -> np.ndarray:
            first, columns = piece
            span = slice(first, first + columns.shape[1])
            part = weights @ columns
            np.maximum(part, 0, out=part)
            np.minimum(part, cap[span], out=part)
            distance[:, span] = part
            return part.sum(axis=1) if self._weights is None else part @ self._weights[span]

        for part in ordered(one, self._kept or self._prepared()):
            potential += part
        return distance, potential
