"""Masks that are known pixel by pixel, in the form of candidates: boxes over which they are pasted without a change."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

OFF_WHOLE_PX = 0.25  # keeps numbers that are cut to whole ones away from the jump


def pixel_masks(
    segments: np.ndarray, number: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Cut each object out of a segmentation map.

    Parameters
    ----------
    segments
        Integer (H, W): 0 outside, 1 to ``number`` on the objects.
    number
        Of objects; one without a pixel gets a box without area.

    Returns
    -------
    boxes : ndarray
        float64 (n, 4), x0, y0, x1, y1; pixel i spans i to i + 1.
    masks : ndarray
        bool (n, side, side), the objects at the upper left of squares as large as the largest needs.
    mask_boxes : ndarray
        float64 (n, 4), see `pasting_boxes`.
    """
    places = find_objects(segments, max_label=number) if number else []
    corners = [(0, 0, 0, 0) if p is None else (p[1].start, p[0].start, p[1].stop, p[0].stop) for p in places]
    boxes = np.array(corners, dtype=np.float64).reshape(-1, 4)
    side = max(1, int(np.ceil((boxes[:, 2:] - boxes[:, :2]).max(initial=1))))
    masks = np.zeros((number, side, side), dtype=bool)
    for label, (mask, place) in enumerate(zip(masks, places, strict=True), start=1):
        if place is not None:
            own = segments[place] == label
            mask[: own.shape[0], : own.shape[1]] = own
    return boxes, masks, pasting_boxes(boxes[:, :2], side)


def pasting_boxes(first: np.ndarray, side: int, *, cell_px: np.ndarray | int = 1) -> NDArray[np.float64]:
    """Boxes over which ``paste_masks_in_image`` of torchvision puts each cell of a mask on one pixel, or on several.

    It widens masks by a cell and boxes by (side + 2) / side about their centres, cuts the corners to whole numbers
    towards 0, and stretches the mask over one pixel more than lies between them. So a box that spans the pixels of the
    mask would be pasted one pixel too wide; these are a pixel narrower.

    Parameters
    ----------
    first
        Whole numbers (n, 2): x and y of the first pixel below the first cell.
    side
        Cells along a side.
    cell_px
        Pixels along a side of a cell, a whole number or (n, 1); masks of larger cells are interpolated in between.

    Returns
    -------
    ndarray
        float64 (n, 4).
    """
    low = np.asarray(first, dtype=np.float64) - cell_px
    low = low + np.where(low < 0, -OFF_WHOLE_PX, OFF_WHOLE_PX)
    high = np.asarray(first, dtype=np.float64) + cell_px * (side + 1) - 1 + OFF_WHOLE_PX
    centre, half = (low + high) / 2, (high - low) / 2 * side / (side + 2)
    return np.concatenate([centre - half, centre + half], axis=-1)
