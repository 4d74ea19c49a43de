"""The proposal network: boxes that may hold an object, from anchors on every map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms

from skyloom.detector.boxes import clip, decode, encode, smooth_l1, usable
from skyloom.detector.images import Images
from skyloom.detector.matching import best_matches, sample
from skyloom.detector.options import RpnOptions
from skyloom.detector.targets import Truth
from skyloom.errors import ConfigError

WEIGHTS = (1.0, 1.0)  # of the offsets of anchors


class Rpn(nn.Module):
    """Region proposal network (Ren et al. 2015, arXiv:1506.01497, section 3.1).

    Parameters
    ----------
    channels
        Width of the maps.
    strides
        Image pixels per pixel of each map.
    options
        Anchors, matching, and how many boxes are learnt from and kept.

    Raises
    ------
    ConfigError
        There is not one anchor size for each map.
    """

    def __init__(self, channels: int, strides: Sequence[float], options: RpnOptions) -> None:
        super().__init__()
        if len(options.anchor_sizes_px) != len(strides):
            raise ConfigError(
                f"detector.rpn.anchor_sizes_px has {len(options.anchor_sizes_px)} sizes, but the pyramid has "
                f"{len(strides)} maps of strides {', '.join(f'{s:g}' for s in strides)} px; give one size for each"
            )
        self.options, self.strides = options, list(strides)
        self.head = RPNHead(channels, len(options.anchor_ratios), conv_depth=options.convs)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Judge every anchor.

        Returns
        -------
        tuple of lists, one entry for each map
            Logits float32 (B, m) that an anchor holds an object, offsets float32 (B, m, 4), and anchors (m, 4) in px.
        """
        scores, offsets = self.head(list(maps))
        logits = [score.permute(0, 2, 3, 1).flatten(1).float() for score in scores]
        moved = [o.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3).float() for o in offsets]
        return logits, moved, self.anchors(maps)

    def anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors of each map, float32 (H W ratios, 4), px; a ratio is height over width."""
        found, device = [], maps[0].device
        root = torch.tensor(self.options.anchor_ratios, device=device).sqrt()
        for values, size, stride in zip(maps, self.options.anchor_sizes_px, self.strides, strict=True):
            half = torch.stack([size / root, size * root], dim=1) / 2
            cell = torch.cat([-half, half], dim=1)
            cell = cell.round() if self.options.anchors_rounded else cell
            y, x = (torch.arange(side, device=device) * stride for side in values.shape[-2:])
            shift = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
            found.append((shift.repeat(1, 1, 2)[:, :, None] + cell).reshape(-1, 4))
        return found

    @torch.no_grad()
    def propose(
        self,
        logits: Sequence[Tensor],
        offsets: Sequence[Tensor],
        anchors: Sequence[Tensor],
        images: Images,
        *,
        training: bool,
    ) -> list[Tensor]:
        """Boxes of each image, best first, float32 (m, 4), px, within the image.

        The best of each map are decoded, cut at the edges, and thinned by non-maximum suppression within their map.
        """
        own = self.options
        most, kept = (
            (own.candidates_train, own.proposals_train) if training else (own.candidates_test, own.proposals_test)
        )
        scores, boxes, numbers = [], [], []
        for number, (logit, offset, anchor) in enumerate(zip(logits, offsets, anchors, strict=True)):
            best, index = logit.topk(min(most, logit.shape[1]), dim=1)
            scores.append(best)
            boxes.append(decode(anchor[index], offset.gather(1, index[..., None].expand(-1, -1, 4)), WEIGHTS))
            numbers.append(torch.full_like(index[0], number))
        score, level = torch.cat(scores, dim=1), torch.cat(numbers)
        box = clip(torch.cat(boxes, dim=1), images.sizes_px[:, None])
        good = usable(box) & torch.isfinite(score)
        found = []
        for row in range(len(images)):
            own_box, own_score = box[row, good[row]], score[row, good[row]]
            found.append(own_box[batched_nms(own_box, own_score, level[good[row]], own.nms)[:kept]])
        return found

    def losses(
        self, logits: Sequence[Tensor], offsets: Sequence[Tensor], anchors: Sequence[Tensor], truth: Truth
    ) -> dict[str, Tensor]:
        """Loss of the judgement (binary cross-entropy) and of the offsets (smooth L1) over sampled anchors.

        Both are sums divided by the number of samples asked for, so that an image with few anchors counts less.
        """
        logit, offset, boxes = torch.cat(list(logits), 1), torch.cat(list(offsets), 1), torch.cat(list(anchors))
        positive, negative, wanted = [], [], []
        for image in range(len(logit)):
            own = truth.of(image)
            rows, others, index = self._sampled(own, boxes)
            positive.append(rows + image * len(boxes))
            negative.append(others + image * len(boxes))
            wanted.append(encode(boxes[rows], own[index[rows]], WEIGHTS))
        good, bad = torch.cat(positive), torch.cat(negative)
        judged = logit.flatten()[torch.cat([good, bad])]
        is_object = torch.zeros_like(judged)
        is_object[: len(good)] = 1
        samples = self.options.samples * len(logit)
        judged_loss = functional.binary_cross_entropy_with_logits(judged, is_object, reduction="sum")
        moved_loss = smooth_l1(offset.flatten(0, 1)[good], torch.cat(wanted), self.options.smooth_l1_beta)
        return {"loss_rpn_cls": judged_loss / samples, "loss_rpn_loc": moved_loss / samples}

    @torch.no_grad()
    def _sampled(self, truth: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of anchors to learn from, with and without object, and the true object of each anchor."""
        own = self.options
        overlap, index, best_of_some = best_matches(truth, boxes, low_quality=True)
        positive = (overlap >= own.positive_iou) | best_of_some
        negative = (overlap < own.negative_iou) & ~best_of_some
        rows, others = sample(positive, negative, number=own.samples, positive_fraction=own.positive_fraction)
        return rows, others, index
