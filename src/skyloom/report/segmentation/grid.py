"""Brings detections onto the grid in whose pixels the truth is given, image by image."""

from typing import Any

import numpy as np
import polars as pl

from skyloom.datamodule.candidate_table import BOX
from skyloom.datamodule.joint_grid import Frame, Placement, Same, placement
from skyloom.datamodule.joint_sample import moved_boxes
from skyloom.errors import InputError
from skyloom.report.segmentation.found import Found
from skyloom.report.segmentation.truth import Truth
from skyloom.sky.mask.rle import area, decode, encode

MASKS_AT_ONCE = 64  # masks that are moved together: 64 of 512 px are 17 MB


def objects_found(truth: Truth, row: int, found: Found, own: pl.DataFrame) -> tuple[dict[str, Any], int]:
    """The detections of an image as `skyloom.metric.detection_scores.DetectionScores` takes them.

    Parameters
    ----------
    truth
        Images and objects.
    row
        The image.
    found
        The catalogue.
    own
        Its rows in the image.

    Returns
    -------
    objects : dict
        boxes, labels, scores, rle, and mag and snr where the catalogue has magnitudes; in pixels of the truth's image.
    outside : int
        Detections that lie outside that image and are left out.

    Raises
    ------
    InputError
        The images are not the same size, and without world coordinates nobody can tell how they lie.
    """
    id, size = int(truth.data.cutout_id[row]), truth.data.shape(row)
    image = found.images.row(by_predicate=pl.col("cutout_id") == id, named=True)
    seen = (int(image["height_px"]), int(image["width_px"]))
    place = _placement(truth.frame(row), size, image["fits_header"], seen, f"cutout {id} of catalogs.{found.name}")
    boxes, texts = own.select(pl.col(BOX).cast(pl.Float64)).to_numpy(), own["rle"].to_list()
    kept = np.ones(len(own), dtype=bool)
    if not isinstance(place, Same):
        boxes, texts = moved_boxes(boxes, place), _moved(texts, seen, place)
        boxes[:, 0::2], boxes[:, 1::2] = boxes[:, 0::2].clip(0, size[1]), boxes[:, 1::2].clip(0, size[0])
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    rle = [text for text, inside in zip(texts, kept, strict=True) if inside]
    objects: dict[str, Any] = {
        "boxes": boxes[kept], "labels": own["class"].to_numpy()[kept].astype(np.int64),
        "scores": own["score"].to_numpy()[kept].astype(np.float64), "rle": rle,
    }  # fmt: skip
    if found.has_mag:
        areas = np.array([area(text, size) for text in rle], dtype=np.float64)
        mag = own["mag"].to_numpy()[kept]
        objects |= {"mag": mag, "snr": truth.snr(row, mag, areas)}
    return objects, int((~kept).sum())


def _placement(
    frame: Frame | None, size: tuple[int, int], cards: str | None, seen: tuple[int, int], where: str
) -> Placement:
    """The way from the image that a detector saw to that of the truth."""
    if frame is None or cards is None:
        if seen != size:
            raise InputError(
                f"{where} has {seen[0]}x{seen[1]} px, the image of the truth {size[0]}x{size[1]} px, and without a WCS "
                "nobody can tell how they lie; give a catalogue of the images that were annotated"
            )
        return Same()
    try:
        return placement((cards, seen), frame, combine="wcs", interpolation="linear", conserve_flux=False)
    except InputError as error:
        raise InputError(f"{where} and the image of the truth: {error}") from error


def _moved(texts: list[str], seen: tuple[int, int], place: Placement) -> list[str]:
    """Run lengths of masks on another grid."""
    made: list[str] = []
    for start in range(0, len(texts), MASKS_AT_ONCE):
        masks = np.stack([decode(text, seen) for text in texts[start : start + MASKS_AT_ONCE]])
        made += [encode(mask) for mask in place.masks(masks)]
    return made
