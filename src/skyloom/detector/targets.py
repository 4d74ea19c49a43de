"""True objects of a batch, checked and put one behind the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skyloom.detector.base import Target
from skyloom.detector.images import Images
from skyloom.errors import InputError

TOLERANCE_PX = 1e-2  # float32 rounds coordinates of a few thousand px to about 1e-4


@dataclass(frozen=True)
class Truth:
    """The objects of all images together.

    Attributes
    ----------
    boxes
        float32 (n, 4), px.
    labels
        int64 (n,), from 0.
    counts
        Objects of each image.
    first
        Row of the first object of each image.
    masks
        Of each image, bool (its n, its height, its width); None where they are not needed.
    centroids
        float32 (n, 2), px; NaN: unknown. None where they are not needed.
    """

    boxes: Tensor
    labels: Tensor
    counts: list[int]
    first: list[int]
    masks: list[Tensor] | None
    centroids: Tensor | None

    def of(self, image: int) -> Tensor:
        """Boxes of one image."""
        return self.boxes[self.first[image] : self.first[image] + self.counts[image]]


def checked_truth(targets: Sequence[Target], images: Images, *, classes: int, masks: bool, centroids: bool) -> Truth:
    """Check the targets of a batch.

    Parameters
    ----------
    targets
        As :meth:`skyloom.detector.base.Detector.losses` takes them.
    images
        The images that they belong to.
    classes
        Number of classes.
    masks, centroids
        What is needed besides boxes and labels.

    Raises
    ------
    InputError
        A key is missing; arrays do not belong together; a label is out of range; a box lies outside its image or has
        no area; a mask is empty or of another size.
    """
    if len(targets) != len(images):
        raise InputError(f"expected targets of {len(images)} images, found {len(targets)}; check the batch")
    device, faults = images.pixels.device, []
    for number, (target, (height, width)) in enumerate(zip(targets, images.sizes, strict=True)):
        _check_shapes(number, target, height, width, masks=masks, centroids=centroids)
        boxes, labels = target["boxes"].as_subclass(Tensor).to(device), target["labels"].to(device)
        if not len(boxes):
            continue
        limit = boxes.new_tensor([width, height]) + TOLERANCE_PX
        outside = (boxes[:, :2] < -TOLERANCE_PX).any(1) | (boxes[:, 2:] > limit).any(1)
        flat = ~((boxes[:, 2:] > boxes[:, :2]).all(1) & torch.isfinite(boxes).all(1))
        empty = ~_any(target["masks"]).to(device) if masks else torch.zeros_like(flat)
        found = torch.stack([outside, flat, (labels < 0) | (labels >= classes), empty])
        faults.append(torch.cat([found.any(1), found.int().argmax(1), found.new_full((1,), number, dtype=torch.int64)]))
    if faults:
        _refuse(torch.stack(faults).tolist(), targets, images, classes)
    counts = [len(target["labels"]) for target in targets]
    return Truth(
        boxes=_joined(targets, "boxes", (0, 4)).to(device, torch.float32),
        labels=_joined(targets, "labels", (0,)).to(device, torch.int64),
        counts=counts,
        first=[sum(counts[:number]) for number in range(len(counts))],
        masks=[target["masks"].as_subclass(Tensor).to(device) for target in targets] if masks else None,
        centroids=_joined(targets, "centroids", (0, 2)).to(device, torch.float32) if centroids else None,
    )


def _check_shapes(number: int, target: Target, height: int, width: int, *, masks: bool, centroids: bool) -> None:
    wanted: dict[str, tuple[int, ...]] = {"labels": (), "boxes": (4,)}
    wanted |= {"masks": (height, width)} if masks else {}
    wanted |= {"centroids": (2,)} if centroids else {}
    for key, shape in wanted.items():
        if key not in target:
            raise InputError(f"image {number} of the batch has no '{key}'; set datamodule.masks=true or give them")
        full = (len(target["labels"]), *shape)
        if tuple(target[key].shape) != full:
            raise InputError(
                f"image {number} of the batch: expected {key} of the shape {full}, found {tuple(target[key].shape)}; "
                f"the image has {height}x{width} px and {full[0]} labels"
            )


def _refuse(faults: list[list[int]], targets: Sequence[Target], images: Images, classes: int) -> None:
    for *values, number in faults:
        height, width = images.sizes[number]
        for kind, (bad, row) in enumerate(zip(values[:4], values[4:], strict=True)):
            if not bad:
                continue
            box = [round(float(value), 2) for value in targets[number]["boxes"][row]]
            text = (
                f"the box {box} lies outside the image of {width}x{height} px (width x height)",
                f"the box {box} has no area",
                f"label {int(targets[number]['labels'][row])} is not one of the {classes} classes, 0 to {classes - 1}",
                "its mask has no pixel",
            )[kind]
            raise InputError(
                f"image {number} of the batch, object {row}: {text}; correct the annotation or leave the object out"
            )


def _any(masks: Tensor) -> Tensor:
    return masks.as_subclass(Tensor).flatten(1).any(1)


def _joined(targets: Sequence[Target], key: str, empty: tuple[int, ...]) -> Tensor:
    values = [target[key].as_subclass(Tensor) for target in targets]
    return torch.cat([value.reshape(-1, *empty[1:]) for value in values])
