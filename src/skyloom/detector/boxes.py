"""Arithmetic of boxes (x0, y0, x1, y1) in pixels: offsets between two, clipping, samples of them."""

import math

import torch
from torch import Tensor

Weights = tuple[float, float]
LARGEST_LOG = math.log(1000 / 16)  # of a ratio of sizes; keeps exp() finite, as all R-CNNs have it
SMALLEST_PX = 1e-3  # sides below are no box: they would make offsets infinite


def encode(boxes: Tensor, truth: Tensor, weights: Weights) -> Tensor:
    """Offsets that bring boxes to the truth (Girshick et al. 2014, arXiv:1311.2524, eqs. 6-9).

    Parameters
    ----------
    boxes, truth
        float (n, 4), px.
    weights
        Factors of the shifts of the centre and of the logarithms of the ratios of the sides.

    Returns
    -------
    Tensor
        float (n, 4): shifts in x and y in units of the box, log ratios of width and height, times the weights.
    """
    size, wanted = boxes[:, 2:] - boxes[:, :2], truth[:, 2:] - truth[:, :2]
    shift = (truth[:, :2] + 0.5 * wanted - boxes[:, :2] - 0.5 * size) / size
    return torch.cat([weights[0] * shift, weights[1] * torch.log(wanted / size)], dim=1)


def decode(boxes: Tensor, offsets: Tensor, weights: Weights) -> Tensor:
    """Move boxes by offsets, the inverse of `encode`.

    Parameters
    ----------
    boxes
        float (..., 4), px.
    offsets
        (..., 4) or (..., k, 4) when boxes are (..., 1, 4).
    weights
        As for `encode`.

    Returns
    -------
    Tensor
        float32, the shape of offsets.
    """
    offsets = offsets.float()
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * size + offsets[..., :2] / weights[0] * size
    half = 0.5 * size * torch.exp((offsets[..., 2:] / weights[1]).clamp(max=LARGEST_LOG))
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Tensor, sizes_px: Tensor) -> Tensor:
    """Cut boxes (..., 4) at the edges of images; sizes_px (..., 2) holds height and width of each box's image."""
    limit = sizes_px.flip(-1).to(boxes)
    return torch.cat([boxes[..., :2].clamp(min=0).minimum(limit), boxes[..., 2:].clamp(min=0).minimum(limit)], dim=-1)


def usable(boxes: Tensor) -> Tensor:
    """Whether boxes (..., 4) are finite and have an area, bool (...)."""
    return torch.isfinite(boxes).all(-1) & ((boxes[..., 2:] - boxes[..., :2]) >= SMALLEST_PX).all(-1)


def smooth_l1(found: Tensor, wanted: Tensor, beta: float) -> Tensor:
    """Sum of the smooth L1 loss; beta 0 is plain L1."""
    return torch.nn.functional.smooth_l1_loss(found, wanted, beta=beta, reduction="sum")
