"""How well blended objects are taken apart: overlap of the masks, and fluxes, against the truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from skyloom.errors import InputError


def mask_ious(first: Sequence[str], second: Sequence[str], shapes: np.ndarray) -> NDArray[np.float64]:
    """Intersection over union of pairs of masks.

    Parameters
    ----------
    first, second
        Compressed COCO run lengths (see :mod:`skyloom.sky.mask.rle`), P each.
    shapes
        Height and width in pixels of the image of each pair, shape (P, 2).

    Returns
    -------
    ndarray
        float64, shape (P,); 0 for masks that do not touch, NaN if both are empty.

    Raises
    ------
    InputError
        There are not as many of each.
    """
    shapes = np.asarray(shapes).reshape(-1, 2)
    if not len(first) == len(second) == len(shapes):
        raise InputError(f"{len(first)} and {len(second)} masks of {len(shapes)} images; expected as many of each")
    result = np.full(len(first), np.nan)
    for i, (one, other, shape) in enumerate(zip(first, second, shapes.tolist(), strict=True)):
        pair = [[{"size": shape, "counts": counts.encode("ascii")}] for counts in (one, other)]
        if any(int(coco.area(mask)[0]) for mask in pair):
            result[i] = float(coco.iou(*pair, [0])[0, 0])
    return result


def flux_errors(true_flux: np.ndarray, flux: np.ndarray) -> NDArray[np.float64]:
    """Relative errors ``(flux - true_flux) / true_flux``, shape (N,), in one unit; NaN where the truth is not > 0."""
    true, measured = np.asarray(true_flux, dtype=np.float64), np.asarray(flux, dtype=np.float64)
    if true.shape != measured.shape:
        raise InputError(f"{true.size} true and {measured.size} measured fluxes; expected as many")
    with np.errstate(invalid="ignore"):
        positive = true > 0
    return np.divide(measured - true, true, out=np.full(true.shape, np.nan), where=positive)
