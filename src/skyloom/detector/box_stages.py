"""The stages that classify boxes and refine them, one behind the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead

from skyloom.detector.boxes import clip, decode, encode, smooth_l1, usable
from skyloom.detector.images import Images
from skyloom.detector.matching import best_matches, sample
from skyloom.detector.options import BoxOptions
from skyloom.detector.pooling import RoiPool
from skyloom.detector.pyramid import norm_layer
from skyloom.detector.targets import Truth


@dataclass(frozen=True)
class Regions:
    """Boxes of all images of a batch to learn from.

    Attributes
    ----------
    boxes
        float32 (n, 4), px.
    image
        Number of each box's image, int64 (n,).
    labels
        int64 (n,), classes from 0; the number of classes stands for the background.
    truth
        Row of each box's true object among those of the batch, int64 (n,); of no meaning for background.
    """

    boxes: Tensor
    image: Tensor
    labels: Tensor
    truth: Tensor

    def __getitem__(self, rows: Tensor) -> "Regions":
        return Regions(self.boxes[rows], self.image[rows], self.labels[rows], self.truth[rows])


class BoxPredictor(nn.Module):
    """Class scores, background last, and offsets of a box: one set, or one for each class."""

    def __init__(self, width: int, classes: int, *, class_agnostic: bool) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, classes + 1)
        self.bbox_pred = nn.Linear(width, 4 if class_agnostic else 4 * classes)
        for layer, spread in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (n, width) to logits float32 (n, classes + 1) and offsets float32 (n, 1 or classes, 4)."""
        return self.cls_score(features).float(), self.bbox_pred(features).float().unflatten(1, (-1, 4))


class BoxStages(nn.Module):
    """Cascade R-CNN (Cai & Vasconcelos 2018, arXiv:1712.00726); with one stage, Fast R-CNN (arXiv:1504.08083).

    Parameters
    ----------
    channels
        Width of the maps.
    classes
        Number of classes without the background.
    options
        Stages, samples and heads.
    pool
        Reads features inside boxes.
    """

    def __init__(self, channels: int, classes: int, options: BoxOptions, pool: RoiPool) -> None:
        super().__init__()
        self.options, self.classes, self._pool = options, classes, pool
        convs, norm = [options.channels] * options.convs, norm_layer(options.norm)
        shape = (channels, options.resolution, options.resolution)
        self.heads = nn.ModuleList(FastRCNNConvFCHead(shape, convs, options.fc, norm) for _ in options.ious)
        self.predictors = nn.ModuleList(
            BoxPredictor(options.fc[-1], classes, class_agnostic=options.class_agnostic) for _ in options.ious
        )
        for layer in self.heads.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)

    @property
    def weights(self) -> list[tuple[float, float]]:
        """Weights of the offsets of each stage."""
        return [(shift, size) for shift, size in self.options.weights]

    def losses(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], images: Images, truth: Truth
    ) -> tuple[dict[str, Tensor], Regions]:
        """Losses of every stage, and the sampled regions of the first one that hold an object."""
        regions = first = self._sampled(proposals, truth)
        found: dict[str, Tensor] = {}
        for stage, weights in enumerate(self.weights):
            if stage:
                regions = self._labelled(regions, truth, stage)
            logits, offsets = self._judged(maps, regions.boxes, regions.image, stage, scaled=True)
            found |= self._stage_losses(logits, offsets, regions, truth, stage)
            if stage + 1 < len(self.weights):
                moved = clip(decode(regions.boxes, offsets.detach()[:, 0], weights), images.sizes_px[regions.image])
                good = usable(moved)
                regions = Regions(moved, regions.image, regions.labels, regions.truth)[good]
        return found, first[first.labels < self.classes]

    def predict(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], images: Images
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine proposals.

        Returns
        -------
        tuple of Tensor
            Probability of each class, mean over the stages, float32 (n, classes); boxes of the last stage, float32
            (n, 1 or classes, 4), px; and number of each one's image, int64 (n,).
        """
        boxes, image = torch.cat(list(proposals)), _numbers(proposals)
        size_px, total = images.sizes_px[image], torch.zeros(len(boxes), self.classes, device=boxes.device)
        for stage, weights in enumerate(self.weights):
            logits, offsets = self._judged(maps, boxes, image, stage, scaled=False)
            total = total + functional.softmax(logits, dim=1)[:, : self.classes]
            moved = clip(decode(boxes[:, None], offsets, weights), size_px[:, None])
            boxes = moved[:, 0]
        return total / len(self.weights), moved, image

    def _judged(
        self, maps: Sequence[Tensor], boxes: Tensor, image: Tensor, stage: int, *, scaled: bool
    ) -> tuple[Tensor, Tensor]:
        features = self._pool(maps, boxes, image, self.options.resolution)
        if scaled and features.requires_grad and len(self.weights) > 1:
            # The stages add their losses, but share the maps: each gives its part of the gradient there.
            features.register_hook(lambda gradient: gradient / len(self.weights))
        logits, offsets = self.predictors[stage](self.heads[stage](features))
        return logits, offsets

    def _stage_losses(
        self, logits: Tensor, offsets: Tensor, regions: Regions, truth: Truth, stage: int
    ) -> dict[str, Tensor]:
        rows = (regions.labels < self.classes).nonzero()[:, 0]
        chosen = torch.zeros_like(rows) if self.options.class_agnostic else regions.labels[rows]
        wanted = encode(regions.boxes[rows], truth.boxes[regions.truth[rows]], self.weights[stage])
        number = max(len(logits), 1)
        return {
            f"loss_cls_stage{stage}": functional.cross_entropy(logits, regions.labels, reduction="sum") / number,
            f"loss_box_reg_stage{stage}": smooth_l1(offsets[rows, chosen], wanted, self.options.smooth_l1_beta)
            / number,
        }

    @torch.no_grad()
    def _sampled(self, proposals: Sequence[Tensor], truth: Truth) -> Regions:
        """Choose among proposals and true boxes those that the first stage learns from."""
        own, chosen = self.options, []
        for image, found in enumerate(proposals):
            objects = truth.of(image)
            boxes = torch.cat([found, objects])
            overlap, row, _ = best_matches(objects, boxes, low_quality=False)
            positive = overlap >= own.ious[0]
            rows = torch.cat(sample(positive, ~positive, number=own.samples, positive_fraction=own.positive_fraction))
            chosen.append(self._regions(boxes[rows], image, positive[rows], row[rows], truth))
        return _joined(chosen)

    @torch.no_grad()
    def _labelled(self, regions: Regions, truth: Truth, stage: int) -> Regions:
        """Give the boxes of a later stage their objects anew."""
        chosen = []
        for image in range(len(truth.counts)):
            boxes = regions.boxes[regions.image == image]
            overlap, row, _ = best_matches(truth.of(image), boxes, low_quality=False)
            chosen.append(self._regions(boxes, image, overlap >= self.options.ious[stage], row, truth))
        return _joined(chosen)

    def _regions(self, boxes: Tensor, image: int, positive: Tensor, row: Tensor, truth: Truth) -> Regions:
        row = row + truth.first[image]
        labels = torch.full_like(row, self.classes)
        if truth.counts[image]:
            labels = torch.where(positive, truth.labels[row], labels)
        return Regions(boxes, torch.full_like(row, image), labels, row)


def _numbers(proposals: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.full_like(found[:, 0], image, dtype=torch.int64) for image, found in enumerate(proposals)])


def _joined(parts: Sequence[Regions]) -> Regions:
    values = zip(*((part.boxes, part.image, part.labels, part.truth) for part in parts), strict=True)
    return Regions(*(torch.cat(column) for column in values))
