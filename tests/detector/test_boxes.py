"""Offsets bring a box to the truth and back."""

import torch

from skyloom.detector.boxes import clip, decode, encode, usable

BOXES = torch.tensor([[1.0, 2, 11, 8], [20, 30, 26, 50]])
TRUTH = torch.tensor([[0.0, 3, 12, 9], [22, 20, 30, 44]])


def test_offsets_bring_a_box_to_the_truth():
    offsets = encode(BOXES, TRUTH, (10, 5))
    torch.testing.assert_close(decode(BOXES, offsets, (10, 5)), TRUTH)
    torch.testing.assert_close(decode(BOXES[:, None], offsets[:, None].expand(-1, 3, -1), (10, 5))[:, 2], TRUTH)
    torch.testing.assert_close(offsets[0], torch.tensor([0.0, 10 / 6, 5 * 0.18232156, 0.0]))


def test_a_wild_offset_stays_finite():
    assert torch.isfinite(decode(BOXES, torch.full((2, 4), 1e4), (1, 1))).all()


def test_boxes_end_at_the_edges_of_their_image():
    sizes = torch.tensor([[10.0, 9], [40, 60]])
    assert clip(BOXES - 3, sizes).tolist() == [[0, 0, 8, 5], [17, 27, 23, 40]]
    assert usable(torch.tensor([[0.0, 0, 1, 0], [0, 0, 1, 1], [0, torch.nan, 1, 1]])).tolist() == [False, True, False]
