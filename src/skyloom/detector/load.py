"""Read a trained detector back from its artifact."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from skyloom.backbone.build import Backbone, build_backbone
from skyloom.backbone.weights import keep_grid
from skyloom.detector.base import Detector
from skyloom.detector.build import build_detector
from skyloom.errors import InputError
from skyloom.store import Artifact

PREFIX = "detector."  # of the detector's tensors in model.safetensors
FACTS, WEIGHTS = "model.json", "model.safetensors"
START = "weights"  # option that says where a detector started from, perhaps on another machine
NEEDED = ("detector", "backbone", "classes", "bands")


def load_detector(artifact: Artifact) -> Detector:
    """Build the detector that an artifact describes and give it its weights.

    Parameters
    ----------
    artifact
        Of the kind ``model``, written by ``train.py task=detect``.

    Returns
    -------
    Detector
        In evaluation mode, on the CPU.

    Raises
    ------
    InputError
        The artifact holds no detector, or weights that do not fit it.
    """
    facts = detector_facts(artifact)
    spec: Mapping[str, Any] | None = facts["backbone"]
    network: Backbone | None = None
    if spec is not None:
        size_px, channels = spec["image_size_px"], spec["in_chans"]
        network = build_backbone(spec["model"], in_chans=channels, image_size_px=size_px, weights=None)
    options = {key: None if key == START else value for key, value in facts["detector"].items()}
    detector = build_detector(
        options, backbone=network, in_chans=len(facts["bands"]), classes=len(facts["classes"]), seed=0
    )
    file = artifact.file(WEIGHTS)
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a whole safetensors file ({str(error)[:120]}); train again") from error
    tensors = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
    _fill(detector, network, tensors, str(file))
    return detector.eval()


def detector_facts(artifact: Artifact) -> dict[str, Any]:
    """Return what ``model.json`` says of a detector.

    Raises
    ------
    InputError
        The model is no detector.
    """
    file = artifact.file(FACTS)
    facts: dict[str, Any] = json.loads(file.read_text())
    lacking = [key for key in NEEDED if key not in facts]
    if lacking:
        raise InputError(f"{file}: no detector ('{lacking[0]}' is missing); give a model of train.py task=detect")
    return facts


def _fill(detector: Detector, network: Backbone | None, tensors: Mapping[str, Tensor], file: str) -> None:
    if network is not None:
        inside = "backbone.model."
        keep_grid(network.model, {k.removeprefix(inside): v for k, v in tensors.items() if k.startswith(inside)})
    expected = detector.state_dict()
    wrong = [key for key in expected if key not in tensors or tensors[key].shape != expected[key].shape]
    wrong += [key for key in tensors if key not in expected]
    if wrong:
        raise InputError(
            f"{file}: {len(wrong)} tensors are missing, of another shape or have no place "
            f"({', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}); the file was not made with its model.json"
        )
    with torch.no_grad():
        detector.load_state_dict(dict(tensors))
