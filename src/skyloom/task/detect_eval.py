"""Validation of a detector: losses and scores over all images of all processes, whatever their batches."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pycocotools import mask as coco
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from skyloom.detector.base import Target
from skyloom.detector.candidates import Candidates
from skyloom.errors import InputError
from skyloom.metric.detection_scores import DetectionScores

MASKS_AT_ONCE = 64  # masks that are brought into an image at a time; 64 of 512 px are 67 MB


class Validation:
    """Collects what a process sees of the validation images, and puts together what all have seen.

    Parameters
    ----------
    classes
        Their names.
    areas
        Ranges of mask areas, px^2, by name; as in `skyloom.metric.detection_scores.DetectionScores`.
    max_detections
        Of each image.
    """

    def __init__(
        self, classes: Sequence[str], *, areas: Mapping[str, tuple[float, float]], max_detections: int
    ) -> None:
        self._scores = DetectionScores(classes, areas=areas, max_detections=max_detections)
        self._sums: dict[str, float] = {}
        self._measured = self._images = self._found = 0

    def add_losses(self, parts: Mapping[str, Tensor]) -> None:
        """Take the losses of one image."""
        self._measured += 1
        for name, value in {**parts, "loss": total(parts)}.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def add(self, image_id: int, target: Target, found: Candidates) -> None:
        """Take the truth and the detections of one image.

        Raises
        ------
        InputError
            The target has no masks.
        """
        if "masks" not in target:
            raise InputError("a target without masks cannot be judged; set datamodule.masks=true")
        self._images, self._found = self._images + 1, self._found + len(found)
        truth = {"boxes": _numbers(target["boxes"]), "labels": _numbers(target["labels"])}
        truth["rle"] = run_lengths(torch.as_tensor(target["masks"]))
        seen = {"boxes": _numbers(found.boxes.float()), "labels": _numbers(found.labels)}
        seen |= {"scores": _numbers(found.scores.float()), "rle": masks_of(found)}
        self._scores.add(image_id, found.size_px, truth, seen)

    def reduced(self) -> dict[str, float]:
        """Losses, means over images, and scores, over all processes; the same in each. All must call it.

        Rank 0 alone gets what the others have seen, and computes. What no truth allows to compute is left out.
        """
        mine = (self._scores.state(), self._sums, self._measured, self._images, self._found)
        states = _at_rank_0(mine)
        said = [None if states is None else _together(states)]
        if _several():
            torch.distributed.broadcast_object_list(said, src=0)
        assert said[0] is not None
        return said[0]


def total(parts: Mapping[str, Tensor]) -> Tensor:
    """Sum of the parts of a loss, in single precision."""
    return torch.stack([value.float() for value in parts.values()]).sum()


def masks_of(found: Candidates) -> list[str]:
    """Run lengths of the masks of detections in their image, few at a time."""
    texts: list[str] = []
    for start in range(0, len(found), MASKS_AT_ONCE):
        rows = torch.arange(start, min(start + MASKS_AT_ONCE, len(found)), device=found.scores.device)
        texts += run_lengths(found[rows].pasted())
    return texts


def run_lengths(masks: Tensor) -> list[str]:
    """Run lengths of masks, bool (n, H, W), in the compressed text form of COCO."""
    if not len(masks):
        return []
    columns = masks.to(torch.uint8).transpose(1, 2).contiguous().cpu().numpy().T  # (H, W, n), column by column
    return [str(code["counts"].decode("ascii")) for code in coco.encode(columns)]


def hold_buffers(model: Any, hold: bool) -> None:
    """Let the processes run through a different number of batches, or let them keep step again.

    DistributedDataParallel brings buffers into line at each forward pass; with unequal numbers of validation batches
    one process would wait for ever. They are brought into line once instead.
    """
    if isinstance(model, DistributedDataParallel):
        if hold:
            for buffer in model.module.buffers():
                torch.distributed.broadcast(buffer, src=0)
        model.require_forward_param_sync = not hold


def images_of(batch: Mapping[str, Any]) -> Tensor | list[Tensor]:
    """The images of a batch, without the margin that made them equally large."""
    images, sizes = batch["image"], batch["size_px"].tolist()
    if isinstance(images, Tensor) and all(list(images.shape[-2:]) == size for size in sizes):
        return images
    return [image[:, :height, :width] for image, (height, width) in zip(images, sizes, strict=True)]


def _numbers(values: Tensor) -> Any:
    return torch.as_tensor(values).detach().cpu().numpy()


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _at_rank_0(value: Any) -> list[Any] | None:
    """What each process gives, at rank 0; None elsewhere."""
    if not _several():
        return [value]
    first = torch.distributed.get_rank() == 0
    values: list[Any] | None = [None] * torch.distributed.get_world_size() if first else None
    torch.distributed.gather_object(value, values, dst=0)
    return values


def _together(states: Sequence[tuple[Any, dict[str, float], int, int, int]]) -> dict[str, float]:
    scores, sums, measured, images, found = zip(*states, strict=True)
    names = next((list(part) for part in sums if part), [])
    said = {name: sum(part.get(name, 0.0) for part in sums) / sum(measured) for name in names}
    said["found_per_image"] = sum(found) / max(sum(images), 1)
    judged = DetectionScores.merged(scores).compute()
    return said | {name: value for name, value in judged.items() if not math.isnan(value)}
