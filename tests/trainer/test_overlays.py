"""Pictures of truth and prediction."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from skyloom.detector.candidates import Candidates
from skyloom.store.aside import written_aside
from skyloom.trainer import overlays
from skyloom.trainer.overlays import GAP_PX, Overlays, display, row

SIDE = 32


def image(bands):
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(bands, SIDE, SIDE, generator=draw)
    pixels[:, 10:14, 10:14] += 50
    pixels[:, :2] = torch.nan
    return pixels


def objects(number):
    masks = torch.zeros(number, SIDE, SIDE, dtype=torch.bool)
    masks[:, 9:15, 9:15] = True
    return torch.tensor([[9.0, 9, 15, 15]]).repeat(number, 1), torch.arange(number), masks


@pytest.mark.parametrize("bands", [1, 2, 3, 6, 9])
def test_images_of_any_number_of_bands_are_shown(bands):
    shown = display(image(bands))
    assert shown.shape == (3, SIDE, SIDE)
    assert shown.dtype == torch.uint8
    assert int(shown[:, 12, 12].min()) > 150
    assert float(shown[:, 20:].float().mean()) < 60


def test_an_image_without_a_single_number_is_black():
    assert int(display(torch.full((3, 8, 8), torch.nan)).max()) == 0
    assert int(display(torch.zeros(1, 8, 8)).max()) == 0


def test_red_is_the_long_end():
    pixels = torch.zeros(3, 8, 8)
    pixels[2, 4, 4] = 1.0
    assert display(pixels)[:, 4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(("true", "found"), [(2, 1), (0, 1), (1, 0), (0, 0)])
def test_truth_and_prediction_stand_side_by_side(true, found, masks):
    drawn = row(image(6), *(objects(n)[: 3 if masks else 2] + (() if masks else (None,)) for n in (true, found)))
    side = (drawn.shape[2] - 3 * GAP_PX) // 3
    assert side >= overlays.SIDE_PX
    panels = [drawn[:, :, k * (side + GAP_PX) : k * (side + GAP_PX) + side] for k in range(3)]
    assert torch.equal(panels[0], panels[1]) is (true == 0)
    assert torch.equal(panels[0], panels[2]) is (found == 0)
    factor = side // SIDE
    far = slice(20 * factor, None)
    rounding = (panels[0][:, far].int() - panels[1][:, far].int()).abs().max()
    assert int(rounding) <= 1


def test_a_box_without_area_is_left_out():
    boxes, labels, masks = objects(1)
    boxes[0, 2:] = boxes[0, :2]
    drawn = row(image(1), (boxes, labels, masks), (boxes, labels, None))
    plain, _, found = drawn.split(overlays.SIDE_PX + GAP_PX, dim=2)
    assert torch.equal(plain, found), "neither a box nor a mask"


def callback(tmp_path, **options):
    usual = {"every_n_epochs": 2, "images": 3, "write": lambda name: written_aside(tmp_path / name)}
    return Overlays(**{**usual, "folder": tmp_path, "loggers": [], **options})


def validate(drawer, epoch, images=2, batches=3):
    trainer = SimpleNamespace(current_epoch=epoch, global_step=7)
    drawer.on_validation_start(trainer, None)
    for batch_idx in range(batches):
        found = Candidates((SIDE, SIDE), *objects(1)[:1], torch.ones(1), torch.zeros(1, dtype=torch.int64),
                           torch.ones(1, 4, 4), objects(1)[0])  # fmt: skip
        boxes, labels, masks = objects(1)
        batch = {
            "image": torch.stack([image(3)] * images), "size_px": torch.tensor([[SIDE, SIDE]] * images),
            "targets": [{"boxes": boxes, "labels": labels, "masks": masks}] * images,
        }  # fmt: skip
        drawer.on_validation_batch_end(trainer, None, {"found": [found] * images}, batch, batch_idx)
    drawer.on_validation_end(trainer, None)


def test_pictures_come_when_they_are_due_and_loggers_get_them(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(overlays, "log_picture", lambda logger, key, path, step: told.append((key, path.name, step)))
    drawer = callback(tmp_path, loggers=["logger"])
    for epoch in range(4):
        validate(drawer, epoch)
    names = ["epoch-0001.png", "epoch-0003.png"]
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == names
    assert told == [("overlays", name, 7) for name in names]
    with Image.open(tmp_path / "overlays" / names[0]) as file:
        picture = np.asarray(file)
    assert picture.shape == (3 * (overlays.SIDE_PX + GAP_PX), 3 * (overlays.SIDE_PX + GAP_PX), 3)


def test_images_of_unequal_size_share_a_picture(tmp_path):
    drawer = callback(tmp_path, every_n_epochs=1)
    drawer._rows = [torch.zeros(3, 4, 5, dtype=torch.uint8), torch.zeros(3, 2, 9, dtype=torch.uint8)]
    drawer.on_validation_end(SimpleNamespace(current_epoch=0, global_step=0), None)
    with Image.open(tmp_path / "overlays" / "epoch-0000.png") as picture:
        assert picture.size == (9, 6 + 2 * GAP_PX)
