"""Average precision and recall as COCO defines them, in ranges of area or of another value, by faster-coco-eval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from faster_coco_eval.core import mask as run_lengths
from faster_coco_eval.core.coco import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from numpy.typing import NDArray

Kind = Literal["mask", "box"]
KINDS: tuple[Kind, ...] = ("mask", "box")
IOU_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALLS = np.linspace(0, 1, 101)
ALL = (-np.inf, np.inf)

Side = Mapping[str, Any]
"""n objects: ``image`` int64 (n,) row of the image, ``boxes`` float64 (n, 4) XYXY px, ``labels`` int64 (n,), ``rle`` n
run lengths (`skyloom.sky.mask.rle`), of detections ``scores`` float64 (n,), and columns (n,)."""


@dataclass(frozen=True)
class Curves:
    """What COCO's evaluation gives, NaN where a class has no truth in a range.

    Attributes
    ----------
    precision
        float64, shape (T, 101, K, A): precision at IoU threshold, recall of ``RECALLS``, class and range; made to fall
        with the recall.
    scores
        The same shape: the score down to which that recall is reached; 0 where it is not.
    recall
        float64, shape (T, K, A): share of the truths that are found by all detections.
    """

    precision: NDArray[np.float64]
    scores: NDArray[np.float64]
    recall: NDArray[np.float64]


def curves(
    kind: Kind,
    size_px: np.ndarray,
    truth: Side,
    found: Side,
    *,
    classes: int,
    max_detections: int,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    ranges: Sequence[tuple[float, float]] = (ALL,),
    values: tuple[np.ndarray, np.ndarray] | None = None,
) -> Curves:
    """Match detections with truths in every image and class, the best score first, and follow precision over recall.

    The definition is that of COCO (Lin et al. 2014, ECCV; pycocotools). In a range, truths outside it are neither found
    nor missed; detections of such truths, and detections outside it that find nothing, are not judged.

    Parameters
    ----------
    kind
        Whether masks or boxes overlap.
    size_px
        int64, shape (I, 2): height and width of each image.
    truth, found
        Their ``image`` is the row in ``size_px``.
    classes
        Number of classes K.
    max_detections
        The best so many of each image **and class** are judged.
    iou_thresholds
        T least intersections over union.
    ranges
        A closed intervals of the value.
    values
        float64, of the truths and of the detections: the value that ranges cut, as a magnitude; NaN is in no range but
        an infinite one. None: areas in px^2, of a truth that of its mask, of a detection that of what overlaps, its
        mask or its box, which is COCO's own habit.
    """
    sizes = np.asarray(size_px, dtype=np.int64).reshape(-1, 2)
    images = [{"id": row, "height": int(h), "width": int(w)} for row, (h, w) in enumerate(sizes)]
    if not images:
        nothing = np.full((len(iou_thresholds), len(RECALLS), classes, len(ranges)), np.nan)
        return Curves(nothing, nothing, nothing[:, 0])
    of_truth, of_found = values if values is not None else (mask_areas(truth, sizes), _areas(kind, found, sizes))
    whole = {"images": images, "categories": [{"id": label} for label in range(classes)]}
    sides = []
    for side, value in ((truth, of_truth), (found, of_found)):
        known = np.nan_to_num(np.asarray(value, dtype=np.float64), nan=-np.inf, neginf=-np.inf, posinf=np.inf)
        sides.append(COCO({**whole, "annotations": _annotations(kind, side, sizes, known)}))
    judge = COCOeval_faster(*sides, iouType="segm" if kind == "mask" else "bbox")
    judge.params.maxDets = [max_detections]
    judge.params.iouThrs = np.asarray(iou_thresholds, dtype=np.float64)
    judge.params.areaRng = [list(pair) for pair in ranges]
    judge.params.areaRngLbl = [str(number) for number in range(len(ranges))]
    judge.evaluate()
    judge.accumulate()
    absent = np.asarray(judge.eval["recall"])[..., 0] < 0
    precision, scores = (np.asarray(judge.eval[name], dtype=np.float64)[..., 0] for name in ("precision", "scores"))
    everywhere = np.broadcast_to(absent[:, None], precision.shape)
    return Curves(
        np.where(everywhere, np.nan, precision),
        np.where(everywhere, np.nan, scores),
        np.where(absent, np.nan, np.asarray(judge.eval["recall"], dtype=np.float64)[..., 0]),
    )


def mask_areas(side: Side, size_px: np.ndarray) -> NDArray[np.float64]:
    """Pixels in each mask, float64 (n,)."""
    # not by pycocotools 2.0.11, which cannot count more than 255 masks at once under numpy 2
    return np.asarray(run_lengths.area(_masks(side, size_px)), dtype=np.float64).reshape(-1)


def overlaps(kind: Kind, found: Side, truth: Side, size_px: np.ndarray) -> NDArray[np.float64]:
    """Intersection over union of all detections with all truths of one image, whatever their class.

    Parameters
    ----------
    kind
        Of masks or of boxes.
    found, truth
        m detections and n truths of the image.
    size_px
        Its height and width.

    Returns
    -------
    ndarray
        float64, shape (m, n).
    """
    n, m = len(truth["labels"]), len(found["labels"])
    if not (n and m):
        return np.zeros((m, n))
    if kind == "box":
        pair: list[Any] = [_sides(np.asarray(side["boxes"], dtype=np.float64)) for side in (found, truth)]
    else:
        size = [int(value) for value in size_px]
        pair = [[{"size": size, "counts": text.encode("ascii")} for text in side["rle"]] for side in (found, truth)]
    return np.asarray(run_lengths.iou(*pair, [0] * n), dtype=np.float64)


def _areas(kind: Kind, found: Side, sizes: np.ndarray) -> NDArray[np.float64]:
    if kind == "mask":
        return mask_areas(found, sizes)
    box = _sides(np.asarray(found["boxes"], dtype=np.float64))
    return np.asarray(box[:, 2] * box[:, 3])


def _annotations(kind: Kind, side: Side, sizes: np.ndarray, values: np.ndarray) -> list[dict[str, Any]]:
    """Objects as COCO writes them; ids start at 1, as 0 means unmatched."""
    n = len(side["labels"])
    columns: dict[str, Sequence[Any]] = {
        "id": range(1, n + 1),
        "image_id": np.asarray(side["image"]).tolist(),
        "category_id": np.asarray(side["labels"]).tolist(),
        "area": values.tolist(),
        "bbox": _sides(np.asarray(side["boxes"], dtype=np.float64)).tolist(),
        "iscrowd": [0] * n,
    }
    if kind == "mask":
        columns["segmentation"] = _masks(side, sizes)
    if "scores" in side:
        columns["score"] = np.asarray(side["scores"], dtype=np.float64).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _masks(side: Side, sizes: np.ndarray) -> list[dict[str, Any]]:
    shapes = np.asarray(sizes, dtype=np.int64).reshape(-1, 2).tolist()
    return [
        {"size": shapes[image], "counts": text.encode("ascii")}
        for image, text in zip(np.asarray(side["image"]).tolist(), side["rle"], strict=True)
    ]


def _sides(boxes: np.ndarray) -> NDArray[np.float64]:
    """XYXY to x, y, width, height."""
    boxes = boxes.reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
