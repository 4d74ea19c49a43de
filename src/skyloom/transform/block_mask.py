"""Masks of rectangular blocks of patches, for a batch at once."""

import math

import torch
from torch import Tensor

ATTEMPTS = 30  # rounds of one block per image; what is still missing then is filled patch by patch
ASPECT_MAX = 1 / 0.3  # ratio of the sides of a block, as in BEiT and DINOv2
BLOCK_MIN = 4  # patches; smaller blocks only where fewer are missing


def block_mask(
    batch: int, rows: int, columns: int, *, probability: float, share: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Hide blocks of patches (Bao et al. 2022, arXiv:2106.08254, algorithm 1; shares as in Oquab et al. 2023).

    Parameters
    ----------
    batch, rows, columns
        Images, and patches of each.
    probability
        Share of the images of a batch that get a mask: exactly so many, rounded down, and at least one.
    share
        Least and largest share of the patches that are hidden in such an image; the images of a batch are spread
        evenly over that range.
    generator
        Where all numbers come from.

    Returns
    -------
    Tensor
        bool (batch, rows, columns), on the device of the generator. An image that gets a mask has at least one hidden
        patch, and exactly as many as its share says.
    """
    device = generator.device
    number = max(1, int(batch * probability))
    edges = torch.linspace(*share, number + 1, device=device)
    drawn = torch.rand(number, generator=generator, device=device)
    wanted = ((edges[:-1] + (edges[1:] - edges[:-1]) * drawn) * rows * columns).long().clamp(min=1)
    row, column = torch.arange(rows, device=device).view(1, -1, 1), torch.arange(columns, device=device).view(1, 1, -1)
    mask = torch.zeros(number, rows, columns, dtype=torch.bool, device=device)
    for _ in range(ATTEMPTS):
        missing = wanted - mask.sum((1, 2))
        area, aspect, top, left = torch.rand(4, number, generator=generator, device=device)
        area = missing.clamp(max=BLOCK_MIN) + (missing - missing.clamp(max=BLOCK_MIN)) * area
        ratio = ((2 * aspect - 1) * math.log(ASPECT_MAX)).exp()
        height = (area * ratio).sqrt().round().clamp(1, rows)
        width = (area / ratio).sqrt().round().clamp(1, columns)
        top, left = (top * (rows - height + 1)).floor(), (left * (columns - width + 1)).floor()
        inside_row = (row >= top.view(-1, 1, 1)) & (row < (top + height).view(-1, 1, 1))
        inside_column = (column >= left.view(-1, 1, 1)) & (column < (left + width).view(-1, 1, 1))
        more = mask | (inside_row & inside_column)
        mask = torch.where((more.sum((1, 2)) <= wanted).view(-1, 1, 1), more, mask)
    # Single patches for the rest: the first of a random order of those that are not hidden yet.
    rank = torch.rand(number, rows * columns, generator=generator, device=device) + mask.flatten(1)
    order = rank.argsort(1).argsort(1)
    mask |= (order < (wanted - mask.sum((1, 2))).view(-1, 1)).view_as(mask)
    found = torch.zeros(batch, rows, columns, dtype=torch.bool, device=device)
    found[torch.randperm(batch, generator=generator, device=device)[:number]] = mask
    return found
