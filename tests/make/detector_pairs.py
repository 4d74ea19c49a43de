"""Small detectors from conf/detector, one of ours and one of detectron2, and a batch for both."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
import yaml

from skyloom.backbone import Backbone
from skyloom.detector.build import build_detector
from skyloom.detector.detectron2 import quiet

CONF = Path(__file__).resolve().parents[2] / "conf" / "detector"
CHANNELS, CLASSES = 4, 2
SWIN = (24, [2, 2, 2, 2], [1, 2, 4, 8])  # width, blocks and heads: a hundredth of Swin-T

needs_detectron2 = pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is None,
    reason="detectron2 is not installed; docs/detectors/detectron2.md says how to build it",
)


def options(name, *, stages=3, classes_share=True, **groups):
    """What conf/detector says, with parts of a few channels and few proposals."""
    found = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    small = {"channels": 16, "convs": 2}
    found["pyramid"] |= {"channels": 16, "drop_path": 0.0}
    found["rpn"] |= {"candidates_train": 60, "candidates_test": 40, "proposals_train": 40, "proposals_test": 15}
    found["box"] |= small | {"fc": [24], "samples": 24, "class_agnostic": classes_share}
    found["box"] |= {"ious": found["box"]["ious"][:stages], "weights": found["box"]["weights"][:stages]}
    found["mask"] |= small
    found["centroid"] |= small
    for group, values in groups.items():
        found[group] |= values
    return found


def ours(*, classes=CLASSES, in_chans=CHANNELS, name="cascade_mask_rcnn", seed=0, **change):
    name_in_timm, (width, blocks, heads) = "swin_tiny_patch4_window7_224", SWIN
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        small = {"embed_dim": width, "depths": blocks, "num_heads": heads}
        network = timm.create_model(name_in_timm, num_classes=0, in_chans=in_chans, **small)
    network = Backbone(network, name=name_in_timm, in_chans=in_chans)
    return build_detector(options(name, **change), backbone=network, in_chans=in_chans, classes=classes, seed=seed)


def theirs(*, classes=CLASSES, in_chans=CHANNELS, seed=0, network="tiny", **change):
    if network == "tiny" and importlib.util.find_spec("detectron2"):
        with quiet():
            from skyloom.detector import detectron2_parts
        detectron2_parts.SWIN["tiny"] = SWIN
    own = options("detectron2", **change) | {"network": network}
    return build_detector(own, backbone=None, in_chans=in_chans, classes=classes, seed=seed)


def shaken(detector, seed=1):
    """The same with weights that make scores, boxes and masks differ from place to place."""
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in detector.named_parameters():
            last = "predictor" in name or "cls_logits" in name or "objectness" in name
            values.add_(torch.randn(values.shape, generator=stream) * (0.1 if last else 0.02))
    return detector


def batch(height_px=64, width_px=90, objects=4, seed=0):
    """Two images of noise, the first with objects, the second without."""
    stream = torch.Generator().manual_seed(seed)
    corner = torch.rand(objects, 2, generator=stream) * 35
    boxes = torch.cat([corner, corner + 8 + 16 * torch.rand(objects, 2, generator=stream)], dim=1)
    masks = torch.zeros(objects, height_px, width_px, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    full = {
        "boxes": boxes,
        "labels": torch.arange(objects) % CLASSES,
        "masks": masks,
        "centroids": (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.3,  # in the middle they would lie between two cells
    }
    images = torch.randn(2, CHANNELS, height_px, width_px, generator=stream)
    return images, [full, {key: value[:0] for key, value in full.items()}]
