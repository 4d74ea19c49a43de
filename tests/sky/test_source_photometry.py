"""Photometry of sources: point sources are unbiased wherever they lie; shared and missing pixels count as said."""

import numpy as np
import pytest
from astropy.io import fits

from make.true_sources import bands_of
from skyloom.errors import ConfigError, InputError
from skyloom.sky.drawing.psf import psf_model
from skyloom.sky.drawing.psf_stamps import PsfStamps
from skyloom.sky.geometry.pixel_map import PixelMap
from skyloom.sky.geometry.resample import noise_kept, resample
from skyloom.sky.geometry.wcs_cards import wcs_of
from skyloom.sky.mask import rle
from skyloom.sky.mask.placed import PlacedMask
from skyloom.sky.source_photometry import (
    ab_mag,
    mask_flux,
    njy,
    noise_factor,
    noise_of,
    pixel_area_factor,
    psf_flux,
)
from skyloom.sky.survey.bands import Band

BAND = Band("i", 27.0, 754.6, {"model": "gaussian", "fwhm_arcsec": 0.8}, None)
SCALE = 0.2


def picture(sources, shape=(60, 80), *, band=BAND, scale=SCALE):
    """Point sources (x, y, flux) drawn at their exact places."""
    import galsim

    image = galsim.Image(shape[1], shape[0], scale=scale, dtype=float)
    middle = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    for x, y, flux in sources:
        offset = galsim.PositionD(x - middle[0], y - middle[1])
        (psf_model(band) * flux).drawImage(image, method="no_pixel", offset=offset, add_to_image=True)
    return image.array.astype("f4")[None]


def stamps(size_px=31, *, band=BAND, scale=SCALE):
    return [PsfStamps(band, pixel_scale_arcsec=scale, size_px=size_px)]


def wcs(size, scale):
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 30.0, "CRVAL2": -20.0}
    cards |= {"CRPIX1": (size + 1) / 2, "CRPIX2": (size + 1) / 2, "CDELT1": -scale / 3600, "CDELT2": scale / 3600}
    return wcs_of(fits.Header(cards).tostring(endcard=False, padding=False))


@pytest.mark.parametrize("place", [(40.0, 30.0), (40.5, 29.5), (17.03, 41.97), (33.333, 22.721), (40.49999, 20.0)])
def test_a_point_source_has_its_flux_wherever_it_lies_between_pixels(place):
    found = psf_flux(picture([(*place, 250.0)]), *place, stamps(), variance=[1.0])
    assert found.flux[0, 0] == pytest.approx(250.0, rel=2e-3)
    assert found.seen[0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize(("survey", "scale"), [("lsst", 0.2), ("roman", 0.0575)])
def test_point_sources_in_bands_of_surveys_are_unbiased(survey, scale):
    band = bands_of(survey)[-1]
    rng = np.random.default_rng(1)
    places = rng.uniform(25, 35, (4, 2))
    one = stamps(25, band=band, scale=scale)
    found = [psf_flux(picture([(x, y, 100.0)], band=band, scale=scale), x, y, one, variance=[1.0]) for x, y in places]
    assert np.array([f.flux[0, 0] for f in found]) == pytest.approx(100.0, rel=0.01)


def test_errors_are_the_scatter_of_the_flux():
    rng = np.random.default_rng(0)
    clean = picture([(30.2, 30.7, 50.0)], (61, 61))
    runs = [
        psf_flux(clean + rng.normal(0, 0.5, clean.shape), 30.2, 30.7, stamps(), variance=[0.25]) for _ in range(150)
    ]
    flux = np.array([run.flux[0, 0] for run in runs])
    assert flux.mean() == pytest.approx(50.0, abs=4 * flux.std() / 12)
    assert flux.std() == pytest.approx(runs[0].error[0, 0], rel=0.2)


def test_the_variance_decides_which_pixels_count():
    image = picture([(40.0, 30.0, 100.0)])
    variance = np.ones_like(image)
    image[0, :, 41:] += 5.0  # spoilt, and known to be
    variance[0, :, 41:] = 1e12
    assert psf_flux(image, 40.0, 30.0, stamps(), variance=variance).flux[0, 0] == pytest.approx(100.0, rel=5e-3)
    assert psf_flux(image, 40.0, 30.0, stamps(), variance=[1.0]).flux[0, 0] > 110
    with pytest.raises(InputError, match="each of 1 bands"):
        psf_flux(image, 40.0, 30.0, stamps(), variance=[1.0, 1.0])


def test_blank_pixels_and_edges_do_not_bias_a_point_source():
    image = picture([(40.3, 30.1, 100.0), (0.4, 20.0, 70.0), (-30.0, 20.0, 5.0)])
    image[0, 28:30, 35:40] = np.nan
    image[0, 33, 41] = np.inf
    found = psf_flux(image, [40.3, 0.4, -30.0, np.nan], [30.1, 20.0, 20.0, 20.0], stamps(), variance=[1.0])
    assert found.flux[:2, 0] == pytest.approx([100.0, 70.0], rel=5e-3)
    assert 0.5 < found.seen[0, 0] < 1
    assert 0.5 < found.seen[1, 0] < 0.85, "part of the source lies outside"
    assert np.isnan(found.flux[2:]).all(), "outside the image, and nowhere"
    assert found.error[1, 0] > found.error[0, 0]
    assert np.isnan(psf_flux(np.full_like(image, np.nan), 40.3, 30.1, stamps(), variance=[1.0]).flux).all()


def test_a_band_without_a_psf_has_no_psf_flux():
    image = np.concatenate([picture([(40.0, 30.0, 100.0)])] * 2)
    found = psf_flux(image, 40.0, 30.0, [None, *stamps()], variance=[1.0, 1.0])
    assert np.isnan(found.flux[0, 0])
    assert found.flux[0, 1] == pytest.approx(100.0, rel=2e-3)


@pytest.mark.parametrize("size", [1, 24])
def test_a_stamp_has_a_middle(size):
    with pytest.raises(ConfigError, match="psf_px"):
        stamps(size)


def block(row0, col0, height, width):
    return PlacedMask(np.ones((height, width), bool), row0, col0)


def test_overlapping_masks_share_or_count_twice():
    image = np.ones((2, 20, 20), "f4")
    image[1] = 3.0
    masks = [block(2, 2, 4, 4), block(4, 4, 4, 4), block(15, 15, 2, 2)]  # the first two share 4 pixels
    split = mask_flux(image, masks, overlap="split")
    double = mask_flux(image, masks, overlap="double")
    assert split.flux[:, 0].tolist() == [16, 12, 4]
    assert double.flux[:, 0].tolist() == [16, 16, 4]
    assert split.flux[:, 1].tolist() == [48, 36, 12]
    assert split.seen[1, 0] == 12 / 16
    covered = np.zeros((20, 20), bool)
    for mask in masks:
        covered[mask.row0 : mask.row0 + mask.pixels.shape[0], mask.col0 : mask.col0 + mask.pixels.shape[1]] = True
    assert split.flux[:, 0].sum() == image[0][covered].sum(), "no pixel is lost or counted twice"
    with pytest.raises(ConfigError, match="overlap"):
        mask_flux(image, masks, overlap="splt")


def test_a_mask_below_another_has_no_flux_of_its_own():
    found = mask_flux(np.ones((1, 9, 9), "f4"), [block(2, 2, 4, 4), block(3, 3, 2, 2)], overlap="split")
    assert found.flux[0, 0] == 16
    assert np.isnan(found.flux[1, 0])
    assert found.seen[1, 0] == 0


def test_blank_pixels_and_pixels_outside_are_left_out_of_a_mask():
    image = np.ones((1, 10, 10), "f4")
    image[0, 0, 0] = np.nan
    masks = [block(0, 0, 3, 3), block(-2, 8, 4, 4), block(20, 20, 2, 2), PlacedMask(np.zeros((0, 0), bool), 3, 3)]
    found = mask_flux(image, masks, overlap="split")
    assert found.flux[:2, 0].tolist() == [8, 4]
    assert found.seen[:2, 0].tolist() == [8 / 9, 4 / 16]
    assert np.isnan(found.flux[2:]).all()
    assert mask_flux(image, [], overlap="split").flux.shape == (0, 1)


def test_a_background_is_taken_off_each_pixel():
    image = picture([(40.0, 30.0, 100.0)]) + 7.0
    assert psf_flux(image, 40.0, 30.0, stamps(), variance=[1.0], level=[[7.0]]).flux[0, 0] == pytest.approx(
        100, rel=2e-3
    )
    assert mask_flux(image, [block(20, 30, 21, 21)], overlap="split", level=7.0).flux[0, 0] == pytest.approx(
        100, rel=2e-3
    )


def test_the_area_of_pixels_brings_fluxes_of_interpolated_images_back():
    image = picture([(30.0, 30.0, 100.0)], (61, 61))
    fine = 0.0575
    to_source = PixelMap.between(wcs(181, fine), wcs(61, SCALE), (181, 181))
    everything = [block(0, 0, 181, 181)]
    for conserve in (False, True):
        grid = resample(image, to_source, conserve_flux=conserve)
        factor = pixel_area_factor(fine, SCALE, conserve_flux=conserve)
        assert mask_flux(grid, everything, overlap="split", pixel_area=factor).flux[0, 0] == pytest.approx(
            100, rel=0.01
        )
        fit = psf_flux(grid, 90.0, 90.0, stamps(101, scale=fine), variance=[1.0], pixel_area=factor)
        assert fit.flux[0, 0] == pytest.approx(100, rel=0.02), "Lanczos widens the PSF by a little"
    raw = resample(image, to_source)
    assert mask_flux(raw, everything, overlap="split").flux[0, 0] == pytest.approx(1209.8, rel=0.01)


@pytest.mark.parametrize("interpolation", ["lanczos", "cubic", "linear"])
def test_errors_in_interpolated_noise_are_the_scatter_of_fluxes(interpolation):
    rng, fine = np.random.default_rng(2), 0.0575
    noise = rng.normal(0, 3.0, (1, 130, 130)).astype("f4")
    to_source = PixelMap.between(wcs(400, fine), wcs(130, SCALE), (400, 400))
    image = resample(noise, to_source, interpolation=interpolation)
    xs, ys = (grid.ravel() for grid in np.meshgrid(np.arange(40.0, 361, 16), np.arange(40.0, 361, 16)))
    area = pixel_area_factor(fine, SCALE, conserve_flux=False)
    found = psf_flux(image, xs, ys, stamps(81, scale=fine), variance=noise_of(image) ** 2, pixel_area=area)
    factor = noise_factor(area, noise_kept(interpolation))
    assert found.flux.std() == pytest.approx(np.median(found.error) * factor, rel=0.12), "441 fluxes, some alike"
    assert factor > 3
    assert noise_factor(4.0, 0.9) == 1.0, "pixels far apart are independent"


def test_a_mask_of_run_lengths_is_cut_to_its_box():
    mask = np.zeros((30, 40), bool)
    mask[5:9, 7:12] = True
    mask[5, 7] = False
    placed = PlacedMask.from_rle(rle.encode(mask), mask.shape, row0=100, col0=200)
    assert (placed.row0, placed.col0, placed.pixels.shape) == (105, 207, (4, 5))
    assert np.array_equal(placed.pixels, mask[5:9, 7:12])
    assert PlacedMask.from_rle(rle.encode(np.zeros((4, 4), bool)), (4, 4)).pixels.size == 0


def test_units_and_noise():
    assert njy(1.0, 27.0) == pytest.approx(57.5440, rel=1e-5)
    assert ab_mag(njy(1.0, 27.0)) == pytest.approx(27.0)
    assert np.isnan(ab_mag([0.0, -1.0])).all()
    image = np.random.default_rng(0).normal(0, 2.0, (1, 100, 100)).astype("f4")
    image[0, :30] = 1000.0
    free = np.ones((100, 100), bool)
    free[:30] = False
    assert noise_of(image, free)[0] == pytest.approx(2.0, rel=0.05)
    assert noise_of(image)[0] > 2.5
