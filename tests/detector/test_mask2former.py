"""Mask2Former behind the contract: gradients, modes, empty and crowded images, sizes, a fit and its candidates."""

import logging
import socket
import sys

import numpy as np
import pytest
import torch

import skyloom
from make.mask2former import SWIN, tiny_mask2former, tiny_options
from make.rcnn import CHANNELS, scene, scenes
from make.tiny_detect_fit import request, tiny_data
from skyloom.detector.build import build_detector, detector_class
from skyloom.detector.candidates import select
from skyloom.detector.load import load_detector
from skyloom.errors import ConfigError, InputError
from skyloom.sky.mask.rle import decode
from skyloom.trainer.detect import detect

pytest.importorskip("transformers", reason="the extra 'detection' is not installed")
TASK = {"nms": 1.0, "freeze_epochs": 1, "learning_rate": 1e-6}  # so small that masks stay where they are
LOSSES = {"loss_class", "loss_mask", "loss_dice"}


@pytest.fixture(scope="module")
def detector():
    return tiny_mask2former()


def values(losses):
    return {name: value.item() for name, value in losses.items()}


def test_every_weight_that_learns_gets_a_gradient():
    detector = tiny_mask2former()
    losses = detector.losses(*scenes(5, 3))
    assert set(losses) == LOSSES
    sum(losses.values()).backward()
    lacking = [name for name, weight in detector.named_parameters() if weight.grad is None]
    assert lacking == [name for name, weight in detector.named_parameters() if not weight.requires_grad]
    assert all(".swin.layernorm." in name for name in lacking), "else several processes would wait for it"
    parts = detector.parts()
    listed = [id(w) for group in parts.values() for module in group for w in module.parameters()]
    assert sorted(listed) == sorted(id(weight) for weight in detector.parameters())
    assert all(name.startswith("network.model.pixel_level_module.encoder.") for name in names_of(detector, "backbone"))


def names_of(detector, part):
    own = {id(w) for module in detector.parts()[part] for w in module.parameters()}
    return [name for name, weight in detector.named_parameters() if id(weight) in own]


def test_evaluation_mode_gives_the_losses_of_training_mode_and_the_seed_decides(detector):
    images, targets = scenes(4, 0, 2)
    found = []
    for mode, seed in ((True, 0), (False, 0), (False, 1)):
        detector.train(mode)
        torch.manual_seed(seed)
        found.append(values(detector.losses(images, targets)))
    assert found[0] == found[1]
    assert found[0]["loss_mask"] != found[2]["loss_mask"]


def test_drop_out_reaches_the_network():
    detector = tiny_mask2former(decoder={"dropout": 0.5}, drop_path=0.5)
    images, targets = scenes(4)
    found = []
    for mode in (True, False):
        detector.train(mode)
        torch.manual_seed(0)
        losses = detector.losses(images, targets)
        found.append(values(losses))
    assert found[0] != found[1]
    assert not isinstance(detector.network.model.pixel_level_module.encoder.swin.encoder.layers[3].blocks[0].drop_path,
                          torch.nn.Identity)  # fmt: skip


def test_losses_are_those_of_transformers(detector):
    images, targets = scenes(5, 2)
    torch.manual_seed(3)
    losses = detector.losses(images, targets)
    torch.manual_seed(3)
    masks, labels = [t["masks"].float() for t in targets], [t["labels"] for t in targets]
    theirs = detector.network(pixel_values=images, mask_labels=masks, class_labels=labels)
    assert sum(losses.values()).item() == pytest.approx(theirs.loss.item(), rel=1e-5)


def test_images_without_objects_train_the_classes_and_agree_on_gradients(detector):
    detector.zero_grad()
    losses = detector.losses(*scenes(0, 0))
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    assert losses["loss_class"] > 0
    sum(losses.values()).backward()
    learns = [weight for weight in detector.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in learns)


def test_more_objects_than_queries_are_said_once(caplog):
    detector = tiny_mask2former(queries=3)
    with caplog.at_level(logging.WARNING, logger="skyloom"):
        for _ in range(2):
            losses = detector.losses(*scenes(30, 1))
    assert all(torch.isfinite(value) for value in losses.values())
    assert [record.getMessage() for record in caplog.records] == [
        "an image has 30 objects, but detector.queries=3: the rest is learnt as background; raise it"
    ]


def test_pixels_that_are_not_finite_count_as_the_mean(detector):
    detector.set_normalisation(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.5]))
    image, _ = scene(3)
    gap, filled = image.clone(), image.clone()
    gap[0, 5:20, 7:30], gap[1, 40, :] = torch.nan, torch.inf
    filled[0, 5:20, 7:30], filled[1, 40, :] = 3.0, -1.0
    found, expected = detector.raw([gap])[0], detector.raw([filled])[0]
    detector.set_normalisation(torch.zeros(2), torch.ones(2))
    assert torch.equal(found.scores, expected.scores)
    assert not torch.equal(expected.scores, detector.raw([filled])[0].scores)


@pytest.mark.parametrize("enlarge", [1, 2, 3])
def test_images_of_any_size_whatever_lies_beside_them(enlarge):
    detector = tiny_mask2former(enlarge=enlarge, softening_sigma=3.0 if enlarge == 3 else None)
    stream = torch.Generator().manual_seed(0)
    images = [torch.randn(CHANNELS, *size, generator=stream) for size in ((40, 71), (9, 130), (40, 71), (64, 64))]
    together = detector.raw(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = detector.raw(image[None])
        assert found.size_px == tuple(image.shape[1:])
        torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.boxes, alone.boxes)
        height, width = found.size_px
        assert len(found) > 0
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height])).all()
        for box, mask in zip(found.boxes.int().tolist(), found.pasted(), strict=True):
            rows, cols = mask.nonzero().T
            assert [int(cols.min()), int(rows.min()), int(cols.max()) + 1, int(rows.max()) + 1] == box
    targets = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64),
                "masks": torch.zeros(0, *image.shape[1:], dtype=torch.bool)} for image in images]  # fmt: skip
    targets[1] = {"boxes": torch.tensor([[2.0, 1, 9, 7]]), "labels": torch.tensor([1]),
                  "masks": torch.ones(1, 9, 130, dtype=torch.bool)}  # fmt: skip
    assert all(torch.isfinite(value) for value in detector.losses(images, targets).values())


def test_candidates_are_pairs_of_a_query_and_a_class_and_the_best_are_kept(detector):
    images, _ = scenes(3)
    (usual,) = detector.raw(images)
    assert set(usual.labels.tolist()) == {0, 1}
    assert len(usual) <= 20
    assert len(select([usual], score=0.0, nms=1.0, top_k=100)[0]) == len(usual)
    (few,) = tiny_mask2former(top_k=3).raw(images)
    torch.testing.assert_close(few.scores.sort().values, usual.scores.sort().values[-3:])
    floor = float(usual.scores.median())
    (good,) = tiny_mask2former(score_floor=floor).raw(images)
    assert len(good) == int((usual.scores >= floor).sum())
    (none,) = tiny_mask2former(score_floor=1.0).raw(images)
    assert len(none) == 0
    assert none.pasted().shape == (0, 64, 64)


def test_it_learns_after_inference_in_the_same_process():
    detector = tiny_mask2former()
    images, targets = scenes(2)
    with torch.inference_mode():  # what transformers caches there must not disturb training
        detector.raw(images)
    optimizer = torch.optim.AdamW([w for w in detector.parameters() if w.requires_grad], lr=3e-3)
    totals = []
    for step in range(15):
        torch.manual_seed(step)
        total = sum(detector.losses(images, targets).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.85 * totals[0]


def test_the_seed_alone_decides_the_weights():
    state = torch.random.get_rng_state()
    one, same, other = tiny_mask2former(), tiny_mask2former(), tiny_mask2former(seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    pairs = zip(one.state_dict().values(), same.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    key = "network.model.pixel_level_module.encoder.swin.embeddings.patch_embeddings.projection.weight"
    assert not torch.equal(one.state_dict()[key], other.state_dict()[key])


def test_bad_input_is_said_in_one_line(detector):
    image, target = scene(2)
    with pytest.raises(InputError, match="built for 2 channel"):
        detector.raw([torch.zeros(3, 32, 32)])
    with pytest.raises(InputError, match="at least one image"):
        detector.raw([])
    with pytest.raises(InputError, match="label 7"):
        detector.losses([image], [target | {"labels": torch.tensor([0, 7])}])
    with pytest.raises(InputError, match="no pixel"):
        detector.losses([image], [target | {"masks": torch.zeros_like(target["masks"])}])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": "swin_x"}, "detector.network=.*swin_t"),
        ({"network": 3}, "network"),
        ({"network": SWIN | {"heads": [1, 2, 2, 5]}}, "no multiple of 5"),
        ({"decoder": {"channels": 48}}, "multiple of 32"),
        ({"decoder": {"dropout": 1.0}}, "dropout"),
        ({"loss": {"class_weight": 0, "mask_weight": 0, "dice_weight": 0}}, "nothing to learn"),
        ({"queries": 0}, "queries"),
        ({"score_floor": 1.5}, "score_floor"),
    ],
)
def test_options_are_checked(changes, said):
    with pytest.raises(ConfigError, match=said) as error:
        tiny_mask2former(**changes)
    assert "\n" not in str(error.value)


def test_without_transformers_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "skyloom.detector.mask2former_network", raising=False)
    monkeypatch.delattr("skyloom.detector.mask2former_network", raising=False)
    assert detector_class("mask2former").needs_backbone is False
    with pytest.raises(ConfigError, match=r"needs the package transformers .*skyloom\[detection\]") as error:
        build_detector(tiny_options(), backbone=None, in_chans=2, classes=2, seed=0)
    assert "\n" not in str(error.value)


def test_a_fit_gives_a_model_that_is_read_back_and_finds_candidates(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection to another machine")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    store = tmp_path / "store"
    folder = tmp_path / "folder"
    tiny_mask2former(in_chans=6).network.save_pretrained(folder)
    options = {"name": "mask2former", **tiny_options(weights=str(folder))}
    model = detect(**request(store, detector=options, trainer={"max_epochs": 1}, task=TASK))
    (folder / "model.safetensors").unlink()  # where a fit began is not needed to read its result
    detector = load_detector(model)
    assert not detector.training
    assert detector.in_chans == 6
    assert model.notes["best"]["metric"] == "val/mask_ap"
    assert model.notes["final"]["val/loss"] > 0
    data = tiny_data(store)
    found = skyloom.extract(
        "candidates", model=model, dataset=data.dataset, least_score=0.0, batch_size=2, shard_images=2, device="cpu",
        store=store,
    ).table()  # fmt: skip
    assert len(found) > 0
    assert set(found["class"].to_list()) <= {0, 1}
    one = found.row(0, named=True)
    rows, cols = np.nonzero(decode(one["rle"], (64, 64)))
    assert [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1] == [
        one[k] for k in ("x0_px", "y0_px", "x1_px", "y1_px")
    ]
