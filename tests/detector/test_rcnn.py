"""The R-CNN family behind the contract: gradients everywhere, modes, gaps, empty and crowded images, bad input."""

import pytest
import torch

from make.rcnn import CHANNELS, scene, scenes, tiny_options, tiny_rcnn
from skyloom.backbone import build_backbone
from skyloom.detector.build import build_detector
from skyloom.errors import ConfigError, InputError

LOSSES = {"loss_rpn_cls", "loss_rpn_loc", "loss_mask", "loss_keypoint"}
LOSSES |= {f"loss_{kind}_stage{stage}" for kind in ("cls", "box_reg") for stage in range(3)}


@pytest.fixture(scope="module")
def detector():
    return tiny_rcnn()


@pytest.mark.parametrize("model", ["test_resnet", "swin_tiny_patch4_window7_224", "test_vit"])
def test_every_weight_gets_a_gradient(model):
    detector = tiny_rcnn(model=model, box={"positive_fraction": 0.5})
    losses = detector.losses(*scenes(5, 3))
    assert set(losses) == LOSSES
    sum(losses.values()).backward()
    assert [name for name, weight in detector.named_parameters() if weight.grad is None] == []
    parts = detector.parts()
    listed = {id(w) for group in parts.values() for module in group for w in module.parameters()}
    assert listed == {id(weight) for weight in detector.parameters()}


def test_evaluation_mode_gives_the_losses_of_training_mode():
    detector = tiny_rcnn(model="test_vit")
    images, targets = scenes(4)
    values = []
    for mode in (True, False):
        detector.train(mode)
        torch.manual_seed(0)
        values.append({name: value.item() for name, value in detector.losses(images, targets).items()})
    assert values[0] == values[1]


def test_images_without_objects_train_the_network_and_agree_on_gradients(detector):
    detector.zero_grad()
    losses = detector.losses(*scenes(0, 0))
    assert losses["loss_mask"] == losses["loss_keypoint"] == losses["loss_rpn_loc"] == 0
    assert losses["loss_rpn_cls"] > 0
    sum(losses.values()).backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in detector.parameters())


def test_three_thousand_objects(detector):
    image, target = scene(3000)
    losses = detector.losses(image[None], [target])
    assert all(torch.isfinite(value) for value in losses.values())


def test_pixels_that_are_not_finite_count_as_the_mean():
    detector = tiny_rcnn().eval()
    detector.set_normalisation(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.5]))
    image, _ = scene()
    gaps = image.clone()
    gaps[0, 10:20], gaps[1, 5, 5] = torch.nan, torch.inf
    image[0, 10:20], image[1, 5, 5] = 3.0, -1.0
    found, wanted = detector.raw([gaps])[0], detector.raw([image])[0]
    assert len(found) > 0
    assert torch.equal(found.boxes, wanted.boxes)
    assert torch.equal(found.masks, wanted.masks)


def test_candidates_lie_in_their_own_image_and_above_the_floor(detector):
    images = [scene(size_px=64)[0], scene(size_px=64)[0][:, :40, :50]]
    for image, found in zip(images, detector.eval().raw(images), strict=True):
        assert found.size_px == tuple(image.shape[-2:])
        assert len(found)
        assert (found.scores >= 0.05).all()
        assert (found.scores <= 1).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 2] <= image.shape[-1]).all()
        assert (found.boxes[:, 3] <= image.shape[-2]).all()
        assert found.masks.shape == (len(found), 14, 14)
        assert found.pasted().shape == (len(found), *image.shape[-2:])
        assert found.centroids.shape == (len(found), 2)


def test_classes_that_share_a_box_get_their_own_masks():
    detector = tiny_rcnn(score_floor=0.0).eval()
    found = detector.raw([scene()[0]])[0]
    first, second = (found[found.labels == label] for label in (0, 1))
    assert torch.equal(first.boxes, second.boxes)
    assert not torch.equal(first.masks, second.masks)


def test_the_best_candidates_are_kept():
    image = [scene()[0]]
    every = tiny_rcnn(score_floor=0.0).eval().raw(image)[0]
    few = tiny_rcnn(score_floor=0.0, top_k=5).eval().raw(image)[0]
    assert torch.equal(few.scores.sort().values, every.scores.sort().values[-5:])


def test_another_number_of_channels_is_refused(detector):
    with pytest.raises(InputError, match=r"built for 2 channel\(s\), found images of the shape \(3, 64, 64\)"):
        detector.raw([torch.zeros(3, 64, 64)])
    with pytest.raises(InputError, match="2 channel"):
        detector.losses(torch.zeros(1, 64, 64), [])
    network = build_backbone("test_resnet", in_chans=3)
    with pytest.raises(ConfigError, match=f"set backbone.in_chans={CHANNELS}"):
        build_detector(tiny_options(), backbone=network, in_chans=CHANNELS, classes=2, seed=0)


def test_an_anchor_size_for_each_map():
    with pytest.raises(ConfigError, match="2 sizes, but the pyramid has 5 maps"):
        tiny_rcnn(rpn={"anchor_sizes_px": [8, 16]})
