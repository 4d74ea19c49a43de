"""Residuals: offsets on the sky by another way, at RA 0 and at a pole, and bins by hand."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from skyloom.errors import ConfigError, InputError
from skyloom.metric.residuals import binned_residuals, centre_and_spread, position_offsets


@given(ra=st.floats(0, 360), dec=st.floats(-89.9, 89.9), east=st.floats(-5, 5), north=st.floats(-5, 5))
def test_offsets_are_those_that_were_made(ra, dec, east, north):
    true = SkyCoord(ra * u.deg, dec * u.deg)
    moved = true.spherical_offsets_by(east * u.arcsec, north * u.arcsec)
    got = position_offsets(*(np.array([v]) for v in (true.ra.deg, true.dec.deg, moved.ra.deg, moved.dec.deg)))
    assert np.ravel(got) == pytest.approx([east, north], abs=1e-5)


def test_at_the_pole_and_across_ra_0():
    east, north = position_offsets(np.array([0.0]), np.array([0.0]), np.array([359.9999]), np.array([0.0]))
    assert (east[0], north[0]) == pytest.approx((-0.36, 0), abs=1e-6)
    east, north = position_offsets(np.array([10.0]), np.array([90.0]), np.array([10.0]), np.array([89.9999]))
    assert (east[0], north[0]) == pytest.approx((0, -0.36), abs=1e-6)


def test_centre_and_spread_shrug_at_outliers():
    got = centre_and_spread(np.array([1.0, 2.0, 3.0, 4.0, 1e9, np.nan]))
    assert (got["number"], got["median"]) == (5, 3)
    assert got["spread"] == pytest.approx(1.4826)
    assert np.isnan(centre_and_spread(np.array([np.nan]))["median"])
    noise = np.random.default_rng(0).normal(0, 2, 20_000)
    assert centre_and_spread(noise)["spread"] == pytest.approx(2, rel=0.03)


def test_bins_include_the_last_end_only():
    table = binned_residuals([1.0, 3.0, 5.0, 7.0, np.nan, 9.0], [0.0, 0.5, 1.0, 2.0, 0.1, 2.1], [0, 1, 2])
    assert table["number"].to_list() == [2, 2]
    assert table["median"].to_list() == [2, 6]
    assert table["error"][0] == pytest.approx(1.2533 * 1.4826 / np.sqrt(2))


def test_bad_input():
    with pytest.raises(ConfigError, match="rising"):
        binned_residuals([1.0], [1.0], [2, 1])
    with pytest.raises(InputError, match="2 residuals and 1 values"):
        binned_residuals([1.0, 2.0], [1.0], [1, 2])
