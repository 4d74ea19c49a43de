"""Images on which a page shows truths and detections: their pixels, the masks, and which detections are right."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from skyloom.errors import unknown_choice
from skyloom.metric.coco import overlaps
from skyloom.metric.confusion import matched
from skyloom.metric.detection_objects import Objects, split_objects
from skyloom.report.segmentation.numbers import CLASSES, MATCH_IOU, Judged
from skyloom.report.segmentation.truth import Truth
from skyloom.sky.mask.rle import decode


@dataclass(frozen=True)
class Seen:
    """What a catalogue found in an image: masks bool (m, H, W), right bool (m,), and the truths missed, bool (n,)."""

    masks: np.ndarray
    right: np.ndarray
    missed: np.ndarray


@dataclass(frozen=True)
class Example:
    """An image: pixels (H, W) of one band, truth bool (n, H, W), and what each catalogue found."""

    title: str
    pixels: np.ndarray
    truth: np.ndarray
    seen: dict[str, Seen]


def band_shown(truth: Truth, band: str | None) -> str:
    """The band of the pictures: the one asked for, that of the magnitudes, or the one in the middle.

    Raises
    ------
    ConfigError
        The images have no such band.
    """
    assert truth.index is not None
    bands = truth.index.bands
    if band is not None and band not in bands:
        raise unknown_choice("example_band", band, bands)
    return band or (truth.band if truth.band in bands else None) or bands[len(bands) // 2]


def drawn_examples(
    truth: Truth, catalogs: Mapping[str, Judged], rows: np.ndarray, *, number: int, band: str, rng: np.random.Generator
) -> list[Example]:
    """Some of the judged images that have objects, at random.

    Parameters
    ----------
    truth
        Images and objects; its pixels are read.
    catalogs
        By name.
    rows
        Rows of the images that were judged.
    number
        Most images.
    band
        That is drawn.
    rng
        Chooses.

    Returns
    -------
    list of Example
        In the order of the data set. A detection is shown from the operating score on, and is right if it overlaps a
        truth of any class by an IoU of 0.5, one-to-one.
    """
    assert truth.index is not None
    filled = np.array([row for row in rows if len(truth.data.objects(int(row)))], dtype=np.int64)
    chosen = np.sort(rng.choice(filled, min(number, len(filled)), replace=False)) if len(filled) else filled
    states = {name: one.scores[CLASSES].state() for name, one in catalogs.items()}
    split = {
        name: [split_objects(state[side], len(state["image_id"])) for side in ("truth", "found")]
        for name, state in states.items()
    }
    examples = []
    for row in chosen.tolist():
        id, shape = int(truth.data.cutout_id[row]), truth.data.shape(row)
        seen = {}
        for name, one in catalogs.items():
            at = int(np.searchsorted(states[name]["image_id"], id))
            own_truth, found = (side[at] for side in split[name])
            seen[name] = _seen(own_truth, found, shape, one.numbers["operating"]["score"])
        file_row = int(truth.index.rows_of(np.array([id]))[0])
        title = str(truth.data.images["file_name"][row]).removesuffix(".npy")
        pixels = truth.index.read(file_row, [band])[0]
        examples.append(Example(title, pixels, _masks(truth.data.objects(row)["rle"].to_list(), shape), seen))
    return examples


def _seen(truth: Objects, found: Objects, shape: tuple[int, int], least: float) -> Seen:
    sure = found["scores"] >= least
    iou = overlaps("mask", found, truth, np.asarray(shape))[sure]
    partner = matched(iou, found["scores"][sure], least_iou=MATCH_IOU)
    missed = np.ones(len(truth["labels"]), dtype=bool)
    missed[partner[partner >= 0]] = False
    texts = [text for text, one in zip(found["rle"], sure, strict=True) if one]
    return Seen(_masks(texts, shape), partner >= 0, missed)


def _masks(texts: list[str], shape: tuple[int, int]) -> np.ndarray:
    return np.stack([decode(text, shape) for text in texts]) if texts else np.zeros((0, *shape), dtype=bool)
