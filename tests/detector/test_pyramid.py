"""Maps of one width and of the strides that are promised, from networks with one scale and with several."""

import pytest
import torch
from timm.layers import DropPath

from make.rcnn import CHANNELS, tiny_options
from skyloom.backbone import build_backbone
from skyloom.detector.options import PyramidOptions
from skyloom.detector.pyramid import Pyramid, regularise

OPTIONS = PyramidOptions(**tiny_options()["pyramid"])


@pytest.mark.parametrize(("model", "plain"), [("test_resnet", False), ("test_vit", True)])
def test_maps_have_the_strides_that_are_promised(model, plain):
    network = build_backbone(model, in_chans=CHANNELS)
    pyramid = Pyramid(network, OPTIONS)
    assert pyramid.plain is plain
    assert pyramid.strides == [4, 8, 16, 32, 64]
    assert pyramid.multiple_px == 32
    maps = pyramid(network.forward_maps(torch.randn(2, CHANNELS, 64, 96)))
    assert [tuple(m.shape) for m in maps] == [(2, 8, 64 // s, -(-96 // s)) for s in (4, 8, 16, 32, 64)]


def test_a_patch_of_14_px_gives_fractions():
    network = build_backbone("vit_small_patch14_dinov2", in_chans=CHANNELS, image_size_px=56)
    pyramid = Pyramid(network, OPTIONS)
    assert pyramid.strides == [3.5, 7, 14, 28, 56]
    assert pyramid.multiple_px == 28


def test_drop_path_grows_with_depth():
    network = build_backbone("test_vit", in_chans=CHANNELS)
    before = set(network.state_dict())
    regularise(network, drop_path=0.4, checkpointing=True)
    rates = [m.drop_prob for m in network.modules() if isinstance(m, DropPath)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.4)
    assert set(network.state_dict()) == before
