"""Galaxies: the axis ratio is the axis ratio, the angle runs from north to west, the flux stays."""

import numpy as np
import pytest

from skyloom.sky.drawing.light_profile import galaxy, star

ROUND = {"disk_hlr_arcsec": 1.0, "disk_q": 1.0, "bulge_hlr_arcsec": 0.6, "bulge_q": 1.0, "position_angle_deg": 0.0}


@pytest.mark.parametrize("bulge_fraction", [0.0, 1.0])
@pytest.mark.parametrize("q", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("angle", [0.0, 30.0, 120.0])
def test_axis_ratio_and_angle_are_what_was_asked_for(bulge_fraction, q, angle):
    shape = {**ROUND, "disk_q": q, "bulge_q": q, "position_angle_deg": angle}
    profile = galaxy(**shape, bulge_fraction=bulge_fraction, flux=1.0)
    north, west = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    for k in (
        0.5,
        2.0,
        5.0,
    ):  # q times the frequency along the major axis is as far out as the frequency along the minor
        along_major = profile.kValue(q * k * west, q * k * north)
        along_minor = profile.kValue(k * north, -k * west)
        assert along_major.real == pytest.approx(along_minor.real, rel=1e-6)
        assert along_minor.real < 0.97


def test_half_light_area_does_not_depend_on_the_axis_ratio():
    for q in (1.0, 0.3):
        profile = galaxy(**{**ROUND, "disk_q": q}, bulge_fraction=0.0, flux=1.0)
        image = profile.drawImage(nx=401, ny=401, scale=0.05, method="no_pixel").array
        y, x = (np.mgrid[:401, :401] - 200) * 0.05
        inside = (x / np.sqrt(q)) ** 2 + (y * np.sqrt(q)) ** 2 <= 1  # north up, so the long axis is y
        assert image[inside].sum() == pytest.approx(0.5, abs=0.01)


def test_flux_and_shear():
    parts = galaxy(**ROUND, bulge_fraction=0.3, flux=7.0)
    assert parts.flux == pytest.approx(7.0)
    assert parts.obj_list[1].flux == pytest.approx(2.1)
    lensed = galaxy(**ROUND, bulge_fraction=0.0, flux=1.0, shear_1=0.2)
    assert lensed.kValue(2.0, 0).real == pytest.approx(lensed.kValue(0, 2.0 * 1.2 / 0.8).real)  # longer along x
    assert star(3.0).flux == 3.0
