"""Which true object a box belongs to, and the random choice of boxes to learn from."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

PAIRS = 1 << 24  # intersections over union at a time: 64 MB, so that 3,000 objects fit beside 65,000 anchors


def best_matches(truth: Tensor, boxes: Tensor, *, low_quality: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Find the true box that overlaps each box best.

    Parameters
    ----------
    truth
        float (n, 4), px.
    boxes
        float (m, 4), px.
    low_quality
        Whether to also find the boxes that are, ties included, the best of some true box (Ren et al. 2015,
        arXiv:1506.01497, section 3.1.2, condition i).

    Returns
    -------
    tuple of Tensor
        Intersection over union float (m,), row of truth int64 (m,), 0 where there is none, and bool (m,).
    """
    overlap = torch.full((len(boxes),), -1.0, device=boxes.device, dtype=boxes.dtype)
    row = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    best_of_some = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    if not len(boxes) or not len(truth):
        return overlap, row, best_of_some
    step = max(1, PAIRS // len(boxes))
    for start in range(0, len(truth), step):
        pairs = box_iou(truth[start : start + step], boxes)
        value, index = pairs.max(dim=0)
        better = value > overlap
        overlap, row = torch.where(better, value, overlap), torch.where(better, index + start, row)
        if low_quality:
            best_of_some |= (pairs == pairs.max(dim=1, keepdim=True).values).any(dim=0)
    return overlap, row, best_of_some


def sample(positive: Tensor, negative: Tensor, *, number: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draw positive and negative examples by the global random stream, without replacement.

    Parameters
    ----------
    positive, negative
        bool (m,).
    number
        Most examples.
    positive_fraction
        Largest share of positive ones; what they lack is filled with negative ones.

    Returns
    -------
    tuple of Tensor
        Rows of the positive and of the negative examples, int64.
    """
    rows = positive.nonzero()[:, 0], negative.nonzero()[:, 0]
    take = min(len(rows[0]), int(number * positive_fraction))
    chosen = rows[0][torch.randperm(len(rows[0]), device=positive.device)[:take]]
    return chosen, rows[1][torch.randperm(len(rows[1]), device=positive.device)[: number - take]]
