"""Pictures of the views are in the artifact, and show what the network was shown."""

import numpy as np
import torch
from PIL import Image

from make.tiny_fit import request
from skyloom.trainer.train import train
from skyloom.trainer.views import GAP_PX, sheet

MONITOR = {
    "images": 0, "every_n_steps": 2, "views_every_n_epochs": 2, "knn_every_n_epochs": 1, "knn_images": 200,
    "knn_k": 5, "knn_temperature": 0.07,
}  # fmt: skip


def test_a_row_per_view_and_a_column_per_image():
    large, small = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 4, 4)
    drawn = sheet([large, small]).numpy()
    place = 8 + GAP_PX
    assert drawn.shape == (2 * place, 3 * place, 3)
    second = np.round(large[1, 0].numpy() * 255)
    assert (drawn[:8, place : place + 8, 2] == second).all()
    assert (drawn[place : place + 4, :4, 0] == np.round(small[0, 0].numpy() * 255)).all()
    assert (drawn[place + 4 :, :, :] == 255).all()


def test_channels_are_colours_and_two_are_drawn_grey():
    colours = torch.stack([torch.zeros(2, 2), torch.ones(2, 2), torch.zeros(2, 2)]).unsqueeze(0)
    assert sheet([colours])[0, 0].tolist() == [0, 255, 0]
    assert sheet([torch.cat([torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)], dim=1)])[0, 0].tolist() == [255] * 3


def test_every_second_epoch_has_one(tmp_path):
    model = train(**request(tmp_path / "store", trainer={"monitor": MONITOR}))
    names = [name for name in model.manifest["files"] if name.startswith("views/")]
    assert names == ["views/epoch-0000.png", "views/epoch-0002.png"]
    with Image.open(model.file(names[0])) as picture:
        assert picture.size == (8 * (32 + GAP_PX), 2 * (32 + GAP_PX))
        assert np.asarray(picture).std() > 10
    assert model.verify() == []
