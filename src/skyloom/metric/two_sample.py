"""Can two sets of feature vectors be told apart? A classifier two-sample test with a linear classifier."""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit

from skyloom.errors import InputError

ALIKE, APART = 0.60, 0.85  # accuracy below which sets count as alike, and above which they count as incompatible


@dataclass(frozen=True)
class TwoSample:
    """Result of a classifier two-sample test.

    Attributes
    ----------
    accuracy : float
        Of held-out rows; 0.5 is chance, since both sets have the same number of rows.
    low, high : float
        95 % interval of it: Wilson's of that many independent rows.
    p_value : float
        One-sided binomial test of an accuracy above 0.5.
    folds : list of float
        Accuracy of each fold.
    rows : int
        Rows of each set.
    grouped : bool
        Whether rows of one group stayed in one fold.
    """

    accuracy: float
    low: float
    high: float
    p_value: float
    folds: list[float]
    rows: int
    grouped: bool

    @property
    def verdict(self) -> str:
        """``alike`` below 60 %, ``caution`` up to 85 %, ``incompatible`` above."""
        return "alike" if self.accuracy < ALIKE else "caution" if self.accuracy <= APART else "incompatible"


def two_sample_test(
    first: np.ndarray,
    second: np.ndarray,
    *,
    rng: np.random.Generator,
    groups: tuple[np.ndarray, np.ndarray] | None = None,
    folds: int = 5,
) -> TwoSample:
    """Cross-validated accuracy of a logistic regression that tells rows of two sets apart (Lopez-Paz & Oquab 2017).

    Parameters
    ----------
    first, second
        (n, D) each, the same number of rows.
    rng
        Decides the folds.
    groups
        (n,) integers per set, such as the image of each row: a group lies in one fold, so that the classifier cannot
        know the set by an image that it has seen. Needs ``folds`` groups in each set, else rows are drawn singly.
    folds
        Number of parts, each held out once.

    Raises
    ------
    InputError
        Sets of other shapes, or with fewer rows than folds.
    """
    if first.shape != second.shape or len(first) < folds:
        raise InputError(
            f"the two-sample test needs two sets of equal shape with at least {folds} rows each, "
            f"found {first.shape} and {second.shape}"
        )
    grouped = groups is not None and all(len(np.unique(group)) >= folds for group in groups)
    parts = [_folds(groups[i] if groups is not None and grouped else np.arange(len(first)), folds, rng) for i in (0, 1)]
    x = np.concatenate([first, second]).astype(np.float64)
    y = np.repeat([0.0, 1.0], len(first))
    fold = np.concatenate(parts)
    right = np.zeros(len(x), dtype=bool)
    for held in range(folds):
        out = fold == held
        mean, std = x[~out].mean(axis=0), x[~out].std(axis=0)
        scaled = (x - mean) / np.where(std > 0, std, 1)
        weights = logistic_fit(scaled[~out], y[~out])
        score = scaled[out] @ weights[:-1] + weights[-1]
        right[out] = (score > 0) == (y[out] > 0.5)
    test = stats.binomtest(int(right.sum()), len(right), 0.5, alternative="greater")
    both = stats.binomtest(int(right.sum()), len(right), 0.5).proportion_ci(0.95, method="wilson")
    accuracies = [float(right[fold == held].mean()) for held in range(folds)]
    return TwoSample(
        float(right.mean()), float(both.low), float(both.high), float(test.pvalue), accuracies, len(first), grouped
    )


def logistic_fit(x: np.ndarray, y: np.ndarray, *, penalty: float = 1.0) -> np.ndarray:
    """Weights (D + 1,) of a logistic regression, the last one the intercept, which is not penalised.

    Minimises Σ ln(1 + exp(-s m)) + penalty/2 |w|² by L-BFGS, where m is the margin and s = ±1 the class.

    Parameters
    ----------
    x
        (n, D) float64, standardised.
    y
        (n,) 0 or 1.
    penalty
        Strength of the penalty.
    """
    sign = 2 * y - 1

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ weights[:-1] + weights[-1])
        slope = -sign * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + penalty / 2 * weights[:-1] @ weights[:-1]
        return value, np.append(slope @ x + penalty * weights[:-1], slope.sum())

    return minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x


def _folds(group: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """A fold for each row: groups in random order, the large ones first, each to the fold with the fewest rows."""
    _, number, counts = np.unique(group, return_inverse=True, return_counts=True)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order], kind="stable")]
    place = np.empty(len(counts), dtype=np.int64)
    filled = np.zeros(folds, dtype=np.int64)
    for one in order:
        place[one] = np.argmin(filled)
        filled[place[one]] += counts[one]
    return place[number]
