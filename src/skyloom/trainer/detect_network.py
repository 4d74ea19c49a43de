"""Builds the detector that is fitted, for the channels and classes of the data."""

import logging
from collections.abc import Mapping
from typing import Any

from skyloom.backbone.spec import BackboneSpec, Weights
from skyloom.detector.base import Detector
from skyloom.detector.build import build_detector, detector_class
from skyloom.trainer.detect_data import DetectionData
from skyloom.trainer.options import named

log = logging.getLogger("skyloom")


def needs_backbone(detector: Mapping[str, Any]) -> bool:
    """Whether a detector stands on a backbone of skyloom."""
    return bool(detector_class(named("detector", dict(detector))).needs_backbone)


def build_network(
    detector: Mapping[str, Any], backbone: BackboneSpec, weights: Weights, about: DetectionData, seed: int
) -> tuple[Detector, dict[str, Any]]:
    """Build a detector for the channels and classes of the data, and say in plain types how to build it again."""
    features, facts = None, None
    if needs_backbone(detector):
        spec = BackboneSpec(**{**vars(backbone), "in_chans": about.in_chans})
        features = weights.build(spec, seed)
        facts = {**spec.parameter(), "num_features": features.num_features}
    network = build_detector(
        detector, backbone=features, in_chans=about.in_chans, classes=len(about.classes), seed=seed
    )
    network.set_normalisation(about.mean, about.std)
    if about.mean is None:
        log.warning("mean and std of the channels are not known: make them with curate.py step=stats for each survey")
    return network, {"detector": dict(detector), "backbone": facts, **about.facts()}
