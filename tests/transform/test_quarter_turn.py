"""Turns and mirrors: what belongs to an object stays on it."""

import pytest
import torch
from torchvision import tv_tensors

from skyloom.transform.quarter_turn import mirrored_x, mirrored_y, quarter_turn

HEIGHT, WIDTH = 9, 14
MOVES = {
    "none": lambda item: quarter_turn(item, 0),
    "one": lambda item: quarter_turn(item, 1),
    "two": lambda item: quarter_turn(item, 2),
    "back": lambda item: quarter_turn(item, -1),
    "left and right": mirrored_x,
    "top and bottom": mirrored_y,
    "both": lambda item: mirrored_y(quarter_turn(item, 3)),
}


def scene():
    """One object: a mask of 3 x 5 px with its box, and a keypoint on a bright pixel."""
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[0, 2:5, 7:12] = True
    image = mask.float() * 0.5
    image[0, 3, 8] = 1.0
    boxes = tv_tensors.BoundingBoxes([[7.0, 2.0, 12.0, 5.0]], format="XYXY", canvas_size=(HEIGHT, WIDTH))
    points = tv_tensors.KeyPoints([[8.0, 3.0]], canvas_size=(HEIGHT, WIDTH))
    return image, boxes, tv_tensors.Mask(mask), points


@pytest.mark.parametrize("name", MOVES)
def test_boxes_masks_and_keypoints_stay_with_the_image(name):
    image, boxes, masks, points = (MOVES[name](item) for item in scene())
    rows, cols = torch.nonzero(masks[0], as_tuple=True)
    extent = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
    assert boxes[0].tolist() == [float(v) for v in extent]
    x, y = points[0].int().tolist()
    assert image[0, y, x] == 1.0
    assert torch.equal(image > 0, masks)
    assert boxes.canvas_size == points.canvas_size == tuple(image.shape[-2:])
    assert isinstance(masks, tv_tensors.Mask)


def test_a_quarter_is_counter_clockwise_and_four_are_none():
    image = torch.arange(6.0).reshape(1, 2, 3)
    assert quarter_turn(image, 1)[0].tolist() == [[2, 5], [1, 4], [0, 3]]
    for item in scene():
        assert torch.equal(quarter_turn(quarter_turn(item, 3), 1), item)


def test_no_objects_at_all():
    boxes = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(HEIGHT, WIDTH))
    points = tv_tensors.KeyPoints(torch.zeros(0, 2), canvas_size=(HEIGHT, WIDTH))
    assert quarter_turn(boxes, 1).shape == (0, 4)
    assert quarter_turn(points, 1).canvas_size == (WIDTH, HEIGHT)
