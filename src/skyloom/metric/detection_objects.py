"""Truths or detections of images as plain columns: checked one image at a time, joined, and taken apart again."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from skyloom.errors import InputError

Objects = Mapping[str, Any]
"""``boxes`` (n, 4) XYXY px, ``labels`` (n,) from 0, ``rle`` n run lengths, of detections ``scores`` (n,), columns."""
OWN = ("boxes", "labels", "rle", "scores", "image")


def checked_objects(side: Objects, where: str, *, classes: int, scored: bool) -> dict[str, Any]:
    """The objects of one image as arrays: float64, the labels int64.

    Parameters
    ----------
    side
        The objects.
    where
        What they are, for messages.
    classes
        Number of classes; labels lie below.
    scored
        Whether there are scores.

    Raises
    ------
    InputError
        A column is missing or has another length, a label is out of range, a box or score is not finite.
    """
    if missing := [key for key in ("boxes", "labels", "rle", *(["scores"] * scored)) if key not in side]:
        raise InputError(f"{where}: expected boxes, labels, rle{' and scores' * scored}; no {', '.join(missing)}")
    known: dict[str, Any] = {"rle": list(side["rle"])}
    known |= {key: np.array(value, dtype=np.float64) for key, value in side.items() if key not in ("rle", "image")}
    n = len(known["rle"])
    if known["boxes"].shape != (n, 4) and known["boxes"].size + n:
        raise InputError(f"{where}: {n} masks but boxes of shape {known['boxes'].shape}; expected ({n}, 4)")
    known["boxes"] = known["boxes"].reshape(n, 4)
    if lengths := {key: len(value) for key, value in known.items() if len(value) != n}:
        raise InputError(f"{where}: {n} masks but other numbers of {', '.join(lengths)}; expected one each")
    if not (np.isin(known["labels"], np.arange(classes)).all() and np.isfinite(known["boxes"]).all()):
        raise InputError(f"{where}: expected labels from 0 to {classes - 1} and finite boxes")
    if scored and not np.isfinite(known["scores"]).all():
        raise InputError(f"{where}: a score is not finite")
    known["labels"] = known["labels"].astype(np.int64)
    return known


def joined_objects(images: Sequence[Objects], *, scored: bool) -> dict[str, Any]:
    """Objects of all images in one set of columns; ``image`` is the number of the image. A lacking column is NaN."""
    counts = [len(image["labels"]) for image in images]
    names = ["boxes", "labels", *(["scores"] * scored)]
    names += sorted({name for image in images for name in image} - {*OWN})
    empty = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, dtype=np.int64)}
    columns = {}
    for name in names:
        parts = [image.get(name, np.full(n, np.nan)) for image, n in zip(images, counts, strict=True)]
        columns[name] = np.concatenate([empty.get(name, np.zeros(0)), *parts])
    rle = [text for image in images for text in image["rle"]]
    return {"image": np.repeat(np.arange(len(images)), counts), "rle": rle, **columns}


def split_objects(joined: Objects, images: int) -> list[dict[str, Any]]:
    """The inverse of `joined_objects`: the objects of each image."""
    limits = np.searchsorted(joined["image"], np.arange(images + 1))
    return [
        {name: values[low:high] for name, values in joined.items() if name != "image"}
        for low, high in pairwise(limits.tolist())
    ]
