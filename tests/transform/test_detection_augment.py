"""DetectionAugment: all orientations, one generator, clear errors."""

import pytest
import torch
from torchvision import tv_tensors

from skyloom.errors import ConfigError
from skyloom.transform.detection_augment import DetectionAugment

OFF = {
    "extinction": {}, "wavelength_nm": {}, "pool": [], "pool_min": 0, "pool_max": 0, "reddening_probability": 0.0,
    "reddening_ebv_max_mag": 0.1, "blur_probability": 0.0, "blur_sigma_max_px": 1.0, "noise_probability": 0.0,
    "noise_max": 0.5,
}  # fmt: skip
POOL = {"pool": ["quarter_turn", "mirror_x", "mirror_y"], "pool_min": 1, "pool_max": 3}
FACTS = {"extinction": {"g": 3.64, "i": 2.06}, "wavelength_nm": {"g": 482.7, "i": 754.6}}


def sample():
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[0, 2:5, 6:11] = True
    noise = torch.randn(2, 12, 12, generator=torch.Generator().manual_seed(1))
    return {
        "image": mask.float().repeat(2, 1, 1) + 0.01 * noise,
        "boxes": tv_tensors.BoundingBoxes([[6.0, 2.0, 11.0, 5.0]], format="XYXY", canvas_size=(12, 12)),
        "masks": tv_tensors.Mask(mask),
        "centroids": tv_tensors.KeyPoints([[8.0, 3.0]], canvas_size=(12, 12)),
        "id": 7,
    }


def seeds(augment, number):
    return [augment(sample(), torch.Generator().manual_seed(seed)) for seed in range(number)]


def test_all_eight_orientations_come_and_the_mask_goes_with_the_image():
    seen = set()
    for made in seeds(DetectionAugment(["g", "i"], **{**OFF, **POOL}), 60):
        assert torch.equal(made["image"][0] > 0.5, made["masks"][0])
        assert made["id"] == 7
        x, y = made["centroids"][0].int().tolist()
        seen.add((x, y, *made["boxes"][0].int().tolist()))
    assert len(seen) == 8


def test_a_pool_of_mirrors_moves_half_of_the_samples():
    augment = DetectionAugment(["g", "i"], **{**OFF, "pool": ["mirror_x"], "pool_min": 1, "pool_max": 1})
    moved = [not torch.equal(made["image"], sample()["image"]) for made in seeds(augment, 200)]
    assert 70 < sum(moved) < 130


def test_the_generator_decides_everything_and_the_sample_is_left_alone():
    options = {**OFF, **POOL, **FACTS, "reddening_probability": 0.5, "blur_probability": 0.5, "noise_probability": 1.0}
    augment = DetectionAugment(["g", "i"], **options)
    given = sample()
    torch.manual_seed(3)
    once = augment(given, torch.Generator().manual_seed(5))
    torch.manual_seed(4)
    again = augment(given, torch.Generator().manual_seed(5))
    assert torch.equal(once["image"], again["image"])
    assert torch.equal(once["boxes"], again["boxes"])
    assert torch.equal(given["image"], sample()["image"])
    assert not torch.equal(once["image"], augment(given, torch.Generator().manual_seed(6))["image"])


def test_reddening_dims_blue_more_than_red():
    options = {**OFF, **FACTS, "reddening_probability": 1.0, "reddening_ebv_max_mag": 1.0}
    for made in seeds(DetectionAugment(["g", "i"], **options), 5):
        g, i = (made["image"] / sample()["image"]).flatten(1).median(1).values
        assert 0 < g < i < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": ["mirror"]}, "mirror_x"),
        ({"pool": ["mirror_x"], "pool_max": 2}, "augment.pool_max=2: expected 0 to 1"),
        ({"blur_probability": 2.0}, "augment.blur_probability=2.0: expected 0.0 to 1.0"),
        ({"reddening_probability": 0.5, "extinction": {"g": 3.6}}, r"augment.extinction lacks i.*\+transform.*=NUMBER"),
        ({"blur_probability": 0.5}, "augment.wavelength_nm lacks g, i"),
    ],
)
def test_what_cannot_be_used_is_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        DetectionAugment(["g", "i"], **{**OFF, **options})
    assert "\n" not in str(caught.value)
