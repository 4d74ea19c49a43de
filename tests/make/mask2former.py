"""A Mask2Former of 150 thousand weights from conf/detector."""

from pathlib import Path
from typing import Any

import yaml

from make.rcnn import CHANNELS, CLASSES
from skyloom.detector.build import build_detector
from skyloom.detector.mask2former import Mask2former

CONF = Path(__file__).resolve().parents[2] / "conf" / "detector" / "mask2former.yaml"
SWIN = {"embed_dim": 12, "depths": [1, 1, 1, 1], "heads": [1, 2, 2, 2], "window": 4}


def tiny_options(**changes: Any) -> dict[str, Any]:
    """What conf/detector/mask2former.yaml says, narrow and shallow; a mapping changes values of a group."""
    found: dict[str, Any] = yaml.safe_load(CONF.read_text())
    found |= {"network": SWIN, "queries": 10, "score_floor": 0.0}
    found["decoder"] |= {"channels": 32, "heads": 2, "pixel_layers": 1, "pixel_feedforward": 32}
    found["decoder"] |= {"layers": 2, "feedforward": 32}
    found["loss"] |= {"points": 256}
    for key, value in changes.items():
        found[key] = found[key] | value if isinstance(found[key], dict) and key != "network" else value
    return found


def tiny_mask2former(*, in_chans: int = CHANNELS, seed: int = 0, **changes: Any) -> Mask2former:
    """The detector of `tiny_options`."""
    options = tiny_options(**changes)
    found = build_detector(options, backbone=None, in_chans=in_chans, classes=CLASSES, seed=seed)
    assert isinstance(found, Mask2former)
    return found
