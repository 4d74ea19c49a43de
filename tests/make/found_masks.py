"""Random objects in images, and detections of them: some right, some shifted, some false, some missed."""

import numpy as np

from skyloom.sky.mask.rle import encode

COLUMNS = ("boxes", "labels", "rle", "scores", "mag", "snr")


def random_objects(rng, number, *, size_px=64, classes=2, biggest_px=12):
    """Speckled rectangles with their boxes, labels, run lengths and a magnitude that falls with the area."""
    masks = np.zeros((number, size_px, size_px), dtype=bool)
    for mask in masks:
        height, width = rng.integers(2, biggest_px + 1, 2)
        row, col = rng.integers(0, size_px - biggest_px, 2)
        mask[row : row + height, col : col + width] = rng.random((height, width)) < 0.9
        mask[row, col] = True
    return described(masks, rng.integers(0, classes, number))


def described(masks, labels):
    """Masks (n, H, W) and labels (n,) as objects."""
    boxes = np.zeros((len(masks), 4))
    for box, mask in zip(boxes, masks, strict=True):
        rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box[:] = cols[0], rows[0], cols[-1] + 1, rows[-1] + 1
    mag = 27 - 2.5 * np.log10(np.maximum(masks.sum((1, 2)), 1.0))
    return {"boxes": boxes, "labels": np.asarray(labels), "rle": [encode(m) for m in masks], "mag": mag, "masks": masks}


def random_detections(rng, truth, *, missed=0.2, false=10, wrong_class=0.1, classes=2):
    """Truths shifted by up to two pixels and clipped, less those missed, and false ones, with random scores."""
    kept = np.flatnonzero(rng.random(len(truth["labels"])) >= missed)
    size_px = truth["masks"].shape[-1]
    shifted = [np.roll(truth["masks"][k], rng.integers(-2, 3, 2), (0, 1)) for k in kept]
    masks = np.array(shifted, dtype=bool).reshape(-1, size_px, size_px)
    labels = truth["labels"][kept].copy()
    wrong = rng.random(len(labels)) < wrong_class
    labels[wrong] = rng.integers(0, classes, wrong.sum())
    own = described(masks, labels)
    own = joined(own, random_objects(rng, false, size_px=size_px, classes=classes))
    return own | {"scores": np.round(rng.random(len(own["labels"])), 2)}


def joined(*several):
    """Objects of one image after each other."""
    return {
        name: [text for one in several for text in one[name]]
        if name == "rle"
        else np.concatenate([o[name] for o in several])
        for name in several[0]
    }


def only(objects, *names):
    """Objects without the masks that they were made from."""
    return {name: value for name, value in objects.items() if name in (names or COLUMNS)}
