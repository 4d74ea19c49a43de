"""How evenly a selection covers clusters or classes."""

import numpy as np
from numpy.typing import ArrayLike

from skyloom.errors import InputError


def occupancy_entropy(counts: ArrayLike) -> float:
    """Shannon entropy of the occupancy in nats.

    Parameters
    ----------
    counts
        (K,) non-negative numbers, how much each cluster holds; clusters without any count as 0 and must be listed for
        the normalised measures.

    Returns
    -------
    float
        0 when all is in one cluster, ln K when all hold the same.

    Raises
    ------
    InputError
        Empty, not one-dimensional, negative or not finite, or nothing counted at all.
    """
    share = _shares(counts)
    share = share[share > 0]
    return max(0.0, float(-np.sum(share * np.log(share))))


def normalised_entropy(counts: ArrayLike) -> float:
    """Occupancy entropy divided by ln K (Pielou 1966 evenness): 0 to 1, and 1 for a single cluster."""
    clusters = len(_shares(counts))
    return min(1.0, occupancy_entropy(counts) / float(np.log(clusters))) if clusters > 1 else 1.0


def gini(counts: ArrayLike) -> float:
    """Gini coefficient, half the relative mean absolute difference: 0 for equal counts, (K - 1) / K for one cluster."""
    share = np.sort(_shares(counts))
    clusters = len(share)
    weight = 2 * np.arange(1, clusters + 1) - clusters - 1
    return max(0.0, float(np.sum(weight * share) / clusters))


def coverage(counts: ArrayLike) -> float:
    """Fraction of the clusters that hold anything, 0 to 1."""
    return float(np.mean(_shares(counts) > 0))


def _shares(counts: ArrayLike) -> np.ndarray:
    values = np.asarray(counts, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"counts must be a non-empty list with one number per cluster, found shape {values.shape}")
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError("counts must be finite and not negative; count the selected items per cluster")
    total = values.sum()
    if total == 0:
        raise InputError("counts are all zero; measure a selection that holds at least one item")
    return values / total
