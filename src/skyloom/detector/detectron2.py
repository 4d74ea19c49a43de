"""Cascade Mask R-CNN built from detectron2's own classes: what DeepDISC trains, under the contract of all detectors."""

import contextlib
import importlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skyloom.detector.base import Detector, Target
from skyloom.detector.candidates import Candidates
from skyloom.detector.images import Images, normalised
from skyloom.detector.options import BoxOptions, CentroidOptions, MaskOptions, PyramidOptions, RoiOptions, RpnOptions
from skyloom.detector.targets import checked_truth
from skyloom.errors import ConfigError, InputError

COARSEST_PX = 32  # stride of the last map of the network
NOISE = (  # what detectron2 0.6 calls that newer packages are going to drop, and means of nothing in its statistics
    ".*timm.models.layers.*", ".*torch.jit.*", ".*torch.meshgrid.*", ".*use_reentrant.*", ".*torch.cuda.amp.*",
    "Mean of empty slice", "invalid value encountered in.*divide", ".*pkg_resources.*",
)  # fmt: skip


class Detectron2(Detector):
    """Swin or ResNet, feature pyramid, proposals, box stages, masks and centroids of detectron2.

    The structure is that of detectron2's ``cascade_mask_rcnn_swin_*`` (projects/ViTDet): Cascade R-CNN (Cai &
    Vasconcelos 2018, arXiv:1712.00726) on Mask R-CNN (He et al. 2017, arXiv:1703.06870). Its names of weights are
    kept, so that its checkpoints fit: see :func:`skyloom.detector.checkpoint.load_checkpoint`. One stage gives Mask
    R-CNN.

    Parameters
    ----------
    in_chans, classes
        Channels of an image, and number of classes without the background.
    network
        ``swin_t``, ``swin_s``, ``swin_b``, ``swin_l``, ``resnet50`` or ``resnet101``.
    pyramid, rpn, roi, box, mask, centroid
        Options of the parts, those of :class:`skyloom.detector.rcnn.Rcnn`.
    score_floor
        Candidates have a higher score, 0-1.
    top_k
        Most candidates of an image; the best are kept.

    Raises
    ------
    ConfigError
        detectron2 is not there, or cannot do what an option asks for.
    """

    needs_backbone = False

    def __init__(
        self,
        *,
        in_chans: int,
        classes: int,
        network: str,
        pyramid: PyramidOptions,
        rpn: RpnOptions,
        roi: RoiOptions,
        box: BoxOptions,
        mask: MaskOptions,
        centroid: CentroidOptions,
        score_floor: float,
        top_k: int,
    ) -> None:
        super().__init__()
        _refuse("pyramid.map_norm", pyramid.map_norm, "auto")
        _refuse("rpn.anchors_rounded", rpn.anchors_rounded, False)
        _refuse("mask.target_threshold", mask.target_threshold, 0.5)
        self.in_chans, self.classes, self.pad_to_px = in_chans, classes, pyramid.pad_to_px
        self.register_buffer("mean", torch.zeros(in_chans))
        self.register_buffer("std", torch.ones(in_chans))
        self._with_centroids = centroid.enabled
        with quiet():
            parts = _detectron2("parts")
            self.backbone = parts.pyramid(network, in_chans, pyramid)
            self.proposal_generator = parts.proposals(pyramid.channels, rpn)
            pooled = parts.Pooled(pyramid.channels, roi)
            self.roi_heads = parts.heads(
                pooled, classes, box=box, mask=mask, centroid=centroid, score_floor=score_floor, top_k=top_k
            )

    def losses(self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the losses that detectron2 computes, under its names; see :class:`Detector`."""
        batch, forms = self._images(images), _detectron2("batch")
        checked_truth(targets, batch, classes=self.classes, masks=True, centroids=self._with_centroids)
        device = batch.pixels.device
        with self._training(True), quiet(), forms.EventStorage():
            truth = forms.instances(targets, batch.sizes, device=device, centroids=self._with_centroids)
            padded = forms.ImageList(batch.pixels, batch.sizes)
            maps = self.backbone(padded.tensor)
            try:
                proposals, losses = self.proposal_generator(padded, maps, truth)
            except FloatingPointError as error:
                raise InputError(
                    "detector=detectron2 gives boxes or scores that are not finite: the fit has diverged; lower "
                    "task.learning_rate or set trainer.gradient_clip_val"
                ) from error
            found: dict[str, Tensor] = losses | self.roi_heads(padded, maps, proposals, truth)[1]
        return {name + "_stage0" * (name in ("loss_cls", "loss_box_reg")): loss for name, loss in found.items()}

    @torch.no_grad()
    def raw(self, images: Sequence[Tensor] | Tensor) -> list[Candidates]:
        """Return every pair of a refined proposal and a class above ``score_floor``; see :class:`Detector`."""
        batch, forms = self._images(images), _detectron2("batch")
        with self._training(False), quiet():
            padded = forms.ImageList(batch.pixels, batch.sizes)
            maps = self.backbone(padded.tensor)
            found, _ = self.roi_heads(padded, maps, self.proposal_generator(padded, maps)[0])
        return [forms.candidates(one, size) for one, size in zip(found, batch.sizes, strict=True)]

    def parts(self) -> dict[str, Sequence[nn.Module]]:
        """Return the network, and everything behind it; see :class:`Detector`."""
        pyramid = [part for name, part in self.backbone.named_children() if name != "bottom_up"]
        return {"backbone": [self.backbone.bottom_up], "heads": [*pyramid, self.proposal_generator, self.roi_heads]}

    def _images(self, images: Sequence[Tensor] | Tensor) -> Images:
        return normalised(images, mean=self.mean, std=self.std, multiple_px=COARSEST_PX, pad_to_px=self.pad_to_px)

    @contextlib.contextmanager
    def _training(self, value: bool) -> Iterator[None]:
        """Let detectron2's parts compute losses or predictions, whatever the mode of drop-out and normalisation."""
        heads = self.roi_heads
        switches = [self.proposal_generator, heads, heads.mask_head]
        switches += [heads.keypoint_head] if self._with_centroids else []
        before = [part.training for part in switches]
        for part in switches:
            part.training = value
        try:
            yield
        finally:
            for part, old in zip(switches, before, strict=True):
                part.training = old


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings that detectron2 0.6 causes in newer packages and that nobody here can mend."""
    with warnings.catch_warnings():
        for words in NOISE:
            warnings.filterwarnings("ignore", words)
        yield


def _detectron2(module: str) -> Any:
    try:
        return importlib.import_module(f"skyloom.detector.detectron2_{module}")
    except ImportError as error:
        raise ConfigError(
            f"detector=detectron2 needs the package detectron2, which is not there ({str(error).splitlines()[0]}); "
            "build it as docs/detectors/detectron2.md says, or set detector=cascade_mask_rcnn, the same network"
        ) from error


def _refuse(option: str, value: object, only: object) -> None:
    if value != only:
        raise ConfigError(f"detector.{option}={value}: detectron2 knows only {only}; or set detector=cascade_mask_rcnn")
