"""Mask2Former on the package transformers: a set of queries, each of which becomes one object with its mask."""

import logging
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from skyloom.detector.base import Detector, Target
from skyloom.detector.candidates import Candidates
from skyloom.detector.images import Images, normalised
from skyloom.detector.mask2former_masks import candidates
from skyloom.detector.mask2former_options import DecoderOptions, Rate, SetLossOptions, Swin
from skyloom.detector.options import Share
from skyloom.detector.targets import Truth, checked_truth
from skyloom.errors import ConfigError

log = logging.getLogger(__name__)

COARSEST_PX = 32  # stride of the last map of Swin
LOSSES = {"loss_cross_entropy": "loss_class", "loss_mask": "loss_mask", "loss_dice": "loss_dice"}


class Mask2former(Detector):
    """Masked-attention mask transformer (Cheng et al. 2022, arXiv:2112.01527) with Swin, for instances.

    No anchors, no proposals and no suppression: each query gives at most one object, and in training the objects of an
    image are given to queries one to one (Hungarian algorithm). The network and its loss are those of transformers.

    Parameters
    ----------
    in_chans, classes
        Channels of an image, and number of classes without the background.
    network
        ``swin_t``, ``swin_s``, ``swin_b``, ``swin_l``, or the numbers of another Swin.
    queries
        Most objects that an image can have.
    drop_path
        Residual branches of Swin that are dropped at the last block, 0-1, less before.
    decoder, loss
        Options of the parts; ``conf/detector/mask2former.yaml`` says what each is for.
    weights
        Folder of transformers to start from; None: random weights.
    softening_sigma, enlarge
        Of the pixels that the network sees, see :func:`skyloom.detector.images.normalised`.
    mask_side_px
        Most cells along a side of a mask that is handed on.
    score_floor
        Least score of a candidate, 0-1.
    top_k
        Most candidates of an image; the best are kept.

    Raises
    ------
    ConfigError
        The package transformers is not there.
    InputError
        ``weights`` is no folder of a Mask2Former of these sizes.
    """

    needs_backbone: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_chans: int,
        classes: int,
        network: Swin,
        queries: PositiveInt,
        drop_path: Rate,
        decoder: DecoderOptions,
        loss: SetLossOptions,
        weights: str | None,
        softening_sigma: PositiveFloat | None,
        enlarge: PositiveInt,
        mask_side_px: PositiveInt,
        score_floor: Share,
        top_k: PositiveInt,
    ) -> None:
        super().__init__()
        self.in_chans, self.classes, self.queries = in_chans, classes, queries
        self.softening_sigma, self.enlarge = softening_sigma, enlarge
        self.mask_side_px, self.score_floor, self.top_k = mask_side_px, score_floor, top_k
        self.register_buffer("mean", torch.zeros(in_chans))
        self.register_buffer("std", torch.ones(in_chans))
        theirs = _theirs()
        config = theirs.configuration(
            in_chans=in_chans, classes=classes, queries=queries, swin=network, drop_path=drop_path, decoder=decoder,
            loss=loss,
        )  # fmt: skip
        self.network: Any = theirs.build(config, weights)
        self._said = False

    def losses(self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return ``loss_class``, ``loss_mask`` and ``loss_dice``, summed over all layers; see :class:`Detector`."""
        batch = self._images(images)
        truth = checked_truth(targets, batch, classes=self.classes, masks=True, centroids=False)
        self._warn(truth)
        seen = self.network(pixel_values=batch.pixels, output_auxiliary_logits=True)
        with torch.autocast(batch.pixels.device.type, enabled=False):
            each = self.network.criterion(
                seen.masks_queries_logits.float(),
                seen.class_queries_logits.float(),
                self._padded_masks(truth, batch),
                list(truth.labels.split(truth.counts)),
                [{key: value.float() for key, value in layer.items()} for layer in seen.auxiliary_logits],
            )
        weights = self.network.weight_dict
        return {
            name: weights[key] * torch.stack([value for other, value in each.items() if other.startswith(key)]).sum()
            for key, name in LOSSES.items()
        }

    @torch.no_grad()
    def raw(self, images: Sequence[Tensor] | Tensor) -> list[Candidates]:
        """Return the pairs of a query and a class with ``score_floor`` or more; see :class:`Detector`.

        The score is the probability of the class times the mean probability of the pixels of the mask. The box is the
        smallest around the pixels with 0.5 or more; a query without such a pixel gives no candidate.
        """
        sizes = [tuple(image.shape[-2:]) for image in images]
        if not sizes:
            self._images(images)  # says so
        found: dict[int, Candidates] = {}
        # Images of one size at a time: attention would also look at the margin that makes others equally large.
        for size in dict.fromkeys(sizes):
            rows = [row for row, other in enumerate(sizes) if other == size]
            batch = self._images(torch.stack([images[row] for row in rows]))
            seen = self.network(pixel_values=batch.pixels)
            for row, logits, masks in zip(rows, seen.class_queries_logits, seen.masks_queries_logits, strict=True):
                found[row] = candidates(
                    logits.float(),
                    masks.float(),
                    size_px=(int(size[0]), int(size[1])),
                    padded_px=self._padded_px(batch),
                    score_floor=self.score_floor,
                    top_k=self.top_k,
                    most_px=self.mask_side_px,
                )
        return [found[row] for row in range(len(sizes))]

    def parts(self) -> dict[str, Sequence[nn.Module]]:
        """Return Swin, and everything behind it; see :class:`Detector`."""
        inner = self.network.model
        heads = [inner.pixel_level_module.decoder, inner.transformer_module, self.network.class_predictor]
        return {"backbone": [inner.pixel_level_module.encoder], "heads": heads}

    def _images(self, images: Sequence[Tensor] | Tensor) -> Images:
        return normalised(
            images,
            mean=self.mean,
            std=self.std,
            multiple_px=math.lcm(COARSEST_PX, self.enlarge) // self.enlarge,
            pad_to_px=None,
            softening_sigma=self.softening_sigma,
            enlarge=self.enlarge,
        )

    def _padded_px(self, batch: Images) -> tuple[int, int]:
        return batch.pixels.shape[-2] // self.enlarge, batch.pixels.shape[-1] // self.enlarge

    def _padded_masks(self, truth: Truth, batch: Images) -> list[Tensor]:
        assert truth.masks is not None
        height, width = self._padded_px(batch)
        margins = [(0, width - masks.shape[2], 0, height - masks.shape[1]) for masks in truth.masks]
        return [functional.pad(masks.float(), margin) for masks, margin in zip(truth.masks, margins, strict=True)]

    def _warn(self, truth: Truth) -> None:
        most = max(truth.counts)
        if most > self.queries and not self._said:
            self._said = True
            log.warning(
                "an image has %d objects, but detector.queries=%d: the rest is learnt as background; raise it",
                most, self.queries,
            )  # fmt: skip


def _theirs() -> Any:
    try:
        from skyloom.detector import mask2former_network
    except ImportError as error:
        raise ConfigError(
            f"detector=mask2former needs the package transformers ({str(error).splitlines()[0]}); install "
            "skyloom[detection], or set detector=cascade_mask_rcnn"
        ) from error
    return mask2former_network
