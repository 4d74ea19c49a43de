"""One window per connected source of an island mask (PyBDSF): finds the sources, and sizes and centres the windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.errors import InputError
from skyloom.sky.files.image import open_image
from skyloom.sky.window.placed import centred_start

STRIP_ROWS = 256


@dataclass(frozen=True)
class SizeRule:
    """Windows for sources of some extent.

    Attributes
    ----------
    up_to_px
        Largest extent (the longer side of the source's box) the rule is for; None: any.
    sizes
        Sides: a number of pixels (``256``), or a factor on the extent (``1.5x``, rounded down).
    """

    up_to_px: int | None
    sizes: tuple[int | str, ...]


@dataclass(frozen=True)
class Boxes:
    """Bounding boxes of sources, (N,) int64 each; `island` counts from 1 in the order of the first pixel."""

    island: NDArray[np.int64]
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    """One past the last row."""
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    """One past the last column."""

    def __len__(self) -> int:
        return len(self.island)

    @property
    def extent_px(self) -> NDArray[np.int64]:
        """Longer side of each box."""
        return np.maximum(self.bottom - self.top, self.right - self.left)


@dataclass(frozen=True)
class MaskWindows:
    """Windows around the sources of one mask, (N,) each, by island and then as the rule lists the sizes."""

    island: NDArray[np.int64]
    extent_px: NDArray[np.int64]
    size_rule: NDArray[np.str_]
    row0: NDArray[np.int64]
    col0: NDArray[np.int64]
    size_px: NDArray[np.int64]
    fits: NDArray[np.bool_]
    """Whether the image is large enough; places of others mean nothing."""
    repeated: NDArray[np.bool_]
    """Whether another element is the very same window."""


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read an island mask whole, as one byte per pixel.

    Parameters
    ----------
    path
        FITS image, 2-D or with leading axes of length 1, any type; pixels above 0 belong to a source.
    shape
        Rows and columns of the image that it belongs to.

    Raises
    ------
    InputError
        The mask is missing, damaged or of another shape.
    """
    if not path.exists():
        raise InputError(f"{path}: no such mask; download it, or leave this image out with on_bad_image=skip.")
    with open_image(path) as image:
        if image.shape != shape:
            raise InputError(
                f"{path}: expected a mask of {shape[0]} x {shape[1]} px as its image, found {image.shape[0]} x "
                f"{image.shape[1]} px; both must come from the same version of the survey."
            )
        mask = np.empty(shape, np.bool_)
        for row0 in range(0, shape[0], STRIP_ROWS):
            height = min(STRIP_ROWS, shape[0] - row0)
            np.greater(image.strip(row0, height), 0, out=mask[row0 : row0 + height])
    return mask


def find_sources(mask: NDArray[np.bool_], *, join_px: int = 0) -> Boxes:
    """Find the connected sources of a mask.

    Parameters
    ----------
    mask
        (H, W), True on sources.
    join_px
        Islands with at most this many pixels between them, along rows and along columns, are one source (the lobes
        of a double). 0: only pixels that touch, also at a corner, belong together.

    Returns
    -------
    Boxes
        Of the mask's own pixels.

    Notes
    -----
    A square of ``join_px + 1`` px makes islands grow together that have a gap of at most ``join_px``; the grown mask
    is labelled, and boxes are taken from the pixels that were there before.
    """
    grown = mask.view(np.uint8)
    if join_px:
        for axis in (0, 1):
            grown = ndimage.maximum_filter1d(grown, join_px + 1, axis=axis, mode="constant")
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(grown, structure=np.ones((3, 3), bool), output=labels)
    if join_px:
        del grown
        np.multiply(labels, mask, out=labels)
    found = [(i, box) for i, box in enumerate(ndimage.find_objects(labels), start=1) if box is not None]
    numbers = np.array([(i, rows.start, rows.stop, cols.start, cols.stop) for i, (rows, cols) in found], dtype=np.int64)
    return Boxes(*numbers.reshape(-1, 5).T)


def windows_around(boxes: Boxes, rules: Sequence[SizeRule], shape: tuple[int, int]) -> MaskWindows:
    """Size and centre square windows around sources.

    Parameters
    ----------
    boxes
        The sources.
    rules
        In ascending order of `up_to_px`, the last one None; the first that covers a source's extent is used.
    shape
        Rows and columns of the image.

    Returns
    -------
    MaskWindows
        Windows near the image's border are shifted inwards, not cut.
    """
    limits = np.array([np.inf if rule.up_to_px is None else rule.up_to_px for rule in rules])
    extent = boxes.extent_px
    rule_of = np.searchsorted(limits, extent, side="left")
    source = np.repeat(np.arange(len(boxes)), [len(rules[k].sizes) for k in rule_of])
    sizes = [
        (size, window_side(size, s)) for k, s in zip(rule_of, extent.tolist(), strict=True) for size in rules[k].sizes
    ]
    label = np.array([str(size) for size, _ in sizes], dtype=np.str_)
    size_px = np.array([side for _, side in sizes], dtype=np.int64)
    fits = size_px <= min(shape)
    room = np.where(fits, size_px, 1)
    row0 = centred_start((boxes.top + boxes.bottom - 1)[source] / 2, room, shape[0])
    col0 = centred_start((boxes.left + boxes.right - 1)[source] / 2, room, shape[1])
    relative = np.array([isinstance(size, str) for size, _ in sizes], dtype=bool)
    # Of equal windows the one of a fixed size stands, then that of the larger source, then the first.
    order = np.lexsort((np.arange(len(source)), -extent[source], relative, size_px, col0, row0, ~fits))
    place = np.stack([row0, col0, size_px, fits])[:, order]
    repeated = np.zeros(len(source), bool)
    repeated[order[1:]] = (place[:, 1:] == place[:, :-1]).all(axis=0) & fits[order[1:]]
    return MaskWindows(boxes.island[source], extent[source], label, row0, col0, size_px, fits, repeated)


def window_side(size: int | str, extent_px: int) -> int:
    """Side in pixels of a window of a `SizeRule` around a source of some extent; at least 1."""
    return max(1, int(float(size.removesuffix("x")) * extent_px + 1e-9)) if isinstance(size, str) else size
