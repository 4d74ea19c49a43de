"""The choices of the other pipeline: rounder shapes, positions rounded down, padded boxes that may leave the image."""

import numpy as np
import pytest

from make.true_sources import bands_of, true_sources
from skyloom.sky.drawing.psf import psf_model
from skyloom.sky.mask import rle
from skyloom.sky.mask.deepdisc import DeepDiscDrawer, _distortion

BANDS = bands_of("lsst")[3:4]
NOISE = np.array([0.07])


@pytest.fixture(scope="module")
def drawer():
    return DeepDiscDrawer([psf_model(BANDS[0])], 0.2, BANDS)


@pytest.fixture(scope="module")
def sources():
    every = true_sources(np.random.default_rng(0), 60, faintest=21)
    from dataclasses import replace

    return replace(every, flux=every.flux[:, 3:4], bulge_fraction=every.bulge_fraction[:, 3:4])


def test_the_axis_ratio_is_taken_for_a_distortion():
    import galsim

    shear = galsim.Shear(**_distortion(0.5, 0.0))
    assert shear.q == pytest.approx(np.sqrt((1 - 1 / 3) / (1 + 1 / 3)))  # rounder than 0.5
    assert abs(shear.beta / galsim.degrees) == pytest.approx(90)


def test_box_and_mask_sit_on_the_position_rounded_down(drawer, sources):
    galaxy = int(np.flatnonzero(~sources.is_star)[0])
    rows = [drawer.row(sources, galaxy, x, 70.0, NOISE, 5.0, (148, 148), 12) for x in (70.0, 70.9)]
    assert rows[0] == rows[1]
    x, y, width, height = (rows[0][f"bbox_{name}_px"] for name in "xywh")
    assert (x + width / 2, y + height / 2) == (70, 70)
    mask = rle.decode(rows[0]["rle"], (148, 148))
    at = np.flatnonzero(mask.any(axis=0))
    assert abs((at[0] + at[-1]) / 2 - 70) <= 0.5
    assert width == at[-1] - at[0] + 8
    assert not rows[0]["clipped"]


def test_boxes_leave_the_image_and_masks_do_not(drawer, sources):
    row = drawer.row(sources, 0, 1.0, 147.0, NOISE, 5.0, (148, 148), 12)
    assert row["bbox_x_px"] < 0
    assert row["clipped"]
    assert row["area_px"] == rle.area(row["rle"], (148, 148)) > 0


def test_rejections(drawer, sources):
    place = (70.0, 70.0)
    assert drawer.row(sources, 0, *place, np.array([1e9]), 5.0, (148, 148), 12)[0] == "empty_mask"
    assert drawer.row(sources, 0, *place, np.array([np.nan]), 5.0, (148, 148), 12)[0] == "galsim_fail"
    assert drawer.row(sources, 0, *place, NOISE, 5.0, (148, 148), 99999)[0] == "small_mask_99999px"
    assert drawer.row(sources, 0, 400.0, 400.0, NOISE, 5.0, (148, 148), 12)[0] == "invalid_contours"
    star = int(np.flatnonzero(sources.is_star)[0])
    assert isinstance(drawer.row(sources, star, *place, NOISE, 5.0, (148, 148), 12), dict)
