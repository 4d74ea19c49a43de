"""Features inside boxes are those of torchvision's pooling over several maps."""

from collections import OrderedDict

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from skyloom.detector.options import RoiOptions
from skyloom.detector.pooling import RoiPool

STRIDES = [4.0, 8.0, 16.0, 32.0, 64.0]


@pytest.mark.parametrize("largest", [300, 60])
def test_features_are_those_of_torchvision(largest):
    stream = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, int(512 / s), int(512 / s), generator=stream) for s in STRIDES]
    corner = torch.rand(30, 2, generator=stream) * 200
    boxes = torch.cat([corner, corner + 5 + torch.rand(30, 2, generator=stream) * largest], dim=1)
    pool = RoiPool(STRIDES, RoiOptions(aligned=False, sampling_ratio=2, canonical_size_px=224))
    assert pool.levels(boxes).unique().numel() == (3 if largest == 300 else 1)
    image = (torch.arange(30) >= 12).long()
    peer = MultiScaleRoIAlign(list("0123"), 7, 2)
    named = OrderedDict(zip("0123p", maps, strict=True))
    wanted = peer(named, [boxes[:12], boxes[12:]], [(512, 512)] * 2)
    torch.testing.assert_close(pool(maps, boxes, image, 7), wanted)


def test_no_box_no_feature():
    pool = RoiPool(STRIDES, RoiOptions(aligned=True, sampling_ratio=0, canonical_size_px=224))
    maps = [torch.zeros(1, 3, 8, 8) for _ in STRIDES]
    assert pool(maps, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 7).shape == (0, 3, 7, 7)
