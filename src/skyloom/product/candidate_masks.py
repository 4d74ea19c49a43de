"""Masks of candidates as run lengths, each pasted into the window of its box instead of the whole image."""

from dataclasses import replace

import numpy as np
import torch

from skyloom.detector.candidates import Candidates
from skyloom.sky.mask.rle import encode, encode_at

MARGIN_PX = 2  # around the box: pasting widens it by half a pixel of the mask's grid


def mask_counts(found: Candidates) -> list[str]:
    """Compressed run lengths of the mask of each candidate in the whole image.

    The same masks as those of :meth:`skyloom.detector.candidates.Candidates.pasted`, but for pixels whose probability
    is 0.5 to the rounding of float32, in a time and memory that follow the sizes of the objects.

    Parameters
    ----------
    found
        The candidates of one image, on the CPU.

    Returns
    -------
    list of str
        As :func:`skyloom.sky.mask.rle.encode` writes them.
    """
    return [_counts(found[torch.tensor([number])]) for number in range(len(found))]


def _counts(one: Candidates) -> str:
    height, width = one.size_px
    side = one.masks.shape[-1]
    x0, y0, x1, y1 = (float(value) for value in one.mask_boxes[0])
    # paste_masks_in_image enlarges a mask of n x n by one pixel of its grid at each side, so its box by 1/n.
    pad_x, pad_y = ((end - start) / side + MARGIN_PX for start, end in ((x0, x1), (y0, y1)))
    col0, row0 = (max(0, int(np.floor(start - pad))) for start, pad in ((x0, pad_x), (y0, pad_y)))
    col1, row1 = min(width, int(np.ceil(x1 + pad_x))), min(height, int(np.ceil(y1 + pad_y)))
    if col1 <= col0 or row1 <= row0:
        return encode(np.zeros((height, width), dtype=bool))
    moved = one.mask_boxes - torch.tensor([col0, row0, col0, row0], dtype=one.mask_boxes.dtype)
    window = replace(one, size_px=(row1 - row0, col1 - col0), mask_boxes=moved).pasted()[0].numpy()
    return encode_at(window, row0, col0, (height, width))
