"""A checkpoint of detectron2 starts either detector, and what is not taken is listed."""

import pickle

import pytest
import torch

from make.detector_pairs import needs_detectron2, ours, shaken, theirs
from skyloom.detector.checkpoint import load_checkpoint, open_checkpoint
from skyloom.detector.convert import to_detectron2
from skyloom.errors import ConfigError, InputError


def zoo_file(path, state):
    content = {"model": {key: value.numpy() for key, value in state.items()}, "__author__": "Detectron2 Model Zoo"}
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A file as the zoo has them: 3 channels, 80 classes, no centroids."""
    trained = shaken(ours(classes=80, in_chans=3, centroid={"enabled": False}))
    extra = {"roi_heads.box_head.3.fc1.weight": torch.ones(2)}
    return zoo_file(tmp_path_factory.mktemp("zoo") / "model.pkl", to_detectron2(trained) | extra), trained


def test_what_fits_is_taken_and_the_rest_is_listed(coco, caplog):
    file, trained = coco
    detector = ours()
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    report = load_checkpoint(detector, file)
    state, source = detector.state_dict(), trained.state_dict()
    common = (state.keys() & source.keys()) - {"mean", "std"}
    taken = [key for key in common if source[key].shape == state[key].shape]
    assert report.loaded == len(taken)
    assert all(torch.equal(state[key], source[key]) for key in taken)
    assert all(torch.equal(state[key], before[key]) for key in state if key not in taken)
    assert "backbone.bottom_up.patch_embed.proj.weight (24, 3, 4, 4) for (24, 4, 4, 4)" in report.reshaped
    assert [name.split(" ")[0] for name in report.reshaped if "cls_score.bias" in name] == [
        f"roi_heads.box_predictor.{stage}.cls_score.bias" for stage in range(3)
    ]
    assert report.missing
    assert all(name.startswith("roi_heads.keypoint_head.") for name in report.missing)
    assert report.skipped == ("roi_heads.box_head.3.fc1.weight",)
    assert len(report.lines()) == 3
    assert all(line in caplog.text for line in report.lines())


@needs_detectron2
def test_both_detectors_start_equally(coco):
    found = []
    for detector in (ours(centroid={"enabled": False}), theirs(centroid={"enabled": False})):
        load_checkpoint(detector, coco[0])
        with torch.no_grad():
            found.append(detector.state_dict())
    mine, other = found
    assert torch.equal(mine["rpn.head.cls_logits.bias"], other["proposal_generator.rpn_head.objectness_logits.bias"])
    assert torch.equal(mine["box.heads.1.3.weight"], other["roi_heads.box_head.1.fc1.weight"])


def test_a_network_alone_needs_leave(tmp_path):
    trained = shaken(ours())
    inside = "backbone.bottom_up."
    state = {key.removeprefix(inside): value for key, value in to_detectron2(trained).items() if key.startswith(inside)}
    file = zoo_file(tmp_path / "swin.pkl", state)
    detector = ours(seed=7)
    with pytest.raises(InputError, match=r"0 of \d+ weights have another shape and \d+ are missing \(backbone.fpn_lat"):
        load_checkpoint(detector, file)
    report = load_checkpoint(detector, file, allow_missing=True)
    assert report.loaded == len(state)
    assert not report.skipped
    assert torch.equal(detector.backbone.model.norm.weight, trained.backbone.model.norm.weight)


def test_another_network_is_refused(tmp_path):
    file = zoo_file(tmp_path / "other.pkl", {"backbone.bottom_up.res2.conv1.weight": torch.ones(2)})
    with pytest.raises(InputError, match="none of its 1 weights"):
        load_checkpoint(ours(), file)


def test_heads_of_another_width_are_refused(tmp_path):
    file = zoo_file(tmp_path / "wide.pkl", to_detectron2(ours(mask={"channels": 24})))
    with pytest.raises(InputError, match=r"\d+ of \d+ weights have another shape .*roi_heads.mask_head"):
        load_checkpoint(ours(), file)


def test_the_file_of_a_fit_counts_by_its_content(tmp_path):
    file = zoo_file(tmp_path / "a.pkl", {"roi_heads.x": torch.ones(2)})
    request = {"file": str(file), "allow_missing": False}
    first = open_checkpoint(request, {}, None).identity()
    assert first["file"] == "a.pkl"
    zoo_file(file, {"roi_heads.x": torch.zeros(2)})
    assert open_checkpoint(request, {}, None).identity() != first
    none = open_checkpoint({"file": None, "allow_missing": True}, {}, None)
    assert none.identity() is None
    assert none.fill(torch.nn.Linear(1, 1)) is None
    with pytest.raises(InputError, match=r"checkpoint.file=.*no such file"):
        open_checkpoint(request | {"file": str(tmp_path / "b.pkl")}, {}, None)
    with pytest.raises(ConfigError, match=r"expected {file: PATH, allow_missing: false}"):
        open_checkpoint("model.pkl", {}, None)
