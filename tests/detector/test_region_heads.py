"""Masks are learnt on the grid of their box, centroids found below a cell of it."""

import torch

from make.rcnn import scenes, tiny_rcnn
from skyloom.detector.box_stages import Regions
from skyloom.detector.images import normalised
from skyloom.detector.region_heads import _cells, located
from skyloom.detector.targets import checked_truth


def test_the_target_of_a_box_that_fits_is_its_whole_mask():
    detector = tiny_rcnn()
    images, targets = scenes(2, 3)
    batch = normalised(images, mean=torch.zeros(2), std=torch.ones(2), multiple_px=1, pad_to_px=None)
    truth = checked_truth(targets, batch, classes=2, masks=True, centroids=True)
    image = torch.tensor([0, 0, 1, 1, 1])
    regions = Regions(truth.boxes, image, truth.labels, torch.arange(5))
    assert (detector.mask.targets(regions, truth, 14) == 1).all()
    wide = Regions(truth.boxes[4:] + torch.tensor([-8.0, 0, 0, 0]), image[4:], truth.labels[4:], torch.tensor([4]))
    target = detector.mask.targets(wide, truth, 14)[0]
    width = (wide.boxes[0, 2] - wide.boxes[0, 0]).item()
    assert abs(target.mean().item() - (width - 8) / width) < 0.08
    assert target[:, -1].all()
    assert not target[:, 0].any()


def test_a_peak_between_cells_is_found():
    boxes = torch.tensor([[10.0, 20, 38, 34], [0, 0, 14, 14]])
    wanted = torch.tensor([[23.3, 26.1], [4.4, 9.9]])
    cell = (boxes[:, 2:] - boxes[:, :2]) / 28
    grid = torch.arange(28) + 0.5
    x = boxes[:, None, 0] + grid * cell[:, :1] - 0.5 - wanted[:, :1]
    y = boxes[:, None, 1] + grid * cell[:, 1:] - 0.5 - wanted[:, 1:]
    logits = -(x[:, None, :] ** 2) - y[:, :, None] ** 2
    torch.testing.assert_close(located(logits, boxes), wanted, rtol=0, atol=1e-3)


def test_a_centroid_outside_the_box_or_unknown_has_no_cell():
    boxes = torch.tensor([[10.0, 10, 20, 20]]).expand(4, 4)
    points = torch.tensor([[9.5, 19.5], [9.0, 15.0], [torch.nan, 15], [14.9, 14.9]])
    cell, inside = _cells(points, boxes, 10)
    assert inside.tolist() == [True, False, False, True]
    assert cell[[0, 3]].tolist() == [90, 55]
