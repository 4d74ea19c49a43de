"""With one stage and torchvision's conventions, the detector is torchvision's Mask R-CNN."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from make.rcnn import CHANNELS, CLASSES, scenes, tiny_rcnn
from skyloom.detector.candidates import select
from skyloom.errors import ConfigError

SIZES, RATIOS = (8, 16, 32, 64, 128), (0.5, 1.0, 2.0)
CONVENTIONS = {
    "rpn": {"anchors_rounded": True, "smooth_l1_beta": 1 / 9, "samples": 16, "nms": 0.7},
    "roi": {"aligned": False, "sampling_ratio": 2},
    "box": {"class_agnostic": False, "smooth_l1_beta": 1 / 9, "weights": [[10, 5]], "samples": 24, "norm": "none"},
    "mask": {"target_threshold": None, "norm": "none"},
    "centroid": {"enabled": False},
}
NAMES = {
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
    "loss_cls_stage0": "loss_classifier",
    "loss_box_reg_stage0": "loss_box_reg",
    "loss_mask": "loss_mask",
}


class Maps(nn.Module):
    out_channels = 8

    def __init__(self, detector):
        super().__init__()
        self.backbone, self.pyramid = detector.backbone, detector.pyramid

    def forward(self, images):
        return OrderedDict(zip("0123p", self.pyramid(self.backbone.forward_maps(images)), strict=True))


def of_torchvision(ours):
    """Torchvision's detector with the same weights; its background comes first, ours last."""
    peer = MaskRCNN(
        Maps(ours),
        min_size=64,
        max_size=64,
        image_mean=[0.0] * CHANNELS,
        image_std=[1.0] * CHANNELS,
        rpn_anchor_generator=AnchorGenerator(tuple((size,) for size in SIZES), (RATIOS,) * len(SIZES)),
        rpn_head=RPNHead(8, len(RATIOS)),
        rpn_pre_nms_top_n_train=60,
        rpn_pre_nms_top_n_test=40,
        rpn_post_nms_top_n_train=40,
        rpn_post_nms_top_n_test=20,
        rpn_batch_size_per_image=16,
        box_head=FastRCNNConvFCHead((8, 7, 7), [8], [16]),
        box_predictor=FastRCNNPredictor(16, CLASSES + 1),
        box_batch_size_per_image=24,
        mask_roi_pool=MultiScaleRoIAlign(list("0123"), 7, 2),
        mask_head=MaskRCNNHeads(8, [8], 1),
        mask_predictor=MaskRCNNPredictor(8, 8, CLASSES + 1),
    )
    peer.transform.torch_choice = lambda sizes: sizes[0]  # its choice of one size would draw from the random stream
    background_first = torch.tensor([CLASSES, *range(CLASSES)])
    peer.rpn.head.load_state_dict(ours.rpn.head.state_dict())
    heads = peer.roi_heads
    heads.box_head.load_state_dict(ours.box.heads[0].state_dict())
    heads.mask_head.load_state_dict(ours.mask.head.state_dict())
    with torch.no_grad():
        own = ours.box.predictors[0]
        for kind in ("weight", "bias"):
            getattr(heads.box_predictor.cls_score, kind).copy_(getattr(own.cls_score, kind)[background_first])
            getattr(heads.box_predictor.bbox_pred, kind)[4:].copy_(getattr(own.bbox_pred, kind))
            mine = getattr(ours.mask.predictor.mask_fcn_logits, kind)
            getattr(heads.mask_predictor.mask_fcn_logits, kind)[1:].copy_(mine)
    heads.mask_predictor.conv5_mask.load_state_dict(ours.mask.predictor.conv5_mask.state_dict())
    return peer


@pytest.fixture(scope="module")
def pair():
    ours = tiny_rcnn("mask_rcnn", **CONVENTIONS)
    return ours, of_torchvision(ours)


def test_losses_are_those_of_torchvision(pair):
    ours, peer = pair
    images, targets = scenes(5, 3, 0)
    theirs = [target | {"labels": target["labels"] + 1, "masks": target["masks"].byte()} for target in targets]
    peer.train(), ours.train()
    torch.manual_seed(3)
    found = ours.losses(images, targets)
    torch.manual_seed(3)
    wanted = peer(list(images), theirs)
    assert set(found) == set(NAMES)
    for name, value in found.items():
        assert value.item() == pytest.approx(wanted[NAMES[name]].item(), rel=1e-4), name
    assert all(value > 0 for value in found.values())


def test_detections_are_those_of_torchvision(pair):
    ours, peer = pair
    images, _ = scenes(5, 3)
    peer.eval(), ours.eval()
    wanted = peer(list(images))
    found = select(ours.raw(images), score=0.05, nms=0.5, top_k=100)
    for mine, theirs in zip(found, wanted, strict=True):
        assert len(mine) == len(theirs["scores"]) > 3
        torch.testing.assert_close(mine.scores, theirs["scores"])
        torch.testing.assert_close(mine.boxes, theirs["boxes"], rtol=1e-4, atol=1e-3)
        assert torch.equal(mine.labels, theirs["labels"] - 1)
        pasted = paste_masks_in_image(mine.masks[:, None], mine.mask_boxes, mine.size_px)
        torch.testing.assert_close(pasted, theirs["masks"].detach(), rtol=1e-3, atol=1e-3)


def test_more_than_one_stage_is_the_cascade():
    with pytest.raises(ConfigError, match="cascade_mask_rcnn"):
        tiny_rcnn("mask_rcnn", box={"ious": [0.5, 0.6], "weights": [[10, 5], [20, 10]]})
