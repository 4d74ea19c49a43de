"""detector=sep: SExtractor under the contract of all detectors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from skyloom.errors import ConfigError, InputError

pytest.importorskip("sep", reason="the package sep is not installed; pip install skyloom[detection]")

import sep
import yaml
from scipy.ndimage import gaussian_filter

from skyloom.detector.build import build_detector
from skyloom.detector.candidates import select
from skyloom.detector.pixel_masks import pasting_boxes, pixel_masks
from skyloom.detector.sep import detection_image

CONF = Path(__file__).resolve().parents[2] / "conf" / "detector" / "sep.yaml"
BACKGROUND = {"bw": 64, "bh": 64, "fw": 3, "fh": 3}


def detector(bands=1, **changes):
    options = yaml.safe_load(CONF.read_text()) | changes
    return build_detector(options, backbone=None, in_chans=bands, classes=2, seed=0)


def sky(sources, *, shape=(96, 120), bands=1, noise=1.0, seed=0):
    """White noise with round sources (x, y, flux) of a width of 2 px."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = rng.normal(5.0, noise, (bands, *shape))
    for x0, y0, flux in sources:
        image += flux / (8 * np.pi) * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 8)
    return torch.from_numpy(image.astype(np.float32))


SOURCES = [(20.0, 30.0, 4000.0), (70.3, 40.6, 1500.0), (100.0, 80.0, 800.0)]


def test_finds_the_sources_best_first():
    (found,) = detector().raw([sky(SOURCES)])
    bright = found[found.scores > 0.9]
    assert len(bright) == 3
    np.testing.assert_allclose(bright.centroids, [s[:2] for s in SOURCES], atol=0.3)
    assert (found.scores.diff() <= 0).all()
    assert (found.scores >= 0.5).all()  # the usual score loses nothing that SExtractor finds
    assert set(found.labels.tolist()) == {0}
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= torch.tensor([120, 96])).all()


def test_masks_are_those_of_the_segmentation_map():
    image = sky([*SOURCES, (0.0, 0.0, 3000.0), (119.0, 95.0, 3000.0), (24.0, 33.0, 3000.0)], seed=3)
    (found,) = detector().raw(image[None])
    pixels, blank = detection_image(image.numpy(), BACKGROUND)
    noise = sep.Background(pixels, mask=blank).globalrms
    _, segments = sep.extract(pixels, 1.5, err=noise, segmentation_map=True)
    masks = found.pasted().numpy()
    assert len(masks) == segments.max() == 5
    assert {m.tobytes() for m in masks} == {(segments == n).tobytes() for n in range(1, segments.max() + 1)}
    for mask, box in zip(masks, found.boxes.int().tolist(), strict=True):
        rows, cols = np.nonzero(mask)
        assert box == [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("side", [1, 2, 7, 30, 127])
def test_pasting_boxes_change_no_pixel(side):
    rng = np.random.default_rng(side)
    segments = np.zeros((200, 160), dtype=int)
    for label, (row, col) in enumerate([(0, 0), (0, 13), (160 - side, 0), (200 - side, 160 - side)], start=1):
        square = np.full((side, side), label) * (rng.random((side, side)) < 0.8)
        square[0, 0] = square[-1, -1] = label
        segments[row : row + side, col : col + side] = square
    boxes, masks, places = pixel_masks(segments, 5)
    assert masks.shape[0] == 5
    assert masks.shape[1] >= side
    assert boxes[4].tolist() == [0, 0, 0, 0]
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    pasted = paste_masks_in_image(
        torch.from_numpy(masks)[:, None].float(), torch.from_numpy(places).float(), (200, 160)
    )
    for label in range(1, 6):
        np.testing.assert_array_equal(pasted[label - 1, 0].numpy() >= 0.5, segments == label)
    assert pasting_boxes(np.zeros((0, 2)), side).shape == (0, 4)


def test_bands_add_up_whatever_their_units():
    faint = [(60.0, 50.0, 30.0)]
    image = sky(faint, bands=9, seed=1)
    (one,), (nine,) = detector().raw(image[:1][None]), detector(9).raw([image])
    near = lambda found: ((found.centroids - torch.tensor(faint[0][:2])).norm(dim=1) < 2).sum()  # noqa: E731
    assert near(one) == 0
    assert near(nine) == 1
    scaled = image * torch.logspace(-6, 6, 9)[:, None, None]
    (other,) = detector(9).raw([scaled])
    assert len(other) == len(nine)
    torch.testing.assert_close(other.boxes, nine.boxes)
    pixels, _ = detection_image(sky([], bands=9, seed=2).numpy(), BACKGROUND)
    assert pixels.std() == pytest.approx(1, abs=0.03)


def test_blank_pixels_are_no_sources_and_hide_none_elsewhere():
    image = sky(SOURCES, bands=2)
    image[:, :, 60:] = torch.nan
    image[0, 10:50, 10:40] = torch.inf  # one band has no value there, the other has
    (found,) = detector(2).raw([image])
    assert len(found[found.scores > 0.9]) == 1
    np.testing.assert_allclose(found.centroids[0], SOURCES[0][:2], atol=0.5)
    assert (found.boxes[:, 2] <= 60).all()


@pytest.mark.parametrize("value", [0.0, 3.0, float("nan")])
def test_images_without_noise_have_no_candidates(value):
    (found,) = detector(3).raw([torch.full((3, 40, 50), value)])
    assert len(found) == 0
    assert found.pasted().shape == (0, 40, 50)
    assert len(select([found], score=0.0, nms=1.0, top_k=5)[0]) == 0


def test_options_reach_sextractor():
    image = [sky([*SOURCES, (26.5, 30.0, 3500.0)])]
    number = lambda **changes: len(detector(**changes).raw(image)[0])  # noqa: E731
    usual = number()
    assert number(deblend_contrast=1.0) < usual
    assert number(threshold_sigma=50.0) < usual
    assert number(min_area_px=150) < usual
    assert number(top_k=2) == 2
    assert number(filter=False) != usual
    (stars,) = detector(label=1).raw(image)
    assert set(stars.labels.tolist()) == {1}


def test_more_objects_than_sextractor_allows_by_default():
    pixels = np.zeros((512, 512))
    pixels[6:506:9, 6:506:9] = np.random.default_rng(0).uniform(600, 900, (56, 56))
    pixels = gaussian_filter(pixels, 2.0) + sky([], shape=(512, 512))[0].numpy()
    pixels = torch.from_numpy(pixels.astype(np.float32))[None]
    (found,) = detector(background_px=256).raw([pixels])
    assert len(found) > 2000


def test_what_it_cannot_do_is_said_in_one_line():
    with pytest.raises(ConfigError, match="no weights to train"):
        detector().losses([], [])
    with pytest.raises(InputError, match="built for 2 channel"):
        detector(2).raw([torch.zeros(3, 9, 9)])
    with pytest.raises(ConfigError, match="label=2"):
        detector(label=2)
    with pytest.raises(ConfigError, match="threshold_sigma"):
        detector(threshold_sigma=0)
    assert detector().parts() == {"backbone": [], "heads": []}
    assert not list(detector().parameters())
