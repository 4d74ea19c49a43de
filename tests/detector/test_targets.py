"""Truth that cannot be is refused with the image, the object and the reason."""

import pytest
import torch

from make.rcnn import scenes
from skyloom.detector.images import normalised
from skyloom.detector.targets import checked_truth
from skyloom.errors import InputError


def check(change, **wanted):
    images, targets = scenes(2, 3)
    change(targets[1])
    batch = normalised(images, mean=torch.zeros(2), std=torch.ones(2), multiple_px=1, pad_to_px=None)
    return checked_truth(targets, batch, **({"classes": 2, "masks": True, "centroids": True} | wanted))


def put(key, row, value):
    def change(target):
        target[key][row] = value

    return change


def test_objects_of_all_images_stand_one_behind_the_other():
    truth = check(lambda target: None)
    assert (truth.counts, truth.first) == ([2, 3], [0, 2])
    assert torch.equal(truth.of(1), truth.boxes[2:])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("boxes", 2, torch.tensor([50.0, 5, 70, 9])), "object 2: the box .* lies outside the image of 64x64 px"),
        (put("boxes", 0, torch.tensor([5.0, 5, 5, 9])), "object 0: the box .* has no area"),
        (put("boxes", 1, torch.tensor([torch.nan, 5, 5, 9])), "object 1: the box .* has no area"),
        (put("labels", 1, 2), "object 1: label 2 is not one of the 2 classes, 0 to 1"),
        (put("labels", 1, -1), "label -1"),
        (put("masks", 0, False), "object 0: its mask has no pixel"),
        (lambda t: t.update(masks=t["masks"][:, :32]), r"masks of the shape \(3, 64, 64\), found \(3, 32, 64\)"),
        (lambda t: t.update(boxes=t["boxes"][:2]), r"boxes of the shape \(3, 4\)"),
        (lambda t: t.pop("centroids"), "no 'centroids'"),
    ],
)
def test_bad_truth_is_refused(change, words):
    with pytest.raises(InputError, match=f"image 1 .*{words}"):
        check(change)


def test_what_is_not_needed_is_not_looked_at():
    assert check(lambda t: t.pop("masks"), masks=False).masks is None
    assert check(lambda t: t.pop("centroids"), centroids=False).centroids is None


def test_an_edge_by_rounding_is_inside():
    check(put("boxes", 0, torch.tensor([0.0, 0, 64.00001, 20])))
