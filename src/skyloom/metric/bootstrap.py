"""How uncertain a score is because the test set is small: resample it, whole groups at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from skyloom.errors import InputError

INTERVAL = (2.5, 97.5)  # percentiles: 95 % of the resamples lie between them

Score = Callable[[np.ndarray], float]
"""A score of items that count ``weight`` (N,) times each."""


def bootstrap_weights(group: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw test sets with replacement.

    Parameters
    ----------
    group
        (N,); items of one group are drawn together, since they are no independent evidence.
    samples
        How many test sets.
    rng
        The stream.

    Returns
    -------
    ndarray
        int32 (samples, N): how often each item is drawn.

    Raises
    ------
    InputError
        There is no item.
    """
    if len(group) == 0:
        raise InputError("a bootstrap needs at least one test item")
    numbers, of_item = np.unique(group, return_inverse=True)
    share = np.full(len(numbers), 1 / len(numbers))
    return rng.multinomial(len(numbers), share, size=samples).astype(np.int32)[:, of_item]


def bootstrap_interval(scores: Sequence[Score], weights: np.ndarray) -> tuple[float, float]:
    """Percentile interval (95 %) of the mean of several scores over the same test sets.

    Parameters
    ----------
    scores
        Each of one trained classifier on the same N items, such as those of several seeds; a negative one
        (``lambda w: -score(w)``) makes a difference of means.
    weights
        (samples, N) of :func:`bootstrap_weights`.

    Returns
    -------
    tuple of float
        Lower and upper end (Efron & Tibshirani 1993, ch. 13). NaN where no resample has a score.
    """
    found = np.array([np.mean([score(weight) for score in scores]) for weight in weights.astype(np.float64)])
    found = found[np.isfinite(found)]
    if len(found) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(found, INTERVAL)
    return float(low), float(high)


def bootstrap_sums(group: np.ndarray, values: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Sums of counts over test sets drawn with replacement, whole groups at a time.

    The same test sets in distribution as those of :func:`bootstrap_weights`, for scores that are ratios of sums. Groups
    that add the same are drawn together, so that time and memory grow with the different ones, not with the items.

    Parameters
    ----------
    group
        (N,), of each item.
    values
        int64 (N, C): what each item adds.
    samples
        How many test sets.
    rng
        The stream.

    Returns
    -------
    ndarray
        int64 (samples, C).

    Raises
    ------
    InputError
        There is no item.
    """
    if len(group) == 0:
        raise InputError("a bootstrap needs at least one test item")
    numbers, of_item = np.unique(group, return_inverse=True)
    adds = np.zeros((len(numbers), values.shape[1]), dtype=np.int64)
    np.add.at(adds, of_item, values)
    counted = pl.DataFrame(adds).group_by(pl.all()).agg(pl.len().alias("times")).sort(pl.all())
    different, times = counted.drop("times").to_numpy(), counted["times"].to_numpy()
    return rng.multinomial(len(numbers), times / len(numbers), size=samples) @ different
