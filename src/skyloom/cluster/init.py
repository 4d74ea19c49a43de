"""Where k-means starts: greedy k-means++ or random rows."""

from collections.abc import Iterator

import numpy as np

from skyloom.cluster.rows import Rows
from skyloom.errors import InputError


def random_rows(rows: Rows, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``clusters`` different rows uniformly: (clusters, D) float32."""
    return rows.take(rng.choice(len(rows), size=clusters, replace=False))


def kmeans_plus_plus(rows: Rows, clusters: int, rng: np.random.Generator) -> np.ndarray:
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
    source = _Potential(rows)
    chosen = np.empty((clusters, rows.shape[1]), dtype=np.float32)
    nearest = np.full(len(rows), np.inf, dtype=np.float32)
    pick = np.array([rng.integers(len(rows))])
    for i in range(clusters):
        if i > 0:
            cumulative = np.cumsum(nearest, dtype=np.float64)
            if cumulative[-1] <= 0:
                raise too_few_distinct(clusters)
            # side="right" skips rows of probability 0, which are the centroids so far and their duplicates
            pick = np.searchsorted(cumulative, rng.random(candidates) * cumulative[-1], side="right")
            pick = np.minimum(pick, len(rows) - 1)
        trial = rows.take(pick)
        distance, potential = source.capped(trial, nearest)
        best = int(np.argmin(potential))
        chosen[i] = trial[best]
        nearest = distance[best]
        nearest[pick[best]] = 0
    return chosen


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

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
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
        for first, columns in self._kept or self._prepared():
            span = slice(first, first + columns.shape[1])
            part = weights @ columns
            np.maximum(part, 0, out=part)
            np.minimum(part, cap[span], out=part)
            distance[:, span] = part
            potential += part.sum(axis=1)
        return distance, potential
