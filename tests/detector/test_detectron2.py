"""detectron2's model keeps the contract of detectors; without the package one line says so."""

import copy

import pytest
import torch

from make.detector_pairs import batch, needs_detectron2, options, theirs
from skyloom.detector import detectron2 as module
from skyloom.detector.base import Detector
from skyloom.detector.build import checked_options, detector_class
from skyloom.detector.candidates import select
from skyloom.errors import ConfigError, InputError

LOSSES = ["loss_rpn_cls", "loss_rpn_loc"]
LOSSES += [f"{kind}_stage{stage}" for stage in range(3) for kind in ("loss_cls", "loss_box_reg")]
LOSSES += ["loss_mask", "loss_keypoint"]


@pytest.fixture(scope="module")
def detector():
    return theirs()


def test_without_the_package_one_line_says_what_to_do(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError("No module named 'detectron2'", name="detectron2")

    monkeypatch.setattr(module.importlib, "import_module", absent)
    own = {key: value for key, value in options("detectron2").items() if key != "name"}
    checked = checked_options(module.Detectron2, own)  # options are checked without it, too
    with pytest.raises(ConfigError, match=r"^detector=detectron2 needs .* docs/detectors/detectron2.md .*$") as raised:
        module.Detectron2(in_chans=4, classes=2, **checked)
    assert "\n" not in str(raised.value)


def test_it_brings_its_own_network():
    assert detector_class("detectron2").needs_backbone is False


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [("pyramid", "map_norm", "none"), ("rpn", "anchors_rounded", True), ("mask", "target_threshold", None)],
)
def test_what_detectron2_cannot_do_is_refused(group, key, value):
    with pytest.raises(ConfigError, match=f"detector.{group}.{key}={value}: detectron2 knows only"):
        theirs(**{group: {key: value}})


@needs_detectron2
def test_an_unknown_network_is_named():
    with pytest.raises(ConfigError, match=r"detector.network=swin_x is not known; choose one of: .*swin_t"):
        theirs(network="swin_x")


@needs_detectron2
def test_losses_have_their_names_and_reach_every_weight(detector):
    torch.manual_seed(0)
    images, targets = batch()
    found = detector.losses(images, [targets[0], targets[0]])
    assert sorted(found) == sorted(LOSSES)
    torch.stack(list(found.values())).sum().backward()
    assert all(weight.grad is not None for weight in detector.parameters())
    detector.zero_grad(set_to_none=True)


@needs_detectron2
def test_training_and_evaluation_mode_give_the_same(detector):
    images, targets = batch()
    found = []
    for mode in (True, False):
        detector.train(mode)
        torch.manual_seed(3)
        with torch.no_grad():
            losses = detector.losses(images, targets)
        raw = detector.raw(images)
        found.append((losses, raw))
        assert all(part.training == mode for part in detector.modules())
    detector.train()
    for name, loss in found[0][0].items():
        assert loss.item() == pytest.approx(found[1][0][name].item(), rel=1e-6), name
    assert torch.equal(found[0][1][0].scores, found[1][1][0].scores)


@needs_detectron2
def test_candidates_are_not_suppressed_and_lie_in_the_image(detector):
    images, _ = batch()
    raw = detector.raw(images)
    for found in raw:
        assert found.size_px == (64, 90)
        assert (found.boxes[:, 2] <= 90).all()
        assert (found.boxes >= 0).all()
        assert found.masks.shape == (len(found), 28, 28)
        assert found.centroids.shape == (len(found), 2)
        assert set(found.labels.tolist()) <= {0, 1}
        assert len(found) == 2 * 15  # both classes of each of the 15 proposals, with the same box
    chosen = select(raw, score=0.05, nms=0.3, top_k=5)
    assert all(0 < len(found) <= 5 for found in chosen)
    assert chosen[0].pasted().shape == (len(chosen[0]), 64, 90)


@needs_detectron2
def test_pixels_that_are_not_finite_count_as_the_mean(detector):
    images, _ = batch()
    images[:, :, 10, 10] = 0.0  # the mean
    holes = images.clone()
    holes[:, :, 10, 10] = torch.nan
    assert torch.equal(detector.raw(images)[0].scores, detector.raw(holes)[0].scores)


@needs_detectron2
def test_images_without_objects_and_with_many(detector):
    images, targets = batch()
    losses = detector.losses(images, [targets[1], targets[1]])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_mask"] == losses["loss_keypoint"] == 0
    many, (crowd, _) = batch(objects=300)
    assert all(torch.isfinite(loss) for loss in detector.losses(many[:1], [crowd]).values())


@needs_detectron2
def test_bad_input_is_refused(detector):
    images, (target, _) = batch()
    with pytest.raises(InputError, match="channel"):
        detector.raw(images[:, :3])
    with pytest.raises(InputError, match="label 7"):
        detector.losses(images[:1], [target | {"labels": target["labels"] * 0 + 7}])
    with pytest.raises(InputError, match="outside"):
        detector.losses(images[:1], [target | {"boxes": target["boxes"] + 80}])


@needs_detectron2
def test_a_diverged_fit_is_named():
    broken = theirs()
    with torch.no_grad():
        broken.proposal_generator.rpn_head.objectness_logits.bias.fill_(torch.nan)
    images, targets = batch()
    with pytest.raises(InputError, match="the fit has diverged"):
        broken.losses(images, targets)
    assert len(broken.raw(images)[0]) == 0


@needs_detectron2
def test_centroids_are_counted_from_the_centre_of_the_first_pixel():
    from skyloom.detector.detectron2_batch import instances

    _, (target, _) = batch()
    unknown = target["centroids"].clone()
    unknown[0] = torch.nan
    found = instances([target | {"centroids": unknown}], [(64, 90)], device=torch.device("cpu"), centroids=True)[0]
    points = found.gt_keypoints.tensor[:, 0]
    assert torch.equal(points[1:, :2], target["centroids"][1:] + 0.5)
    assert points[:, 2].tolist() == [0.0, 2.0, 2.0, 2.0]


@needs_detectron2
def test_parts_hold_every_weight_once_and_a_copy_is_whole(detector):
    parts = detector.parts()
    held = [weight for modules in parts.values() for part in modules for weight in part.parameters()]
    assert len(held) == len({id(weight) for weight in held}) == len(list(detector.parameters()))
    twin = copy.deepcopy(detector)
    assert isinstance(twin, Detector)
    assert torch.equal(twin.raw(batch()[0])[0].scores, detector.raw(batch()[0])[0].scores)


@needs_detectron2
def test_the_seed_alone_makes_the_weights():
    torch.manual_seed(11)
    state = torch.get_rng_state()
    one, two = theirs(seed=4), theirs(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@needs_detectron2
def test_a_resnet_with_one_stage_trains():
    detector = theirs(stages=1, centroid={"enabled": False}, network="resnet50")
    images, targets = batch()
    found = detector.losses(images, targets)
    assert sorted(found) == sorted([*LOSSES[:4], "loss_mask"])
    assert detector.raw(images)[0].centroids is None
