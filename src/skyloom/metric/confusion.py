"""Which class detections give to the truths that they overlap, with those missed and those of nothing."""

import numpy as np
from numpy.typing import NDArray

from skyloom.metric.coco import Kind, overlaps
from skyloom.metric.detection_objects import split_objects
from skyloom.metric.detection_scores import DetectionScores


def matched(iou: np.ndarray, scores: np.ndarray, *, least_iou: float) -> NDArray[np.int64]:
    """Give each detection the free truth that it overlaps most, the best score first, whatever the classes.

    Parameters
    ----------
    iou
        Shape (m, n): detections by truths.
    scores
        Shape (m,).
    least_iou
        Of a match, above 0.

    Returns
    -------
    ndarray
        int64 (m,): the truth of each detection, -1 without one; no truth is given twice.
    """
    iou = np.array(iou, dtype=np.float64)
    partner = np.full(len(iou), -1, dtype=np.int64)
    if iou.size:
        for row in np.argsort(-np.asarray(scores), kind="stable"):
            best = int(iou[row].argmax())
            if iou[row, best] >= least_iou:
                partner[row] = best
                iou[:, best] = -1
    return partner


def confusion(scores: DetectionScores, *, kind: Kind, least_iou: float, least_score: float) -> NDArray[np.int64]:
    """Count pairs of a true and a given class over all images.

    Parameters
    ----------
    scores
        Truths and detections.
    kind
        Whether masks or boxes overlap.
    least_iou
        Of a match, above 0.
    least_score
        Detections below it are left out.

    Returns
    -------
    ndarray
        int64 (K + 1, K + 1): rows are true classes, the last one no truth; columns are given classes, the last one no
        detection. The corner is 0: nobody counts what neither is nor is found.
    """
    state = scores.state()
    nothing = len(scores.classes)
    table = np.zeros((nothing + 1, nothing + 1), dtype=np.int64)
    sides = (split_objects(state[name], len(scores)) for name in ("truth", "found"))
    for size_px, truth, found in zip(state["size_px"], *sides, strict=True):
        judged = found["scores"] >= least_score
        partner = matched(overlaps(kind, found, truth, size_px)[judged], found["scores"][judged], least_iou=least_iou)
        of_truth = np.append(truth["labels"], nothing)  # what -1 points at
        np.add.at(table, (of_truth[partner], found["labels"][judged]), 1)
        missed = np.setdiff1d(np.arange(len(truth["labels"])), partner)
        np.add.at(table, (truth["labels"][missed], nothing), 1)
    return table
