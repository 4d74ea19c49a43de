"""Turns and mirrors of an image with its boxes, masks and keypoints, exact: no pixel is interpolated."""

from typing import TypeVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as tv

T = TypeVar("T", bound=Tensor)


def quarter_turn(item: T, turns: int) -> T:
    """Turn counter-clockwise, as seen with the first row on top, by quarters.

    torchvision turns tensors by interpolation about a centre; a quarter is a mere exchange of axes.

    Parameters
    ----------
    item
        A plain tensor or ``Image`` (C, H, W), ``Mask`` (n, H, W), ``BoundingBoxes`` XYXY (n, 4), ``KeyPoints`` (n, 2).
    turns
        Number of quarters; negative turns the other way.

    Returns
    -------
    Tensor
        Of the same type; canvas and image have height and width exchanged after an odd number.
    """
    for _ in range(turns % 4):
        item = _one_quarter(item)
    return item


def mirrored_x(item: T) -> T:
    """Left becomes right; torchvision's own."""
    return tv.horizontal_flip(item)


def mirrored_y(item: T) -> T:
    """Top becomes bottom; torchvision's own."""
    return tv.vertical_flip(item)


def _one_quarter(item: T) -> T:
    """Pixel (x, y) of a canvas of width W goes to (y, W - 1 - x); edges of boxes to W - x."""
    if isinstance(item, tv_tensors.BoundingBoxes):
        height, width = item.canvas_size
        x0, y0, x1, y1 = item.as_subclass(Tensor).unbind(-1)
        turned = torch.stack([y0, width - x1, y1, width - x0], dim=-1)
        return tv_tensors.wrap(turned, like=item, canvas_size=(width, height))
    if isinstance(item, tv_tensors.KeyPoints):
        height, width = item.canvas_size
        x, y = item.as_subclass(Tensor).unbind(-1)
        return tv_tensors.wrap(torch.stack([y, width - 1 - x], dim=-1), like=item, canvas_size=(width, height))
    turned = torch.rot90(item.as_subclass(Tensor), 1, (-2, -1)).contiguous()
    return tv_tensors.wrap(turned, like=item) if isinstance(item, tv_tensors.TVTensor) else turned  # type: ignore[return-value]
