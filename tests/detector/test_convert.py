"""Weights that go from one detector to the other do there what they did here."""

import pytest
import torch

from make.detector_pairs import batch, needs_detectron2, ours, shaken, theirs
from skyloom.detector.convert import correspondence, from_detectron2, to_detectron2
from skyloom.errors import InputError


@pytest.fixture(scope="module")
def pair():
    """Ours, and detectron2's with the same weights."""
    mine, other = shaken(ours()), theirs()
    found = other.load_state_dict(to_detectron2(mine), strict=False)
    assert not found.unexpected_keys
    assert all(key in ("mean", "std") or "relative_position_index" in key for key in found.missing_keys)
    return mine, other


def ranked(found, number=8):
    return found[found.scores.argsort(descending=True, stable=True)[:number]]


def test_every_weight_has_one_name():
    mine = ours()
    names = correspondence(mine)
    assert set(mine.state_dict()) - set(names) == {"mean", "std"}
    assert len(set(names.values())) == len(names)
    assert names["box.heads.2.0.1.bias"] == "roi_heads.box_head.2.conv1.norm.bias"
    assert names["backbone.model.layers.3.downsample.norm.weight"] == (
        "backbone.bottom_up.layers.2.downsample.norm.weight"
    )


@needs_detectron2
def test_the_maps_are_equal(pair):
    mine, other = pair
    images = torch.randn(1, 4, 96, 64)  # maps of 24 x 16 px and less: none a multiple of the windows of 7 px
    with torch.no_grad():
        for a, b in zip(mine.pyramid(mine.backbone.forward_maps(images)), other.backbone(images).values(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@needs_detectron2
def test_a_step_has_equal_losses_and_gradients(pair):
    mine, other = pair
    found = []
    for detector in pair:
        torch.manual_seed(5)  # both draw their samples from it in the same order
        found.append(detector.losses(*batch()))
    assert found[0].keys() == found[1].keys()
    for name, loss in found[0].items():
        assert loss.item() == pytest.approx(found[1][name].item(), rel=1e-4, abs=1e-5), name
    assert found[0]["loss_mask"] > 0.1
    assert found[0]["loss_keypoint"] > 0.1
    for detector, losses in zip(pair, found, strict=True):
        detector.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
    theirs_by_name = dict(other.named_parameters())
    names = correspondence(mine)
    for name, weight in mine.named_parameters():
        torch.testing.assert_close(weight.grad, theirs_by_name[names[name]].grad, atol=1e-4, rtol=1e-3, msg=name)


@needs_detectron2
def test_the_candidates_are_equal_but_for_how_centroids_are_refined(pair):
    images, _ = batch()
    for one, two in zip(*(detector.raw(images) for detector in pair), strict=True):
        assert len(one) == len(two) > 8
        one, two = ranked(one), ranked(two)
        torch.testing.assert_close(one.scores, two.scores, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(one.boxes, two.boxes, atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(one.masks, two.masks, atol=1e-3, rtol=1e-3)
        assert torch.equal(one.labels, two.labels)


@needs_detectron2
def test_weights_come_back_unchanged(pair):
    mine, other = pair
    back = from_detectron2(mine, other.state_dict())
    state = mine.state_dict()
    assert set(back) == set(state) - {"mean", "std"}
    assert all(torch.equal(value, state[key]) for key, value in back.items())


@needs_detectron2
def test_one_stage_with_a_box_for_each_class_has_equal_losses():
    mine = shaken(ours(stages=1, classes_share=False, name="mask_rcnn", rpn={"convs": 1}, pyramid={"norm": "none"}))
    other = theirs(stages=1, classes_share=False, rpn={"convs": 1}, pyramid={"norm": "none"})
    assert not other.load_state_dict(to_detectron2(mine), strict=False).unexpected_keys
    found = []
    for detector in (mine, other):
        torch.manual_seed(5)
        found.append(detector.losses(*batch()))
    assert {k: v.item() for k, v in found[0].items()} == pytest.approx(
        {k: v.item() for k, v in found[1].items()}, rel=1e-3, abs=1e-5
    )


def test_other_names_are_refused():
    with pytest.raises(InputError, match=r"backbone.bottom_up.*found conv.weight; none of them fits CascadeMaskRcnn"):
        from_detectron2(ours(), {"conv.weight": torch.zeros(1)})
