"""Masks as run lengths in the compressed text form of COCO: column by column, starting with the pixels outside."""

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

Shape = tuple[int, int]


def encode(mask: NDArray[np.bool_]) -> str:
    """Compressed run lengths of a mask of shape (H, W)."""
    return str(coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode("ascii"))


def encode_at(mask: NDArray[np.bool_], row0: int, col0: int, shape: Shape) -> str:
    """Compressed run lengths of a small mask in a large empty image, in a time that the large image hardly changes.

    Parameters
    ----------
    mask
        Shape (h, w).
    row0, col0
        Pixel of the image on which the mask's first pixel lies; the mask is inside the image.
    shape
        (H, W) of the image.

    Returns
    -------
    str
        As :func:`encode` gives for the whole image.
    """
    height, width = shape
    columns = np.zeros((mask.shape[1], height), bool)
    columns[:, row0 : row0 + mask.shape[0]] = mask.T
    flat = columns.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0] if flat[0] else [], changes, [flat.size] if flat[-1] else []]) + col0 * height
    runs = np.diff(np.concatenate([[0], edges, [height * width]])).astype(np.int64)
    if runs[-1] == 0:
        runs = runs[:-1]
    return str(coco.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)["counts"].decode())


def decode(counts: str, shape: Shape) -> NDArray[np.bool_]:
    """The mask of shape (H, W) that compressed run lengths stand for."""
    return np.asarray(coco.decode(_coco(counts, shape)), bool)


def area(counts: str, shape: Shape) -> int:
    """Number of pixels in the mask."""
    return int(coco.area(_coco(counts, shape)))


def box(counts: str, shape: Shape) -> tuple[float, float, float, float]:
    """Smallest box around the mask: x, y, width, height in pixels, pixel i from i to i + 1; all 0 if it is empty."""
    x, y, width, height = (float(value) for value in coco.toBbox(_coco(counts, shape)))
    return x, y, width, height


def _coco(counts: str, shape: Shape) -> dict[str, object]:
    return {"size": list(shape), "counts": counts.encode("ascii")}
