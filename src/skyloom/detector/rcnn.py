"""The R-CNN family: a backbone, a pyramid, proposals, box stages, masks and centroids behind the detector contract."""

import math
from collections.abc import Sequence

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from skyloom.backbone import Backbone
from skyloom.detector.base import Detector, Target
from skyloom.detector.box_stages import BoxStages
from skyloom.detector.boxes import usable
from skyloom.detector.candidates import Candidates
from skyloom.detector.images import Images, normalised
from skyloom.detector.options import BoxOptions, CentroidOptions, MaskOptions, PyramidOptions, RoiOptions, RpnOptions
from skyloom.detector.pooling import RoiPool
from skyloom.detector.proposals import Rpn
from skyloom.detector.pyramid import Pyramid, regularise
from skyloom.detector.region_heads import CentroidHead, MaskHead, chunks, located
from skyloom.detector.targets import checked_truth
from skyloom.detector.windows import shift_whole_windows
from skyloom.errors import ConfigError

REGIONS = 1024  # boxes whose masks are computed at a time: about 1 GB


class Rcnn(Detector):
    """Mask R-CNN with any number of box stages.

    Parameters
    ----------
    backbone
        Gives the maps; its ``in_chans`` must be those of the detector.
    in_chans
        Channels of an image.
    classes
        Number of classes without the background.
    pyramid, rpn, roi, box, mask, centroid
        Options of the parts; ``conf/detector`` says what each is for.
    softening_sigma, enlarge
        Of the pixels that the backbone sees, see :func:`skyloom.detector.images.normalised`.
    score_floor
        Least score of a candidate, 0-1.
    top_k
        Most candidates of an image; the best are kept.

    Raises
    ------
    ConfigError
        The parts do not fit together.
    """

    needs_backbone = True
    most_stages: int | None = None

    def __init__(
        self,
        *,
        backbone: Backbone,
        in_chans: int,
        classes: int,
        pyramid: PyramidOptions,
        rpn: RpnOptions,
        roi: RoiOptions,
        box: BoxOptions,
        mask: MaskOptions,
        centroid: CentroidOptions,
        softening_sigma: PositiveFloat | None,
        enlarge: PositiveInt,
        score_floor: float,
        top_k: int,
    ) -> None:
        super().__init__()
        if backbone.in_chans != in_chans:
            raise ConfigError(
                f"backbone.in_chans={backbone.in_chans}, but the images have {in_chans} channel(s); "
                f"set backbone.in_chans={in_chans}"
            )
        if self.most_stages is not None and len(box.ious) > self.most_stages:
            raise ConfigError(
                f"detector.box.ious has {len(box.ious)} stages, expected {self.most_stages} here; "
                "set detector=cascade_mask_rcnn for more"
            )
        self.in_chans, self.classes = in_chans, classes
        self.score_floor, self.top_k, self.pad_to_px = score_floor, top_k, pyramid.pad_to_px
        self.softening_sigma, self.enlarge = softening_sigma, enlarge
        self.register_buffer("mean", torch.zeros(in_chans))
        self.register_buffer("std", torch.ones(in_chans))
        backbone.accept_any_size()
        shift_whole_windows(backbone)
        regularise(backbone, drop_path=pyramid.drop_path, checkpointing=pyramid.checkpointing)
        self.backbone = backbone
        self.pyramid = Pyramid(backbone, pyramid)
        strides = [stride / enlarge for stride in self.pyramid.strides]
        self.pool = RoiPool(strides, roi)
        self.rpn = Rpn(pyramid.channels, strides, rpn)
        self.box = BoxStages(pyramid.channels, classes, box, self.pool)
        self.mask = MaskHead(pyramid.channels, classes, mask, aligned=roi.aligned)
        self.centroid = CentroidHead(pyramid.channels, centroid) if centroid.enabled else None

    def losses(self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the parts of the loss under detectron2's names; see :class:`Detector`.

        ``loss_rpn_cls``, ``loss_rpn_loc``, of each stage ``loss_cls_stageN`` and ``loss_box_reg_stageN``, ``loss_mask``
        and, with centroids, ``loss_keypoint``.
        """
        batch = self._images(images)
        truth = checked_truth(targets, batch, classes=self.classes, masks=True, centroids=self.centroid is not None)
        maps = self.pyramid(self.backbone.forward_maps(batch.pixels))
        logits, offsets, anchors = self.rpn(maps)
        found = self.rpn.losses(logits, offsets, anchors, truth)
        proposals = self.rpn.propose(logits, offsets, anchors, batch, training=True)
        box_losses, regions = self.box.losses(maps, proposals, batch, truth)
        found |= box_losses
        features = self.pool(maps, regions.boxes, regions.image, self.mask.options.resolution)
        found["loss_mask"] = self.mask.loss(features, regions, truth)
        if self.centroid is not None:
            if self.centroid.options.resolution != self.mask.options.resolution:
                features = self.pool(maps, regions.boxes, regions.image, self.centroid.options.resolution)
            found["loss_keypoint"] = self.centroid.loss(features, regions, truth)
        return found

    @torch.no_grad()
    def raw(self, images: Sequence[Tensor] | Tensor) -> list[Candidates]:
        """Return the pairs of a refined proposal and a class with ``score_floor`` or more; see :class:`Detector`."""
        batch = self._images(images)
        maps = self.pyramid(self.backbone.forward_maps(batch.pixels))
        logits, offsets, anchors = self.rpn(maps)
        proposals = self.rpn.propose(logits, offsets, anchors, batch, training=False)
        scores, boxes, image = self.box.predict(maps, proposals, batch)
        row, label = self._chosen(scores, boxes, image, len(batch))
        found = boxes[row, label if boxes.shape[1] > 1 else 0]
        masks, centroids = self._inside(maps, found, image[row], row, label, shared=boxes.shape[1] == 1)
        each, candidates = image[row], []
        for number, size in enumerate(batch.sizes):
            mine = each == number
            candidates.append(
                Candidates(
                    size_px=size,
                    boxes=found[mine],
                    scores=scores[row[mine], label[mine]],
                    labels=label[mine],
                    masks=masks[mine],
                    mask_boxes=found[mine],
                    centroids=None if centroids is None else centroids[mine],
                )
            )
        return candidates

    def parts(self) -> dict[str, Sequence[nn.Module]]:
        """Return the backbone and the heads; see :class:`Detector`."""
        heads = [self.pyramid, self.rpn, self.box, self.mask]
        return {"backbone": [self.backbone], "heads": heads + ([] if self.centroid is None else [self.centroid])}

    def _images(self, images: Sequence[Tensor] | Tensor) -> Images:
        return normalised(
            images,
            mean=self.mean,
            std=self.std,
            multiple_px=math.lcm(self.pyramid.multiple_px, self.enlarge) // self.enlarge,
            pad_to_px=self.pad_to_px,
            softening_sigma=self.softening_sigma,
            enlarge=self.enlarge,
        )

    def _chosen(self, scores: Tensor, boxes: Tensor, image: Tensor, images: int) -> tuple[Tensor, Tensor]:
        """Rows and classes of the candidates."""
        good = usable(boxes) & torch.isfinite(scores) & (scores >= self.score_floor)
        row, label = good.nonzero(as_tuple=True)
        kept = []
        for number in range(images):
            own = (image[row] == number).nonzero()[:, 0]
            if len(own) > self.top_k:
                own = own[scores[row[own], label[own]].topk(self.top_k).indices]
            kept.append(own)
        rows = torch.cat(kept)
        return row[rows], label[rows]

    def _inside(
        self, maps: Sequence[Tensor], boxes: Tensor, image: Tensor, row: Tensor, label: Tensor, *, shared: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Masks and centroids of candidates; classes that share a box share the work."""
        if shared:
            _, place = row.unique(return_inverse=True)
            first = torch.empty(int(place.max()) + 1 if len(place) else 0, dtype=torch.int64, device=row.device)
            first[place] = torch.arange(len(row), device=row.device)
        else:
            place = first = torch.arange(len(row), device=row.device)
        resolution = self.mask.options.resolution
        masks, points = [boxes.new_zeros(0, self.classes, 2 * resolution, 2 * resolution)], [boxes.new_zeros(0, 2)]
        for piece in chunks(len(first), REGIONS):
            rows = first[piece]
            features = self.pool(maps, boxes[rows], image[rows], resolution)
            masks.append(self.mask(features).sigmoid())
            if self.centroid is not None:
                if self.centroid.options.resolution != resolution:
                    features = self.pool(maps, boxes[rows], image[rows], self.centroid.options.resolution)
                points.append(located(self.centroid(features), boxes[rows]))
        return torch.cat(masks)[place, label], None if self.centroid is None else torch.cat(points)[place]
