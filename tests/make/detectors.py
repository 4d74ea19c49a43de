"""A tiny detector with random weights as an artifact, as train.py task=detect leaves it, made without training."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from make.joint_data import JointData
from skyloom.backbone.build import build_backbone
from skyloom.backbone.spec import BackboneSpec
from skyloom.detector.build import build_detector
from skyloom.store import Artifact, Build, builds

CONF = Path(__file__).resolve().parents[2] / "conf" / "detector"
SMALL: dict[str, dict[str, Any]] = {
    "pyramid": {"channels": 8},
    "rpn": {"convs": 1, "candidates_test": 40, "proposals_test": 24},
    "box": {"convs": 0, "channels": 8, "fc": [16]},
    "mask": {"convs": 1, "channels": 8},
    "centroid": {"convs": 1, "channels": 8},
}
CHANNELS = {"combine": "wcs", "interpolation": "linear", "conserve_flux": False, "blank_value": 0.0}
BANDS = {"lsst": "ugrizy", "roman": ("Y106", "J129", "H158")}


def small_options(name: str = "mask_rcnn", **changes: Any) -> dict[str, Any]:
    """Options of a detector that takes milliseconds."""
    options: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    for group, values in SMALL.items():
        options[group] |= values
    return options | {"top_k": 40} | changes


def detector_artifact(
    data: JointData,
    *,
    surveys: Sequence[str] = ("lsst",),
    seed: int = 0,
    units: Sequence[str] | None = None,
    **changes: Any,
) -> Artifact:
    """A ``model`` whose detector sees the bands of ``surveys``; random weights find much that is not there."""
    bands = [[survey, band] for survey in surveys for band in BANDS[survey]]
    spec = BackboneSpec("resnet18", len(bands), None, None, False)
    options = small_options(**changes)

    @builds("model", version=1)
    def train(build: Build, *, seed: int, surveys: list[str], options: dict[str, Any], units: list[str] | None) -> None:
        backbone = build_backbone(spec.model, in_chans=spec.in_chans, image_size_px=None, weights=None, seed=seed)
        detector = build_detector(options, backbone=backbone, in_chans=len(bands), classes=2, seed=seed)
        facts = {
            "detector": options,
            "backbone": {key: value for key, value in asdict(spec).items() if key != "weights"},
            "classes": ["galaxy", "star"],
            "datamodule": {"name": "roman_lsst", "surveys": list(surveys), "batch_size": 2, **CHANNELS},
            "bands": bands,
            "units": units,
            "zero_point_mag": None,
        }
        with build.write("model.safetensors") as path:
            tensors = {f"detector.{key}": value.contiguous() for key, value in detector.state_dict().items()}
            save_file(tensors, str(path), metadata={"model": options["name"]})
        with build.write("model.json") as path:
            path.write_text(json.dumps(facts))

    return train(seed=seed, surveys=list(surveys), options=options, units=units and list(units), store=data.store)
