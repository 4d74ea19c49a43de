"""A detector is its options and its seed; mistakes in options are named."""

import pytest
import torch

from make.rcnn import CHANNELS, tiny_options
from skyloom.backbone import build_backbone
from skyloom.detector.build import build_detector
from skyloom.errors import ConfigError


def build(options, *, seed=0):
    network = build_backbone("test_resnet", in_chans=CHANNELS)
    return build_detector(options, backbone=network, in_chans=CHANNELS, classes=2, seed=seed)


def test_heads_depend_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = build(tiny_options()).box.state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    two, other = build(tiny_options()).box.state_dict(), build(tiny_options(), seed=1).box.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "yolo"}, "detector=yolo is not known"),
        ({}, "expected detector.name"),
        (tiny_options() | {"scor_floor": 0.1}, "scor_floor.*Did you mean 'score_floor'"),
        (tiny_options(rpn={"nms": 1.5}), "rpn.nms=1.5: input should be less than or equal to 1"),
        (tiny_options(rpn={"negative_iou": 0.8}), "rpn.negative_iou=0.8 is above"),
        (tiny_options(box={"ious": [0.5]}), "box.ious has 1 stages and box.weights 3"),
        (tiny_options(box={"class_agnostic": False}), "needs one stage"),
        ({k: v for k, v in tiny_options().items() if k != "roi"}, "'roi' is missing"),
    ],
)
def test_a_mistake_in_the_options_is_named(options, words):
    with pytest.raises(ConfigError, match=words):
        build(options)


def test_a_detector_without_its_backbone_is_refused():
    with pytest.raises(ConfigError, match="needs a backbone"):
        build_detector(tiny_options(), backbone=None, in_chans=CHANNELS, classes=2, seed=0)
