"""Tiles and patches of simulated surveys: names, common pixels, and any place on the sky."""

import re

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from make.simulated import joint_survey
from skyloom.errors import ConfigError
from skyloom.sky.simulated.joint_layout import lay_tiles, place_of
from skyloom.sky.simulated.joint_patches import lay_patches


def laid(tiles=4, tracts=1, ra_deg=52.9, dec_deg=-40.0):
    pair = joint_survey().surveys
    place = {"ra_deg": ra_deg, "dec_deg": dec_deg}
    fields = lay_tiles(pair["roman"], tiles, 200, overlap_px=20, **place)
    return fields, lay_patches(pair["lsst"], fields, tracts, inner_px=40, border_px=12, **place)


@pytest.mark.parametrize(("ra_deg", "dec_deg"), [(52.9, -40.0), (0.0, 10.0), (120.0, 90.0), (10.0, -89.99)])
@pytest.mark.parametrize("tracts", [1, 2])
def test_patches_cover_every_tile_wherever_it_lies(ra_deg, dec_deg, tracts):
    tiles, patches = laid(tracts=tracts, ra_deg=ra_deg, dec_deg=dec_deg)
    for tile in tiles:
        edge = np.linspace(-0.5, 199.5, 9)
        x, y = (v.ravel() for v in np.meshgrid(edge, edge))
        ra, dec = tile.wcs().all_pix2world(x, y, 0)
        covered = np.zeros(len(ra), bool)
        for patch in patches:
            px, py = patch.positions(ra, dec)
            row0, row1, col0, col1 = patch.inner
            covered |= (px >= col0 - 0.5) & (px < col1 - 0.5) & (py >= row0 - 0.5) & (py < row1 - 0.5)
        assert covered.all()


def test_neighbouring_tiles_share_a_strip_across_ra_0():
    tiles, _ = laid(tiles=2, ra_deg=0.0, dec_deg=5.0)
    centres = SkyCoord([t.ra_deg for t in tiles] * u.deg, [t.dec_deg for t in tiles] * u.deg)
    assert centres[0].separation(centres[1]).arcsec == pytest.approx((200 - 20) * 0.0575, rel=1e-6)
    assert {t.ra_deg > 180 for t in tiles} == {True, False}


def test_tiles_are_called_after_their_centre_with_as_many_decimals_as_needed():
    assert [t.name for t in laid(tiles=1)[0]] == ["52.90_-40.0"]
    names = [t.name for t in laid(tiles=4)[0]]
    assert len(set(names)) == 4
    pattern = joint_survey().surveys["roman"].tiles.name
    assert all(re.fullmatch(pattern, name) for name in names)


def test_patches_of_one_tract_have_pixels_in_common():
    _, patches = laid()
    first, other = patches[0], patches[1]
    x = np.arange(5.0)
    ra, dec = first.wcs().all_pix2world(x, x + 40, 0)
    there = other.positions(ra, dec)
    assert there + np.array(other.origin_px[::-1])[:, None] == pytest.approx(
        np.stack([x, x + 40]) + np.array(first.origin_px[::-1])[:, None], abs=1e-6
    )
    assert other.name == "tract3256_patch0_1"


def test_the_far_side_of_the_sky_is_on_no_tile():
    tile = laid(tiles=1)[0][0]
    assert np.isnan(tile.positions(np.array([232.9]), np.array([40.0]))).all()


def test_files_lie_where_the_survey_says():
    pair = joint_survey().surveys
    where = place_of(pair["roman"], "image", tile="1.0_-2.0", band="H158")
    assert where.as_posix() == "images/simple_model/coadd/dc2_H158_1.0_-2.0.fits"
    assert place_of(pair["lsst"], "image", tile="tract1_patch0_0", band="u").name == "tract1_patch0_0_bandu.fits"
    with pytest.raises(ConfigError, match="says no name for the segmentation"):
        place_of(pair["lsst"], "segmentation")


def test_what_does_not_fit_is_refused():
    roman = joint_survey().surveys["roman"]
    with pytest.raises(ConfigError, match="overlap_px=200: expected less than a tile's side"):
        lay_tiles(roman, 1, 200, overlap_px=200, ra_deg=0, dec_deg=0)
    with pytest.raises(ConfigError, match="reach more than 5 deg"):
        lay_tiles(roman, 90000, 8825, overlap_px=0, ra_deg=0, dec_deg=0)
