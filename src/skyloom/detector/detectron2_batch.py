"""Batches in detectron2's form: truth as its Instances, and its predictions as candidates."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import BitMasks, Boxes, ImageList, Instances, Keypoints
from detectron2.utils.events import EventStorage
from torch import Tensor

from skyloom.detector.base import Target
from skyloom.detector.candidates import Candidates

__all__ = ["EventStorage", "ImageList", "candidates", "instances"]

HALF_PX = 0.5  # detectron2 counts positions from the corner of the first pixel, we from its centre
VISIBLE = 2.0  # COCO's flag of a key point that is labelled and seen; 0: not labelled


def instances(
    targets: Sequence[Target], sizes_px: Sequence[tuple[int, int]], *, device: torch.device, centroids: bool
) -> list[Any]:
    """Return the truth of each image; centroids, if wanted, as its only key point, those that are NaN unlabelled."""
    found = []
    for target, size_px in zip(targets, sizes_px, strict=True):
        values = {key: value.as_subclass(Tensor).to(device) for key, value in target.items() if key in _USED}
        one = Instances(size_px)
        one.gt_boxes = Boxes(values["boxes"].float().reshape(-1, 4))
        one.gt_classes = values["labels"].long()
        one.gt_masks = BitMasks(values["masks"])
        if centroids:
            points = values["centroids"].float().reshape(-1, 2) + HALF_PX
            known = torch.isfinite(points).all(dim=1, keepdim=True)
            one.gt_keypoints = Keypoints(torch.cat([points.where(known, 0), VISIBLE * known], dim=1)[:, None])
        found.append(one)
    return found


def candidates(found: Any, size_px: tuple[int, int]) -> Candidates:
    """Return the predictions of one image."""
    boxes = found.pred_boxes.tensor.float()
    return Candidates(
        size_px=size_px,
        boxes=boxes,
        scores=found.scores.float(),
        labels=found.pred_classes,
        masks=found.pred_masks[:, 0].float(),
        mask_boxes=boxes,
        centroids=found.pred_keypoints[:, 0, :2].float() - HALF_PX if found.has("pred_keypoints") else None,
    )


_USED = ("boxes", "labels", "masks", "centroids")
