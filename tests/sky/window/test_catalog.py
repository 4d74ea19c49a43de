"""Which positions lie on an image."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from make.fits import write_fits
from skyloom.errors import InputError
from skyloom.sky.files.image import open_image
from skyloom.sky.window.catalog import sources_on


def grid():
    ra, dec = np.meshgrid(np.arange(0, 360, 7.5), np.arange(-90, 91, 7.5))
    rng = np.random.default_rng(0)
    return np.append(ra, rng.uniform(122.5, 123.5, 400)), np.append(dec, rng.uniform(44.7, 45.3, 400))


def test_positions_on_the_image_and_no_others(tmp_path):
    write_fits(tmp_path / "a.fits", np.zeros((700, 900)))
    image = open_image(tmp_path / "a.fits")
    ra, dec = grid()
    at, row, col = sources_on(image, ra, dec)
    expected = [
        i for i in range(len(ra))
        if SkyCoord(ra[i] * u.deg, dec[i] * u.deg).separation(SkyCoord(123 * u.deg, 45 * u.deg)).deg < 1
        and -0.5 <= (p := image.wcs.world_to_pixel(SkyCoord(ra[i] * u.deg, dec[i] * u.deg)))[0] < 899.5
        and -0.5 <= p[1] < 699.5
    ]  # fmt: skip
    assert at.tolist() == expected
    assert len(at) > 50
    back = image.wcs.pixel_to_world(col, row)
    assert back.separation(SkyCoord(ra[at] * u.deg, dec[at] * u.deg)).max() < 1e-6 * u.arcsec


def test_missing_positions_and_none(tmp_path):
    write_fits(tmp_path / "a.fits", np.zeros((60, 80)))
    at, _, _ = sources_on(open_image(tmp_path / "a.fits"), np.array([np.nan, 123.0]), np.array([np.nan, 45.0]))
    assert at.tolist() == [1]
    assert len(sources_on(open_image(tmp_path / "a.fits"), np.array([np.nan]), np.array([np.nan]))[0]) == 0


def test_an_image_in_galactic_coordinates(tmp_path):
    header = fits.Header({"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR", "CRVAL1": 30.0, "CRVAL2": 0.0,
                          "CRPIX1": 100.5, "CRPIX2": 50.5, "CDELT1": -0.01, "CDELT2": 0.01})  # fmt: skip
    fits.PrimaryHDU(np.zeros((100, 200)), header).writeto(tmp_path / "g.fits")
    there = SkyCoord(l=29.5 * u.deg, b=0.2 * u.deg, frame="galactic").icrs
    at, row, col = sources_on(open_image(tmp_path / "g.fits"), np.array([there.ra.deg]), np.array([there.dec.deg]))
    assert at.tolist() == [0]
    assert row[0] == pytest.approx(69.5, abs=1e-3)
    assert col[0] == pytest.approx(149.5, abs=1e-3)


def test_an_all_sky_image(tmp_path):
    header = fits.Header({"CTYPE1": "RA---CAR", "CTYPE2": "DEC--CAR", "CRVAL1": 180.0, "CRVAL2": 0.0,
                          "CRPIX1": 180.5, "CRPIX2": 90.5, "CDELT1": -1.0, "CDELT2": 1.0})  # fmt: skip
    fits.PrimaryHDU(np.zeros((180, 360)), header).writeto(tmp_path / "s.fits")
    ra, dec = np.array([10.2, 180.3, 350.7]), np.array([-80.1, 0.4, 85.2])
    assert sources_on(open_image(tmp_path / "s.fits"), ra, dec)[0].tolist() == [0, 1, 2]


def test_an_image_without_wcs_is_refused(tmp_path):
    write_fits(tmp_path / "a.fits", wcs=False)
    with pytest.raises(InputError, match=r"a\.fits: the image has no celestial WCS"):
        sources_on(open_image(tmp_path / "a.fits"), np.zeros(1), np.zeros(1))
