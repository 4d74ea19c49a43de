"""The linear probe: logistic regression on standardised features, the same result every time."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from threadpoolctl import threadpool_limits

TOLERANCE = 1e-5  # largest component of the gradient of the mean loss at which L-BFGS stops

Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]  # of logits (N, C): the loss and its gradient (N, C)


def linear_scores(
    train: np.ndarray,
    targets: np.ndarray,
    queries: np.ndarray,
    *,
    l2: float,
    multi_label: bool,
    balanced: bool = False,
    max_iterations: int = 500,
) -> np.ndarray:
    """Fit a linear classifier and apply it.

    Parameters
    ----------
    train
        (N, D) features of the training items.
    targets
        bool (N, C), their classes.
    queries
        (M, D) features whose classes are wanted.
    l2
        Strength of the penalty: the mean loss gets l2 / 2 times the sum of the squared weights; biases are free.
    multi_label
        One logistic regression per class instead of one softmax over all.
    balanced
        Every class counts the same in the loss instead of every item.
    max_iterations
        Most steps of L-BFGS.

    Returns
    -------
    ndarray
        (M, C) float32: probabilities. A class without any training item gets 0.

    Notes
    -----
    Features are standardised with mean and standard deviation of the training items; constant ones are left out. The
    loss is convex, so that neither a seed nor a learning rate matters: as in the linear evaluation of Radford et al.
    2021 (CLIP, arXiv:2103.00020, app. A.3), who choose the penalty on validation data with L-BFGS. Works in float64:
    8 N D bytes.
    """
    mean, std = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    varies = std > 1e-12 * np.maximum(1e-12, np.abs(mean))
    x, q = ((a[:, varies] - mean[varies]) / std[varies] for a in (train, queries))
    there = targets.any(0)
    scores = np.zeros((len(queries), targets.shape[1]), dtype=np.float32)
    y = targets[:, there].astype(np.float64)
    if multi_label:
        weight, bias = _fit(x, y.shape[1], _sigmoid_loss(y, balanced), l2, max_iterations)
        scores[:, there] = expit(q @ weight + bias)
    else:
        weight, bias = _fit(x, y.shape[1], _softmax_loss(y, balanced), l2, max_iterations)
        scores[:, there] = softmax(q @ weight + bias, axis=1)
    return scores


def _fit(x: np.ndarray, classes: int, loss: Loss, l2: float, max_iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Minimise the mean loss and the penalty; returns weights (D, C) and biases (C,)."""
    shape = (x.shape[1] + 1, classes)

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(shape)
        total, slope = loss(x @ w[:-1] + w[-1])
        gradient = np.vstack([x.T @ slope + l2 * w[:-1], slope.sum(0)])
        return total + 0.5 * l2 * float((w[:-1] ** 2).sum()), gradient.ravel()

    start = np.zeros(shape).ravel()
    options = {"maxiter": max_iterations, "gtol": TOLERANCE, "maxcor": 10}
    with threadpool_limits(1, "blas"):  # a few classes wide: threads cost more than they bring, and change last bits
        found = minimize(value, start, jac=True, method="L-BFGS-B", options=options).x.reshape(shape)
    return found[:-1], found[-1]


def _softmax_loss(y: np.ndarray, balanced: bool) -> Loss:
    share = y @ (1 / y.sum(0)) / y.shape[1] if balanced else np.full(len(y), 1 / len(y))

    def loss(logits: np.ndarray) -> tuple[float, np.ndarray]:
        log_p = log_softmax(logits, axis=1)
        return -float(share @ (y * log_p).sum(1)), share[:, None] * (np.exp(log_p) - y)

    return loss


def _sigmoid_loss(y: np.ndarray, balanced: bool) -> Loss:
    """Sum over classes of the mean binary cross-entropy; balanced: members and others of a class weigh the same."""
    number, members = len(y), y.sum(0)
    share = np.full(y.shape, 1 / number)
    if balanced:
        share = np.where(y > 0, 0.5 / members, 0.5 / np.maximum(number - members, 1))

    def loss(logits: np.ndarray) -> tuple[float, np.ndarray]:
        return float((share * (np.logaddexp(0, logits) - y * logits)).sum()), share * (expit(logits) - y)

    return loss
