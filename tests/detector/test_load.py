"""A detector comes back from its artifact as it was, and its backbone serves other runs."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from make.rcnn import CHANNELS, scene, tiny_options, tiny_rcnn
from skyloom.backbone import build_backbone
from skyloom.detector.load import load_detector
from skyloom.errors import InputError


@pytest.fixture(params=["test_resnet", "test_vit"])
def saved(request, tmp_path):
    detector = tiny_rcnn(model=request.param).eval()
    detector.set_normalisation(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.5]))
    facts = {
        "detector": tiny_options(),
        "backbone": {"model": request.param, "in_chans": CHANNELS, "image_size_px": None, "num_features": 1},
        "classes": ["galaxy", "star"],
        "bands": [["lsst", "g"], ["lsst", "r"]],
    }
    (tmp_path / "model.json").write_text(json.dumps(facts))
    tensors = {f"detector.{key}": value.contiguous() for key, value in detector.state_dict().items()}
    save_file(tensors, str(tmp_path / "model.safetensors"), metadata={"model": "cascade_mask_rcnn"})
    return detector, SimpleNamespace(file=lambda name: tmp_path / name), request.param


def test_a_detector_comes_back_as_it_was(saved):
    detector, artifact, _ = saved
    found = load_detector(artifact)
    assert not found.training
    image = [scene()[0]]
    assert torch.equal(found.raw(image)[0].scores, detector.raw(image)[0].scores)


def test_its_backbone_is_a_starting_weight(saved):
    detector, artifact, model = saved
    network = build_backbone(model, in_chans=CHANNELS, weights=artifact.file("model.safetensors"), seed=9)
    for key, value in detector.backbone.model.state_dict().items():
        assert torch.equal(network.model.state_dict()[key], value)


def test_weights_of_another_detector_are_refused(saved):
    _, artifact, _ = saved
    facts = json.loads(artifact.file("model.json").read_text())
    facts["classes"].append("quasar")
    artifact.file("model.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"was not made with its model\.json"):
        load_detector(artifact)


def test_a_model_that_is_no_detector_is_refused(saved):
    _, artifact, _ = saved
    artifact.file("model.json").write_text("{}")
    with pytest.raises(InputError, match=r"no detector .*task=detect"):
        load_detector(artifact)
