"""How much of its space a representation uses: measures that need no labels.

Each takes features (N, D) as numpy or torch, or a :class:`Spectrum` made in one streaming pass (:func:`moments`).
They compare runs of one method; none replaces a score on labels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from skyloom.errors import InputError
from skyloom.metric.representation_moments import Moments, Spectrum, as_array, moments, spectrum, unit_rows

__all__ = [
    "Moments", "PowerLaw", "Spectrum", "alignment", "alpha_req", "collapse", "collapse_std", "dimensions_for",
    "effective_rank", "moments", "nesum", "numerical_rank", "participation_ratio", "rankme", "spectrum", "stable_rank",
    "uniformity",
]  # fmt: skip

RANKME_EPS = 1e-7  # of the paper, for features in float32
TILE_ROWS = 1024  # rows of one product of the uniformity: 8 MB


def rankme(z: Any) -> float:
    """RankMe: exp of the entropy of the singular values, from 1 to min(N, D).

    p_k = σ_k / Σ|σ| + 1e-7 of the matrix as it is, without centring; RankMe = exp(-Σ p_k ln p_k)
    (Garrido et al., ICML 2023, arXiv 2210.02885, eq. 1). A matrix of zeros has 0. The authors find 25,600 rows
    enough, and compare only runs of one method by it.
    """
    values = _spectrum(z).singular_values
    if not values[0] > 0:
        return 0.0
    share = values / values.sum() + RANKME_EPS
    return float(np.exp(-np.sum(share * np.log(share))))


def effective_rank(z: Any) -> float:
    """Entropy of the singular values of centred features, as exp (Roy & Vetterli, EUSIPCO 2007); 0 if all are equal.

    RankMe is the same without the centring: a mean that is large next to the spread lowers RankMe and not this.
    """
    return _exp_entropy(np.sqrt(_variances(z)))


def participation_ratio(z: Any) -> float:
    """(tr C)² / tr C² of the covariance C: 1 to D, the number of equally strong directions; 0 if all rows are equal."""
    values = _variances(z)
    squares = float(np.sum(values**2))
    return float(values.sum()) ** 2 / squares if squares > 0 else 0.0


def nesum(z: Any) -> float:
    """Σ λ_i / λ_1 of the covariance: 1 to D (He & Ozay, ICML 2022); 0 if all rows are equal."""
    values = _variances(z)
    return float(values.sum() / values[0]) if values[0] > 0 else 0.0


def stable_rank(z: Any) -> float:
    """‖Z‖_F² / σ_1² of the features as they are, not centred: 1 to min(N, D); 0 for a matrix of zeros."""
    squares = _spectrum(z).singular_values ** 2
    return float(squares.sum() / squares[0]) if squares[0] > 0 else 0.0


def numerical_rank(z: Any) -> int:
    """Singular values above D x 1.2e-7 (the precision of float32) of the largest, not centred."""
    found = _spectrum(z)
    limit = found.singular_values[0] * found.dimensions * float(np.finfo(np.float32).eps)
    return int((found.singular_values > limit).sum())


def dimensions_for(z: Any, fraction: float = 0.99) -> int:
    """How many principal components hold ``fraction`` of the variance; 0 if all rows are equal."""
    values = _variances(z)
    if not values[0] > 0:
        return 0
    share = np.cumsum(values) / values.sum()
    return int(np.searchsorted(share, fraction - 1e-12)) + 1


@dataclass(frozen=True)
class PowerLaw:
    """A fit λ_j = scale · j^-alpha to the variances of ranks ``first`` to ``last`` (from 1); r2 of the logarithms."""

    alpha: float
    scale: float
    r2: float
    first: int
    last: int


def alpha_req(z: Any, *, first: int = 3, last: int = 100) -> PowerLaw:
    """Slope of the spectrum of the covariance, λ_j ~ j^-alpha (Agrawal et al., NeurIPS 2022).

    The authors find the best generalisation near alpha = 1: larger is too few directions, smaller is noise.

    Parameters
    ----------
    z
        Features (N, D) or their spectrum.
    first, last
        Ranks fitted, from 1. The first few and the last, which follow no power law, are left out; both are clipped to
        the variances above 1e-10 of the largest. Least squares in the logarithms, with weights 1/j so that each decade
        of j counts the same.

    Returns
    -------
    PowerLaw
        All NaN where fewer than three variances are left.
    """
    values = _variances(z)
    usable = int((values > values[0] * 1e-10).sum())
    last = min(last, usable)
    first = max(1, min(first, last - 4))
    if last - first < 2:
        return PowerLaw(np.nan, np.nan, np.nan, first, last)
    rank = np.arange(first, last + 1, dtype=np.float64)
    x, y, weight = np.log(rank), np.log(values[first - 1 : last]), 1 / rank
    x0, y0 = np.average(x, weights=weight), np.average(y, weights=weight)
    slope = np.sum(weight * (x - x0) * (y - y0)) / np.sum(weight * (x - x0) ** 2)
    scatter = np.sum(weight * (y - y0) ** 2)
    left = np.sum(weight * (y - y0 - slope * (x - x0)) ** 2)
    r2 = 1 - left / scatter if scatter > 0 else 1.0
    return PowerLaw(float(-slope), float(np.exp(y0 - slope * x0)), float(r2), first, last)


def collapse_std(z: Any) -> float:
    """Mean over dimensions of the standard deviation of the rows scaled to unit length.

    1/√D for directions spread over the whole sphere, 0 when all rows point the same way
    (Chen & He, CVPR 2021, section 4.1; ``lightly.utils.debug.std_of_l2_normalized``). ``z`` may be a Moments.
    """
    found = z if isinstance(z, Moments) else moments([z])
    return float(found.unit_std.mean())


def collapse(found: Moments) -> str | None:
    """Say in a sentence in which way features have collapsed; None when they have not.

    Collapsed are rows that are all equal or of one direction (``collapse_std`` below 1 % of 1/√D), and those that
    differ along one direction only (effective rank below 1.5), unless there is no more than one dimension.
    """
    values = found.spectrum()
    size = float(np.abs(found.mean).max())
    if not values.variances[0] > (1e-7 * size) ** 2:
        return "All rows are equal: the encoder gives the same features for every image (complete collapse)."
    spread = collapse_std(found) * np.sqrt(found.dimensions)
    if found.dimensions > 1 and spread < 0.01:
        return f"All rows point the same way: their directions spread by {spread:.2g} of what is possible (collapse)."
    rank = effective_rank(values)
    if found.dimensions > 1 and rank < 1.5:
        return f"The rows differ along one direction only: effective rank {rank:.2f} (dimensional collapse)."
    return None


def uniformity(z: Any, *, t: float = 2.0) -> float:
    """Logarithm of the mean of exp(-t ‖x-y‖²) over pairs of different rows, scaled to unit length.

    0 when all rows point the same way, about -2t for many dimensions when they are spread evenly
    (Wang & Isola, ICML 2020, section 4.1.2). All pairs are taken: N²/2 of them, so give a sample of some thousand rows.
    """
    rows = unit_rows(as_array(z).astype(np.float64))
    if len(rows) < 2:
        raise InputError("uniformity needs at least two rows of features")
    total = -float(len(rows))  # each row with itself, which the tiles below include
    for start in range(0, len(rows), TILE_ROWS):
        part = rows[start : start + TILE_ROWS]
        for other in range(0, len(rows), TILE_ROWS):
            total += float(np.exp(t * (2 * part @ rows[other : other + TILE_ROWS].T - 2).clip(max=0)).sum())
    return float(np.log(max(total, np.finfo(float).tiny) / (len(rows) * (len(rows) - 1))))


def alignment(x: Any, y: Any, *, alpha: float = 2.0) -> float:
    """Mean of ‖x_i-y_i‖^alpha over rows of two views, each (N, D) and scaled to unit length; 0 is perfect (ibidem)."""
    first, second = (unit_rows(as_array(side).astype(np.float64)) for side in (x, y))
    if first.shape != second.shape:
        raise InputError(f"alignment compares row by row; found shapes {first.shape} and {second.shape}")
    return float(np.mean(np.sum((first - second) ** 2, axis=1) ** (alpha / 2)))


def _spectrum(z: Any) -> Spectrum:
    return z if isinstance(z, Spectrum) else spectrum(z)


def _variances(z: Any) -> np.ndarray:
    return _spectrum(z).variances


def _exp_entropy(values: np.ndarray) -> float:
    share = values[values > 0]
    if not len(share):
        return 0.0
    share = share / share.sum()
    return float(np.exp(-np.sum(share * np.log(share))))
