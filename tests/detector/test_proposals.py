"""Anchors are torchvision's; proposals are inside their image and apart from each other."""

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from make.rcnn import scenes, tiny_rcnn
from skyloom.detector.images import normalised


def test_anchors_are_those_of_torchvision():
    rpn = tiny_rcnn(rpn={"anchors_rounded": True}).rpn
    maps = [torch.zeros(1, 8, 128 // s, 192 // s) for s in (4, 8, 16, 32, 64)]
    peer = AnchorGenerator(tuple((s,) for s in (8, 16, 32, 64, 128)), ((0.5, 1.0, 2.0),) * 5)
    wanted = peer(ImageList(torch.zeros(1, 3, 128, 192), [(128, 192)]), maps)[0]
    torch.testing.assert_close(torch.cat(rpn.anchors(maps)), wanted)


def test_proposals_are_inside_and_apart():
    detector = tiny_rcnn(rpn={"anchor_sizes_px": [8, 8, 8, 8, 8]})
    images, _ = scenes(3, 3)
    batch = normalised(images, mean=torch.zeros(2), std=torch.ones(2), multiple_px=32, pad_to_px=None)
    rpn = detector.rpn
    with torch.no_grad():
        judged = rpn(detector.pyramid(detector.backbone.forward_maps(batch.pixels)))
        one_map = [[part[0]] for part in judged]
        proposals = rpn.propose(*one_map, batch, training=False)
    for boxes in proposals:
        assert 3 < len(boxes) <= 20
        assert (boxes >= 0).all()
        assert (boxes <= 64).all()
        overlap = box_iou(boxes, boxes).fill_diagonal_(0)
        assert overlap.max() <= 0.3
