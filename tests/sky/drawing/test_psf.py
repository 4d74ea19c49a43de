"""PSFs of bands: their widths and fluxes, and one line for a model that cannot be drawn."""

from dataclasses import replace

import numpy as np
import pytest

from make.true_sources import bands_of
from skyloom.errors import ConfigError
from skyloom.sky.drawing.psf import fwhm_arcsec, psf_model, psf_stamp
from skyloom.sky.survey.bands import Band

GAUSSIAN = Band("i", 27.0, 754.6, {"model": "gaussian", "fwhm_arcsec": 0.8}, None)


def test_the_bands_of_lsst_are_a_little_wider_than_the_atmosphere():
    for band in bands_of("lsst"):
        stamp = psf_stamp(band, 0.2, 65)
        assert 0.99 < stamp.sum() <= 1.0
        assert stamp.argmax() == stamp.size // 2  # the middle pixel
        assert fwhm_arcsec(psf_model(band)) == pytest.approx(band.psf["fwhm_arcsec"], rel=0.03)


def test_a_band_of_roman_is_as_sharp_as_its_mirror():
    band = bands_of("roman")[-1]
    stamp = psf_stamp(band, 0.0115, 81)  # a fifth of a pixel
    width = 2 * np.sqrt(np.count_nonzero(stamp > stamp.max() / 2) / np.pi) * 0.0115
    assert width == pytest.approx(np.degrees(band.wavelength_nm * 1e-9 / 2.36) * 3600, rel=0.1)


def test_widths_of_the_simple_models():
    assert fwhm_arcsec(psf_model(GAUSSIAN)) == pytest.approx(0.8, rel=1e-3)
    moffat = replace(GAUSSIAN, psf={"model": "moffat", "fwhm_arcsec": 0.7, "beta": 3.0})
    assert fwhm_arcsec(psf_model(moffat)) == pytest.approx(0.7, rel=1e-3)
    airy = replace(GAUSSIAN, psf={"model": "airy", "diameter_m": 2.4, "obscuration": 0.0})
    assert fwhm_arcsec(psf_model(airy)) == pytest.approx(1.029 * np.degrees(754.6e-9 / 2.4) * 3600, rel=0.01)


@pytest.mark.parametrize(
    ("psf", "words"),
    [
        ({"model": "gausian", "fwhm_arcsec": 1}, "Did you mean 'gaussian'"),
        ({"model": "gaussian"}, "needs fwhm_arcsec"),
        ({"model": "gaussian", "fwhm_arcsec": "wide"}, "correct these numbers"),
        ({"model": "roman", "sca": 7, "pupil_bin": 16}, "a Roman PSF=i is not known; choose one of: F184"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(psf, words):
    with pytest.raises(ConfigError, match=r"survey\.bands\.i\.psf") as caught:
        psf_model(replace(GAUSSIAN, psf=psf))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
