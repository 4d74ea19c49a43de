"""Matches do not depend on how many pairs are looked at together; samples keep to their shares."""

import torch
from torchvision.ops import box_iou

from skyloom.detector import matching
from skyloom.detector.matching import best_matches, sample


def boxes(number, seed):
    corner = torch.rand(number, 2, generator=torch.Generator().manual_seed(seed)) * 50
    return torch.cat([corner, corner + 10], dim=1)


def test_matches_in_pieces_are_those_of_all_pairs(monkeypatch):
    truth, found = boxes(37, 0), boxes(200, 1)
    pairs = box_iou(truth, found)
    whole = best_matches(truth, found, low_quality=True)
    monkeypatch.setattr(matching, "PAIRS", 1000)
    for one, other in zip(whole, best_matches(truth, found, low_quality=True), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(whole[0], pairs.max(0).values)
    assert torch.equal(whole[1], pairs.argmax(0))
    assert whole[2][pairs.argmax(1)].all()
    assert whole[2].sum() == pairs.argmax(1).unique().numel()


def test_without_truth_nothing_matches():
    overlap, _, best = best_matches(torch.zeros(0, 4), boxes(5, 0), low_quality=True)
    assert (overlap < 0).all()
    assert not best.any()


def test_samples_fill_up_with_negatives():
    positive = torch.arange(100) < 10
    torch.manual_seed(0)
    rows, others = sample(positive, ~positive, number=40, positive_fraction=0.5)
    assert len(rows) == 10
    assert len(others) == 30
    assert positive[rows].all()
    assert not positive[others].any()
    rows, others = sample(~positive, positive, number=40, positive_fraction=0.5)
    assert len(rows) == 20 == len(rows.unique())
    assert len(others) == 10
