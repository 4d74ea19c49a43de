"""Crop, turn and mirror the images of a batch in one sampling."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from skyloom.transform.draw import Draw

ROTATIONS = ("any", "quarter", "none")
PADDINGS = ("reflection", "border", "zeros", "circle")


def turned(
    images: Tensor,
    draw: Draw,
    *,
    area: tuple[float, float],
    aspect_max: float,
    rotation: str,
    flip_probability: float,
    padding: str,
    size_px: int,
) -> Tensor:
    """Take one crop of each image, placed anywhere inside it, turned and mirrored.

    Parameters
    ----------
    images
        (B, C, S, S).
    draw
        Random numbers.
    area
        Least and largest share of the image area, 0-1; uniform.
    aspect_max
        Largest ratio of the sides of a crop, log-uniform.
    rotation
        ``any`` angle, ``quarter`` turns (no interpolation) or ``none``.
    flip_probability
        Chance of a mirror image.
    padding
        What a turned view shows where it leaves the image: its ``reflection``, the ``border`` pixel, or ``zeros``.
        ``circle`` sets everything outside the circle that fits into the view to zero: that circle never leaves the
        image, so no pixel is made up and no corner tells the angle.
    size_px
        Side of the view.

    Returns
    -------
    Tensor
        (B, C, size_px, size_px), sampled bilinearly.
    """
    side = draw.uniform(*area).sqrt()
    aspect = draw.log_uniform(aspect_max).sqrt()
    width, height = (side * aspect).clamp(max=1.0), (side / aspect).clamp(max=1.0)
    shift_x, shift_y = (1 - width) * draw.uniform(-1.0, 1.0), (1 - height) * draw.uniform(-1.0, 1.0)
    angle = draw.uniform(0.0, 2 * math.pi)
    if rotation == "quarter":
        angle = (angle / (math.pi / 2)).floor() * (math.pi / 2)
    elif rotation == "none":
        angle = torch.zeros_like(angle)
    mirror = 1.0 - 2.0 * draw.chosen(flip_probability)
    cos, sin = angle.cos(), angle.sin()
    # Output coordinates (-1 to 1) -> mirrored -> turned -> scaled and shifted to the crop in the input.
    rows = (width * cos * mirror, -width * sin, shift_x, height * sin * mirror, height * cos, shift_y)
    matrix = torch.cat([row.view(-1, 1) for row in rows], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, [*images.shape[:2], size_px, size_px], align_corners=False)
    outside = "border" if padding == "circle" else padding
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)
    return views * disc(views) if padding == "circle" else views


def disc(images: Tensor) -> Tensor:
    """Return 1 inside the circle that fits into square images (..., S, S), else 0; (S, S)."""
    axis = torch.arange(images.shape[-1], device=images.device) - (images.shape[-1] - 1) / 2
    return (axis[:, None] ** 2 + axis**2 <= (images.shape[-1] / 2) ** 2).to(images)
