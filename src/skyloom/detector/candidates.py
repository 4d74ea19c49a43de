"""What a detector sees before any threshold, and the choice of detections from it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import batched_nms

from skyloom.errors import ConfigError

MASK_THRESHOLD = 0.5  # probability from which a pixel belongs to an object


@dataclass(frozen=True)
class Candidates:
    """The candidates of one image: pairs of a box and a class, in any order, overlapping as they like.

    A detection is a candidate that was chosen, so `select` returns this type too.

    Attributes
    ----------
    size_px
        Height and width of the image.
    boxes
        float32 (m, 4), x0, y0, x1, y1 in pixels; pixel i spans i to i + 1. Within the image.
    scores
        float32 (m,), probability of the class, 0-1.
    labels
        int64 (m,), classes from 0.
    masks
        float16 or float32 (m, h, w), 0-1: probability of the object on a grid laid over `mask_boxes`.
    mask_boxes
        float32 (m, 4), where each mask lies in the image: its box, or the whole image.
    centroids
        float32 (m, 2), x and y in pixels, the centre of the first pixel being 0; None where the detector finds none.
    """

    size_px: tuple[int, int]
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor
    mask_boxes: Tensor
    centroids: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Tensor) -> "Candidates":
        """The candidates at row numbers or where a Boolean (m,) is true."""
        return self._each(lambda values: values[rows])

    def to(self, device: torch.device | str) -> "Candidates":
        """The same on a device."""
        return self._each(lambda values: values.to(device))

    def pasted(self) -> Tensor:
        """Masks in the image, bool (m, height, width): pixels whose probability is at least 0.5."""
        height, width = self.size_px
        if not len(self):
            return torch.zeros(0, height, width, dtype=torch.bool, device=self.boxes.device)
        probability = paste_masks_in_image(self.masks[:, None].float(), self.mask_boxes, (height, width))
        return probability[:, 0] >= MASK_THRESHOLD

    def _each(self, change) -> "Candidates":  # type: ignore[no-untyped-def]
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Candidates(**{k: change(v) if isinstance(v, Tensor) else v for k, v in values.items()})


def select(
    raw: Sequence[Candidates], *, score: float, nms: float, top_k: int, across_classes: bool = False
) -> list[Candidates]:
    """Choose detections: those above a score that no better one of their class overlaps.

    Greedy non-maximum suppression: a candidate never decides about a better one, so that the choice at a high score
    is the choice at a low one without the rest.

    Parameters
    ----------
    raw
        Candidates of each image.
    score
        Least score, 0-1.
    nms
        Largest intersection over union of the boxes of two detections, 0-1; 1 suppresses nothing.
    top_k
        Most detections of an image; the best are kept.
    across_classes
        Whether a candidate is also suppressed by a better one of another class.

    Returns
    -------
    list of Candidates
        For each image its detections, best first.

    Raises
    ------
    ConfigError
        A threshold is outside 0-1, or top_k below 1.
    """
    if not (0 <= score <= 1 and 0 <= nms <= 1 and top_k >= 1):
        raise ConfigError(f"expected score and nms from 0 to 1 and top_k >= 1, found {score}, {nms} and {top_k}")
    chosen = []
    for found in raw:
        found = found[found.scores >= score]
        groups = torch.zeros_like(found.labels) if across_classes else found.labels
        chosen.append(found[batched_nms(found.boxes.float(), found.scores.float(), groups, nms)[:top_k]])
    return chosen
