"""Refined positions: where point sources and round galaxies are, and no further from a detection than is said."""

import galsim
import numpy as np
import pytest

from skyloom.sky.drawing.psf_stamps import PsfStamps
from skyloom.sky.psf_position import fwhm_px, refined_positions
from skyloom.sky.source_photometry import psf_flux
from skyloom.sky.survey.bands import Band

SCALE = 0.0575  # arcsec, side of Roman's pixels
FWHM = {"i": 0.7, "Y106": 0.12}  # arcsec, of a band of Rubin and one of Roman
STAMPS = [
    PsfStamps(Band(name, 27.0, 1000.0, {"model": "gaussian", "fwhm_arcsec": fwhm}, None), pixel_scale_arcsec=SCALE,
              size_px=61)
    for name, fwhm in FWHM.items()
]  # fmt: skip
SIZE = 101


def picture(sources, noise=0.0, radius_arcsec=0.0):
    """Sources (x, y, flux) in both bands, of which each has the flux; float32 (2, H, W)."""
    planes = []
    for fwhm in FWHM.values():
        image = galsim.Image(SIZE, SIZE, scale=SCALE, dtype=float)
        shape = galsim.Gaussian(fwhm=fwhm)
        if radius_arcsec:
            shape = galsim.Convolve(shape, galsim.Exponential(half_light_radius=radius_arcsec))
        for x, y, flux in sources:
            offset = galsim.PositionD(x - (SIZE - 1) / 2, y - (SIZE - 1) / 2)
            (shape * flux).drawImage(image, method="no_pixel", offset=offset, add_to_image=True)
        planes.append(image.array)
    noisy = np.stack(planes) + noise * np.random.default_rng(3).normal(size=(2, SIZE, SIZE))
    return noisy.astype(np.float32)


def refined(image, x, y, variance=(1.0, 1.0), **options):
    return refined_positions(image, x, y, STAMPS, variance=variance, **options)


@pytest.mark.parametrize("off", [(0.0, 0.0), (0.9, -0.6), (-1.3, 1.0), (2.0, 2.5)])
@pytest.mark.parametrize("place", [(50.0, 50.0), (48.37, 51.81), (50.5, 49.03)])
def test_a_star_is_found_to_a_hundredth_of_a_pixel_and_keeps_its_flux(place, off):
    image = picture([(*place, 1000.0)])
    at, moved = refined(image, place[0] + off[0], place[1] + off[1], variance=(1e-2, 1e-2))
    assert moved.all()
    assert at[0] == pytest.approx(place, abs=0.01)
    flux = psf_flux(image, *at[0], STAMPS, variance=[1.0, 1.0]).flux[0]
    assert flux == pytest.approx(1000.0, rel=2e-3)
    if np.hypot(*off) > 1:
        left = psf_flux(image, place[0] + off[0], place[1] + off[1], STAMPS, variance=[1.0, 1.0]).flux[0]
        assert left[1] < 750, "which is why it is done"


def test_the_error_of_a_position_is_that_of_the_noise():
    place, off = np.array([50.2, 49.7]), 0.5
    sigma_px = FWHM["Y106"] / SCALE / np.sqrt(8 * np.log(2))
    rng, found = np.random.default_rng(5), []
    clean = picture([(*place, 400.0)])
    for _ in range(60):
        image = (clean + rng.normal(size=clean.shape) * [[[100.0]], [[1.0]]]).astype(np.float32)
        found.append(refined(image, *(place + off), variance=(100.0**2, 1.0))[0][0])
    snr = 400.0 / np.sqrt(4 * np.pi * sigma_px**2)
    assert np.std(found, axis=0) == pytest.approx(sigma_px / snr * np.sqrt(2), rel=0.35)  # Condon 1997, eq. 21
    assert np.mean(found, axis=0) == pytest.approx(place, abs=0.02)


def test_a_galaxy_is_found_in_its_middle():
    at, moved = refined(picture([(50.3, 50.6, 5000.0)], radius_arcsec=0.3), 51.5, 49.5)
    assert moved.all()
    # It is wider than the pixels that are fitted, of which there are a few more on one side: hundredths of a pixel.
    assert at[0] == pytest.approx((50.3, 50.6), abs=0.1)


def test_faint_and_hidden_sources_and_those_without_a_place_stay_where_they_were():
    image = picture([(50.0, 50.0, 4.0)], noise=1.0)  # a signal to noise of 1
    for xy in ((51.0, 50.0), (np.nan, np.nan), (-40.0, 20.0)):
        at, moved = refined(image, *xy)
        assert not moved.any()
        assert np.array_equal(at[0], xy, equal_nan=True)
    blank = np.full_like(image, np.nan)
    assert not refined(blank, 50.0, 50.0)[1].any()


def test_a_source_does_not_leave_for_its_bright_neighbour():
    image = picture([(50.0, 50.0, 10.0), (60.0, 50.0, 50_000.0)])
    at, moved = refined(image, 52.0, 50.0)
    reach = max(fwhm_px(stamp) for stamp in STAMPS) / 2
    assert reach == pytest.approx(0.35 / SCALE, rel=0.01)
    assert np.hypot(*(at[0] - (52.0, 50.0))) <= reach
    assert not moved.any()
    assert at[0].tolist() == [52.0, 50.0]


def test_a_pedestal_that_is_taken_off_and_blank_pixels_change_nothing():
    image = picture([(50.2, 49.6, 1000.0)]) + np.float32(30.0)
    image[:, 47, 48] = np.nan
    at, _ = refined(image, 50.9, 49.0, level=[[30.0, 30.0]])
    assert at[0] == pytest.approx((50.2, 49.6), abs=0.01)


def test_bands_without_a_psf_or_noise_take_no_part():
    image = picture([(50.2, 49.6, 1000.0)])
    image[0] = np.roll(image[0], 5)  # would pull
    at, _ = refined_positions(image, 50.9, 49.0, [None, STAMPS[1]], variance=[1.0, 1.0])
    assert at[0] == pytest.approx((50.2, 49.6), abs=0.01)
    at, _ = refined(image, 50.9, 49.0, variance=(np.nan, 1.0))
    assert at[0] == pytest.approx((50.2, 49.6), abs=0.01)
    at, moved = refined_positions(image, 50.9, 49.0, [None, None], variance=[1.0, 1.0])
    assert (at[0].tolist(), moved.tolist()) == ([50.9, 49.0], [False])
