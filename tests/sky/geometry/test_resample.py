"""Resampling: stars of two surveys meet, light is kept where asked for, blanks do not spread."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import pixel_to_pixel
from scipy.ndimage import gaussian_filter

from skyloom.errors import ConfigError, InputError
from skyloom.sky.geometry.pixel_map import PixelMap
from skyloom.sky.geometry.resample import coverage, pad, resample, resample_masks, resize

ROMAN, LSST = 0.0575, 0.2


def tangent(ra_deg, dec_deg, scale_arcsec, crpix, turn_deg=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cunit = ["RA---TAN", "DEC--TAN"], ["deg", "deg"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra_deg, dec_deg], crpix
    cos, sin = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    wcs.wcs.cd = scale_arcsec / 3600 * np.array([[-cos, sin], [sin, cos]])
    wcs.wcs.set()
    return wcs


def star(shape, x_px, y_px, sigma_px):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((cols - x_px) ** 2 + (rows - y_px) ** 2) / (2 * sigma_px**2)).astype(np.float32)


def centre(image, near, reach_px):
    """Centre of light around a position."""
    x0, y0 = (round(float(v)) for v in near)
    rows, cols = np.mgrid[y0 - reach_px : y0 + reach_px + 1, x0 - reach_px : x0 + reach_px + 1]
    light = image[rows, cols].astype(np.float64)
    return np.array([(cols * light).sum(), (rows * light).sum()]) / light.sum()


PLACES = {"as is": (0.0, 53.0, -40.0), "turned": (27.0, 53.0, -40.0), "near a pole": (0.0, 359.9998, 89.5)}


@pytest.fixture(params=PLACES)
def grids(request):
    turn_deg, ra_deg, dec_deg = PLACES[request.param]
    roman = tangent(ra_deg, dec_deg, ROMAN, (128.5, 128.5))
    lsst = tangent(ra_deg, dec_deg, LSST, (38.3, 37.1), turn_deg)
    return lsst, roman, (74, 76), (256, 256)


@pytest.mark.parametrize("interpolation", ["lanczos", "cubic"])
def test_stars_of_both_surveys_lie_on_each_other(grids, interpolation):
    lsst, roman, small, large = grids
    to_lsst = PixelMap.between(roman, lsst, large)
    offsets = []
    for x, y in np.random.default_rng(0).uniform(70, 186, (12, 2)):
        xl, yl = pixel_to_pixel(roman, lsst, x, y)
        made = resample(star(small, xl, yl, 1.7)[None], to_lsst, interpolation=interpolation)[0]
        seen = centre(np.nan_to_num(star(large, x, y, 2.0)), (x, y), 12)
        offsets.append(np.hypot(*(centre(np.nan_to_num(made), (x, y), 30) - seen)))
    assert max(offsets) < 0.2  # Roman px


def test_the_sum_of_a_source_is_kept_where_it_shall_be(grids):
    lsst, roman, small, large = grids
    to_lsst = PixelMap.between(roman, lsst, large)
    image = star(small, 37.2, 36.6, 1.7)[None]
    kept = np.nansum(resample(image, to_lsst, conserve_flux=True), dtype=np.float64)
    assert kept == pytest.approx(image.sum(), rel=2e-3)
    bright = resample(image, to_lsst)
    assert np.nanmax(bright) == pytest.approx(1.0, abs=0.03)  # a surface brightness stays what it is


def test_blanks_stay_where_they_are(grids):
    lsst, roman, small, large = grids
    image = np.ones((2, *small), np.float32)
    image[0, 30:33, 40] = np.nan
    made = resample(image, PixelMap.between(roman, lsst, large))
    outside = np.isnan(made[1])
    x, y = pixel_to_pixel(roman, lsst, *np.meshgrid(np.arange(256), np.arange(256)))
    sure = (x > 0) & (x < small[1] - 1) & (y > 0) & (y < small[0] - 1)
    assert not outside[sure].any()
    blank = np.isnan(made[0]) & ~outside
    assert 10 * 3 <= blank.sum() <= 11 * 4  # 3 x 1 px of LSST are 10.4 x 3.5 px of Roman
    assert np.all(np.abs(x[blank] - 40) < 0.6)
    assert coverage(PixelMap.between(roman, lsst, large), small) == pytest.approx((~outside).mean())


def test_masks_take_the_nearest_pixel(grids):
    lsst, roman, small, large = grids
    masks = np.zeros((2, *small), bool)
    masks[0, 30:36, 40:44] = True
    made = resample_masks(masks, PixelMap.between(roman, lsst, large))
    x, y = pixel_to_pixel(roman, lsst, *np.meshgrid(np.arange(256), np.arange(256)))
    inside = (x > 39.51) & (x < 43.49) & (y > 29.51) & (y < 35.49)
    near = (x > 39.49) & (x < 43.51) & (y > 29.49) & (y < 35.51)
    assert made[0][inside].all()
    assert not made[0][~near].any()
    assert not made[1].any()
    assert resample_masks(masks[:0], PixelMap.between(roman, lsst, large)).shape == (0, *large)


def test_resizing_lays_edge_upon_edge():
    image = np.tile(np.arange(10, dtype=np.float32), (1, 8, 1))
    image[0, 0, 0] = np.nan
    made = resize(image, (24, 30))
    assert made.shape == (1, 24, 30)
    assert np.isnan(made[0, :3, :3]).all()
    assert np.isnan(made).sum() == 9
    np.testing.assert_allclose(made[0, 12, 6:24], (np.arange(6, 24) + 0.5) / 3 - 0.5, atol=0.04)


def test_padding_moves_nothing_else():
    image = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    made = pad(image, (9, 8))
    np.testing.assert_array_equal(made[:, 2:6, 1:7], image)
    assert np.count_nonzero(made) == image.size
    with pytest.raises(InputError, match="9x8 px cannot be padded to 4x6 px"):
        pad(made, (4, 6))


def test_an_unknown_interpolation_lists_the_choices(grids):
    lsst, roman, small, large = grids
    with pytest.raises(ConfigError, match="lanczos"):
        resample(np.ones((1, *small), "f4"), PixelMap.between(roman, lsst, large), interpolation="lanzcos")


@pytest.mark.skipif("SKYLOOM_REAL_DATA" not in os.environ, reason="SKYLOOM_REAL_DATA names no folder of real data")
def test_a_real_blend_lies_on_itself():
    """HSC on the grid of HST: the compact source at the right is where HST sees it, by shifting one over the other."""
    folder = Path(os.environ["SKYLOOM_REAL_DATA"]) / "optical"
    paths = [folder / f"Cut_{name}.fits" for name in ("HSC", "HST")]
    ground, space = (fits.getdata(path) for path in paths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        ground_wcs, space_wcs = (WCS(fits.getheader(path)).celestial for path in paths)
    to_ground = PixelMap.between(space_wcs, ground_wcs, space.shape)
    wide = resample(ground[2:3].astype(np.float32), to_ground)[0]
    sharp = gaussian_filter(space.astype(np.float64), 0.3 / 0.03)  # as blurred as seen from the ground
    inner = slice(40, 210), slice(40, 210)
    shifts = [(dx, dy) for dx in range(-8, 9, 2) for dy in range(-8, 9, 2)]
    scores = {
        (dx, dy): np.corrcoef(np.roll(sharp, (dy, dx), (0, 1))[inner].ravel(), wide[inner].ravel())[0, 1]
        for dx, dy in shifts
    }
    best = max(scores, key=scores.get)
    assert scores[best] > 0.95
    assert np.hypot(*best) * 0.03 < 0.1  # arcsec: the two surveys' own astrometry differs by as much


def test_a_coarser_grid_sums_what_lies_under_its_pixels(grids):
    lsst, roman, small, large = grids
    to_roman = PixelMap.between(lsst, roman, small)
    sums = []
    for x, y in np.random.default_rng(1).uniform(100, 156, (20, 2)):
        image = star(large, x, y, 1.0)[None]  # 2.4 Roman px wide, less than a pixel of LSST
        sums.append(np.nansum(resample(image, to_roman, conserve_flux=True), dtype=np.float64) / image.sum())
    assert np.abs(np.array(sums) - 1).max() < 0.02  # single samples: 0.4 to 1.9
    noise = np.random.default_rng(2).normal(size=(1, *large)).astype(np.float32)
    assert np.nanstd(resample(noise, to_roman)) == pytest.approx(ROMAN / LSST, rel=0.1)  # single samples: 0.92


def test_blank_parts_of_a_coarser_pixel_are_left_out_up_to_half():
    to_fine = PixelMap(np.zeros((2, 6, 6)), (2, 2))
    to_fine.coefficients[0, 0, :2], to_fine.coefficients[1, :2, 0] = (3.5, 4.0), (3.5, 4.0)  # 4 x 4 px in each
    image = np.ones((1, 8, 8), np.float32)
    image[0, :4, :1] = np.nan  # a quarter of the first pixel
    image[0, 4:, :3] = np.nan  # three quarters of the one below
    made = resample(image, to_fine, interpolation="linear")[0]
    assert np.isfinite(made).tolist() == [[True, True], [False, True]]
    assert made[1, 1] == pytest.approx(1.0)


def test_a_stretch_to_a_coarser_shape_keeps_the_mean():
    noise = np.random.default_rng(3).normal(size=(1, 256, 256)).astype(np.float32)
    made = resize(noise, (64, 64))
    assert made.std() == pytest.approx(1 / 4, rel=0.1)
    assert made.mean() == pytest.approx(noise.mean(), abs=1e-6)
