"""A detector that enlarges its images sees what another sees in enlarged images, and answers in its own pixels."""

import torch
from torch.nn import functional

from make.rcnn import scene, tiny_rcnn

COMMON = {"score_floor": 0.0, "box": {"positive_fraction": 0.5}}


def pair():
    """A detector of images twice as large, and one that enlarges, with equal weights."""
    plain = tiny_rcnn(**COMMON, rpn={"anchor_sizes_px": [16, 32, 64, 128, 256]}).eval()
    halves = {"rpn": {"anchor_sizes_px": [8, 16, 32, 64, 128]}, "roi": {"canonical_size_px": 112}}
    own = tiny_rcnn(**COMMON, **halves, enlarge=2).eval()
    own.load_state_dict(plain.state_dict())
    return plain, own


def test_candidates_are_those_of_the_enlarged_image_in_pixels_of_the_own():
    plain, own = pair()
    image, _ = scene(size_px=48)  # 96 px when enlarged: three times 32, so that nothing is padded
    large = functional.interpolate(image[None], scale_factor=2, mode="bilinear", align_corners=False)
    (wanted,), (found,) = plain.raw(large), own.raw(image[None])
    assert found.size_px == (48, 48)
    assert len(found) == len(wanted) > 10
    assert torch.allclose(found.scores, wanted.scores, atol=1e-5)
    assert torch.allclose(found.boxes * 2, wanted.boxes, atol=1e-3)
    assert torch.allclose(found.masks, wanted.masks, atol=1e-4)
    assert torch.allclose((found.centroids + 0.5) * 2, wanted.centroids + 0.5, atol=1e-2)
    assert found.pasted().shape == (len(found), 48, 48)


def test_sides_need_not_be_multiples_of_what_the_backbone_wants():
    own = pair()[1]
    (found,) = own.raw([scene(size_px=41)[0]])
    assert found.size_px == (41, 41)
    assert found.boxes.max() <= 41


def test_losses_are_those_of_the_enlarged_image():
    plain, own = pair()
    image, target = scene(size_px=48)
    large = functional.interpolate(image[None], scale_factor=2, mode="bilinear", align_corners=False)
    twice = {"boxes": target["boxes"] * 2, "labels": target["labels"], "centroids": target["centroids"] * 2 + 0.5}
    twice["masks"] = target["masks"].repeat_interleave(2, 1).repeat_interleave(2, 2)
    values = []
    for detector, images, truth in ((plain, large, twice), (own, image[None], target)):
        torch.manual_seed(0)
        values.append(detector.losses(images, [truth]))
    for name in values[0]:
        assert torch.allclose(values[0][name], values[1][name], rtol=1e-3, atol=1e-4), name
