"""Masks of queries cut out around their boxes are pasted back as they were, however large they are."""

import pytest
import torch
from torch.nn import functional

from skyloom.detector import mask2former_masks
from skyloom.detector.candidates import Candidates
from skyloom.detector.mask2former_masks import cut_masks, mask_boxes

SIZE, PADDED = (90, 121), (96, 128)


def blobs():
    """Logits at a quarter of the pixels: a small, a long and a large object, one at each corner, one without pixels."""
    y, x = torch.meshgrid(torch.arange(24) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    shapes = [(8, 9, 1.3, 1.0), (15, 3, 13, 1.2), (16, 12, 12, 11), (0, 0, 2, 3), (30.2, 22.4, 2, 2.5), (5, 5, 0.01, 1)]
    return torch.stack([3 * (1 - ((x - a) / c) ** 2 - ((y - b) / d) ** 2) for a, b, c, d in shapes]).clamp(min=-9)


def whole(logits):
    grown = functional.interpolate(logits[None], size=PADDED, mode="bilinear", align_corners=False)[0]
    return grown[:, : SIZE[0], : SIZE[1]]


def pasted(masks, places, boxes):
    rows = torch.zeros(len(boxes))
    return Candidates(SIZE, boxes, rows, rows.long(), masks, places).pasted()


def test_boxes_and_sureness_are_those_of_the_pixels(monkeypatch):
    logits = blobs()
    boxes, sureness = mask_boxes(logits, size_px=SIZE, padded_px=PADDED)
    inside = whole(logits) >= 0
    for number, mask in enumerate(inside[:-1]):
        rows, cols = mask.nonzero().T
        assert boxes[number].tolist() == [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
        assert sureness[number] == pytest.approx(whole(logits)[number].sigmoid()[mask].mean().item(), rel=1e-4)
    assert boxes[-1].tolist() == [0, 0, 0, 0]
    assert sureness[-1] == 0
    monkeypatch.setattr(mask2former_masks, "CELLS", 1)
    assert torch.equal(mask_boxes(logits, size_px=SIZE, padded_px=PADDED)[0], boxes)


def test_masks_with_a_cell_on_each_pixel_come_back_unchanged(monkeypatch):
    logits = blobs()[:-1]
    boxes, _ = mask_boxes(logits, size_px=SIZE, padded_px=PADDED)
    masks, places = cut_masks(logits, boxes, padded_px=PADDED, most_px=128)
    extent = int((boxes[:, 2:] - boxes[:, :2]).max())
    assert masks.shape == (5, extent, extent)
    assert masks.dtype == torch.float16
    sure = whole(logits).abs() > 1e-3
    assert torch.equal(pasted(masks, places, boxes)[sure], (whole(logits) >= 0)[sure])
    monkeypatch.setattr(mask2former_masks, "CELLS", 1)
    assert torch.equal(cut_masks(logits, boxes, padded_px=PADDED, most_px=128)[0], masks)


@pytest.mark.parametrize("most_px", [20, 48])
def test_masks_of_large_objects_have_larger_cells_and_little_changes(most_px):
    logits = blobs()[:-1]
    boxes, _ = mask_boxes(logits, size_px=SIZE, padded_px=PADDED)
    masks, places = cut_masks(logits, boxes, padded_px=PADDED, most_px=most_px)
    assert masks.shape[1] <= most_px + 2
    found, expected = pasted(masks, places, boxes), whole(logits) >= 0
    overlap = (found & expected).sum((1, 2)) / (found | expected).sum((1, 2))
    assert overlap[1] > 0.85, "the long one is only twice as wide as a cell"
    assert (overlap[[0, 2, 3, 4]] > 0.99).all()
    small = (boxes[:, 2:] - boxes[:, :2]).amax(1) <= most_px
    assert small.any()
    assert not small.all()
    assert (overlap[small] == 1).all()


def test_no_mask():
    boxes, sureness = mask_boxes(torch.zeros(0, 24, 32), size_px=SIZE, padded_px=PADDED)
    assert boxes.shape == (0, 4)
    assert sureness.shape == (0,)
    masks, places = cut_masks(torch.zeros(0, 24, 32), boxes, padded_px=PADDED, most_px=128)
    assert masks.ndim == 3
    assert len(masks) == len(places) == 0
