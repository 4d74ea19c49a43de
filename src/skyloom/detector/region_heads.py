"""What is found inside a box: the mask of the object, and its centroid on a heat map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import roi_align

from skyloom.detector.box_stages import Regions
from skyloom.detector.options import CentroidOptions, MaskOptions
from skyloom.detector.pyramid import norm_layer
from skyloom.detector.targets import Truth


class MaskHead(nn.Module):
    """Mask R-CNN's masks, one for each class (He et al. 2017, arXiv:1703.06870, section 3)."""

    def __init__(self, channels: int, classes: int, options: MaskOptions, *, aligned: bool) -> None:
        super().__init__()
        self.options, self._aligned = options, aligned
        self.head = MaskRCNNHeads(channels, [options.channels] * options.convs, 1, norm_layer(options.norm))
        self.predictor = MaskRCNNPredictor(options.channels, options.channels, classes)
        nn.init.zeros_(self.predictor.conv5_mask.bias)
        nn.init.normal_(self.predictor.mask_fcn_logits.weight, std=0.001)
        nn.init.zeros_(self.predictor.mask_fcn_logits.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, channels, r, r) to logits float32 (n, classes, 2 r, 2 r)."""
        return self.predictor(self.head(features)).float()

    def loss(self, features: Tensor, regions: Regions, truth: Truth) -> Tensor:
        """Mean binary cross-entropy of the masks of the true classes, on a grid over each box."""
        if not len(regions.boxes):
            return no_loss(self)
        logits = self(features)
        logits = logits[torch.arange(len(logits), device=logits.device), regions.labels]
        return functional.binary_cross_entropy_with_logits(logits, self.targets(regions, truth, logits.shape[-1]))

    @torch.no_grad()
    def targets(self, regions: Regions, truth: Truth, side: int) -> Tensor:
        """The true masks on grids over boxes, float32 (n, side, side)."""
        found = regions.boxes.new_empty(len(regions.boxes), side, side)
        assert truth.masks is not None, "checked_truth was not asked for masks"
        for image, masks in enumerate(truth.masks):
            rows = (regions.image == image).nonzero()[:, 0]
            if not len(rows):
                continue
            objects, place = (regions.truth[rows] - truth.first[image]).unique(return_inverse=True)
            boxes = torch.cat([place[:, None].to(regions.boxes), regions.boxes[rows]], dim=1)
            pixels = masks[objects, None].to(regions.boxes)
            found[rows] = roi_align(pixels, boxes, side, aligned=self._aligned)[:, 0]
        threshold = self.options.target_threshold
        return found if threshold is None else (found >= threshold).to(found)


class CentroidHead(nn.Module):
    """One point for each object, found as Mask R-CNN finds a keypoint (arXiv:1703.06870, section 5)."""

    def __init__(self, channels: int, options: CentroidOptions) -> None:
        super().__init__()
        self.options = options
        self.head = KeypointRCNNHeads(channels, [options.channels] * options.convs)
        self.predictor = KeypointRCNNPredictor(options.channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, channels, r, r) to logits of the cells of a box, float32 (n, 4 r, 4 r)."""
        return self.predictor(self.head(features)).float()[:, 0]

    def loss(self, features: Tensor, regions: Regions, truth: Truth) -> Tensor:
        """Mean cross-entropy over the cells, of the objects whose centroid lies in the box."""
        assert truth.centroids is not None, "checked_truth was not asked for centroids"
        side = features.shape[-1] * 4
        cell, inside = _cells(truth.centroids[regions.truth], regions.boxes, side)
        rows = inside.nonzero()[:, 0]
        if not len(rows):
            return no_loss(self)
        return functional.cross_entropy(self(features[rows]).flatten(1), cell[rows])


def _cells(points: Tensor, boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Cell of a grid over each box in which a point lies, int64 (n,), and whether it does; unknown points do not."""
    place = (points + 0.5 - boxes[:, :2]) / (boxes[:, 2:] - boxes[:, :2]) * side
    at_edge = points + 0.5 == boxes[:, 2:]
    place = torch.where(at_edge, torch.full_like(place, side - 1), place).floor()
    inside = ((place >= 0) & (place < side)).all(dim=1)
    cell = torch.where(inside[:, None], place, torch.zeros_like(place)).long()
    return cell[:, 1] * side + cell[:, 0], inside


def located(logits: Tensor, boxes: Tensor) -> Tensor:
    """The points of the highest cells, refined by the parabola through each and its neighbours.

    Parameters
    ----------
    logits
        float32 (n, side, side).
    boxes
        float32 (n, 4), px.

    Returns
    -------
    Tensor
        float32 (n, 2), x and y in px, the centre of the first pixel of the image being 0.
    """
    side = logits.shape[-1]
    best = logits.flatten(1).argmax(dim=1)
    y, x = torch.div(best, side, rounding_mode="floor"), best % side
    row = torch.arange(len(logits), device=logits.device)
    padded = functional.pad(logits[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    offsets = []
    for along_x in (True, False):
        before, after = (padded[row, y + 1 + (0 if along_x else d), x + 1 + (d if along_x else 0)] for d in (-1, 1))
        curve = before + after - 2 * logits[row, y, x]
        offsets.append(torch.where(curve < 0, 0.5 * (before - after) / curve, 0).clamp(-0.5, 0.5))
    place = torch.stack([x + 0.5 + offsets[0], y + 0.5 + offsets[1]], dim=1) / side
    return boxes[:, :2] + place * (boxes[:, 2:] - boxes[:, :2]) - 0.5


def no_loss(module: nn.Module) -> Tensor:
    """Zero that depends on every weight, so that processes that train together agree on what has a gradient."""
    return torch.stack([weight.sum() for weight in module.parameters()]).sum() * 0


def chunks(number: int, size: int) -> Sequence[slice]:
    """Cut rows into pieces of bounded memory."""
    return [slice(start, start + size) for start in range(0, number, size)]
