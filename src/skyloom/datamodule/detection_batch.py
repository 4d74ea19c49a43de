"""Batches for a detector: images of one size or of several, and a dict of targets for each."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from skyloom.datamodule.cutouts import EpochSampler

TARGETS = ("boxes", "masks", "labels", "centroids", "truth", "off_image")
Batch = dict[str, Any]


class EpochItems(EpochSampler):
    """The order of `EpochSampler`, each number with its epoch, so that random changes depend on both alone."""

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        """Pairs of number and epoch."""
        return ((number, self.epoch) for number in super().__iter__())


def collated(samples: Sequence[dict[str, Any]], *, stacked: bool) -> Batch:
    """Put samples together.

    Parameters
    ----------
    samples
        As :class:`skyloom.datamodule.joint_sample.JointSamples` gives them.
    stacked
        Whether images become one tensor, with zeros at the right and the bottom of smaller ones.

    Returns
    -------
    dict
        ``image``: float32 (B, C, H, W) or a list of (C, H, W); ``id`` int64 (B,); ``size_px`` int64 (B, 2): height and
        width of each image before padding; ``targets``: for each image a dict of boxes, masks, labels, centroids,
        truth and off_image, in pixels of the image, which padding does not move.
    """
    images = [sample["image"] for sample in samples]
    return {
        "image": _stacked(images) if stacked else images,
        "id": torch.tensor([sample["id"] for sample in samples], dtype=torch.int64),
        "size_px": torch.tensor([image.shape[-2:] for image in images], dtype=torch.int64),
        "targets": [{key: sample[key] for key in TARGETS if key in sample} for sample in samples],
    }


def _stacked(images: Sequence[Tensor]) -> Tensor:
    height, width = (max(image.shape[axis] for image in images) for axis in (-2, -1))
    if all(image.shape[-2:] == (height, width) for image in images):
        return torch.stack(list(images))
    return torch.stack([functional.pad(i, (0, width - i.shape[-1], 0, height - i.shape[-2])) for i in images])
