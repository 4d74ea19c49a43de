"""k-nearest-neighbour scores: what a network's features know of labels without any training."""

import torch
from torch import Tensor

from skyloom.errors import ConfigError, InputError

CHUNK_VALUES = 2**24  # similarities held at once: 64 MB


def effective_k(k: int, bank: int) -> int:
    """Return how many neighbours are asked: ``k``, or all of a bank of fewer vectors."""
    return min(k, bank)


def knn_scores(bank: Tensor, targets: Tensor, queries: Tensor, k: int, temperature: float) -> Tensor:
    """Let the nearest labelled vectors vote, the nearer the more.

    Parameters
    ----------
    bank
        (N, D) labelled vectors, any length; only their direction counts (cosine similarity).
    targets
        (N, C), 1 or True where a vector has a class; several per row when labels are multi-label.
    queries
        (M, D) vectors whose classes are wanted; on the same device.
    k
        Neighbours that vote; all of the bank when it holds fewer, see :func:`effective_k`.
    temperature
        A neighbour of similarity s weighs exp(s / temperature).

    Returns
    -------
    Tensor
        (M, C) float32: share of the weight that each class gets, 0 to 1. Rows of single labels sum to 1.

    Raises
    ------
    ConfigError
        ``k`` or ``temperature`` is not positive.
    InputError
        Shapes do not fit, the bank is empty, or a vector is not finite.

    Notes
    -----
    Wu et al. 2018 (arXiv:1805.01978), sec. 3.4; k = 20 and temperature 0.07 as in Caron et al. 2021 (DINO).
    A vector of zeros has similarity 0 to all.
    """
    if k < 1 or not temperature > 0:
        raise ConfigError(f"expected k >= 1 and temperature > 0, found k={k} and temperature={temperature}")
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1] or len(targets) != len(bank):
        raise InputError(
            "expected bank (N, D), targets (N, C) and queries (M, D), "
            f"found {tuple(bank.shape)}, {tuple(targets.shape)} and {tuple(queries.shape)}"
        )
    if len(bank) == 0:
        raise InputError("the bank is empty: there is no labelled vector to be a neighbour")
    if not (torch.isfinite(bank).all() and torch.isfinite(queries).all()):
        raise InputError("vectors are not finite; extract the features again and look for NaN")
    neighbours = effective_k(k, len(bank))
    votes = targets.to(torch.float32)
    known = torch.nn.functional.normalize(bank.float(), dim=1)
    rows = max(1, CHUNK_VALUES // len(bank))
    scores = torch.empty(len(queries), votes.shape[1], dtype=torch.float32, device=queries.device)
    for start in range(0, len(queries), rows):
        asked = torch.nn.functional.normalize(queries[start : start + rows].float(), dim=1)
        similarity, nearest = (asked @ known.T).topk(neighbours, dim=1)
        weight = torch.softmax(similarity / temperature, dim=1)  # exp(s / T) over its sum, which cannot overflow
        scores[start : start + rows] = (weight.unsqueeze(2) * votes[nearest]).sum(1)
    return scores.clamp_(0, 1)
