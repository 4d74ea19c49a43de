"""Outlines of masks as lists of x, y, x, y, …, in the two readings that are about, and back to masks."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

Polygons = Sequence[Sequence[float]]


def outlines(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Outlines of a mask (H, W), of its holes as well, through the centres of its outermost pixels.

    Those of cv2.findContours (Suzuki & Abe 1985, doi:10.1016/0734-189X(85)90016-7); straight runs have two points.
    :func:`fill_outlines` makes the same mask of them.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    return [[float(value) for value in contour.ravel()] for contour in found]


def fill_outlines(polygons: Polygons, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask (H, W) of outlines through the centres of pixels; what is within an odd number of outlines, or on one.

    Points may lie outside of the image; coordinates are rounded to whole pixels.
    """
    mask = np.zeros(shape, np.uint8)
    points = [np.rint(np.asarray(polygon, np.float64)).astype(np.int32).reshape(-1, 1, 2) for polygon in polygons]
    if points:
        cv2.fillPoly(mask, points, (1,))
    return mask.astype(bool)


def fill_coco(polygons: Polygons, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask (H, W) of what is within any of the polygons as pycocotools and detectron2 fill them.

    Coordinates are those of the edges of pixels there, so outlines of cv2 lose about half a pixel on their right and
    lower sides, thin ones vanish, and holes are filled. Polygons of fewer than three points are left out.
    """
    height, width = shape
    whole = [list(polygon) for polygon in polygons if len(polygon) >= 6]
    if not whole:
        return np.zeros(shape, bool)
    return np.asarray(coco.decode(coco.merge(coco.frPyObjects(whole, height, width))), bool)
