"""The simulated sky: counts, clustering, colours and shapes of what is drawn."""

import numpy as np
import polars as pl
import pytest

from make.simulated import joint_survey
from skyloom.sky.simulated.joint_layout import lay_tiles
from skyloom.sky.simulated.joint_shapes import Box
from skyloom.sky.simulated.joint_sources import make_sky


def sky(seed=0, *, ra_deg=52.9, dec_deg=-40.0, side_px=6000, **options):
    pair = joint_survey().surveys
    fields = lay_tiles(pair["roman"], 1, side_px, overlap_px=0, ra_deg=ra_deg, dec_deg=dec_deg)
    values = {
        "faintest_mag": 25.0,
        "crowding": 1.0,
        "stars_per_arcmin2": 4.0,
        "supernovae": 3,
        "ebv_mag": 0.0,
    } | options
    bands = [*pair["roman"].bands, *pair["lsst"].bands]
    return make_sky(np.random.default_rng(seed), fields, bands, **values), Box.around(fields)


def test_counts_are_those_of_the_real_sky():
    table, box = sky()
    galaxies = table.filter(pl.col("kind") == 0)
    expected = 46 * box.area_arcmin2
    assert abs(len(galaxies) - expected) < 5 * np.sqrt(expected)
    brighter = (galaxies["mag_i"] < 24).sum() / len(galaxies)
    assert brighter == pytest.approx(10**-0.31, abs=0.04)
    assert (table["kind"] == 2).sum() == 3
    assert table["number"].is_unique().all()


def test_galaxies_cluster():
    def pairs(table):
        galaxies = table.filter(pl.col("kind") == 0)
        x = (galaxies["ra_deg"] - 52.9).to_numpy() * 3600 * np.cos(np.radians(40))
        y = (galaxies["dec_deg"] + 40).to_numpy() * 3600
        away = np.hypot(x[:, None] - x, y[:, None] - y)
        return (away[np.triu_indices(len(x), 1)] < 3).sum() / len(x) ** 2

    table, box = sky()
    uniform = np.pi * 9 / (2 * box.area_arcmin2 * 3600)
    assert pairs(table) > 1.5 * uniform


def test_galaxies_are_red_and_u_drops_out_at_high_redshift():
    galaxies = sky(faintest_mag=26.0)[0].filter(pl.col("kind") == 0)
    colour = (galaxies["mag_g"] - galaxies["mag_i"]).to_numpy()
    assert 0.0 < np.median(colour) < 2.0
    far = galaxies.filter(pl.col("redshift") > 2.6)
    near = galaxies.filter(pl.col("redshift") < 1.5)
    assert (far["mag_u"] - far["mag_g"]).median() > (near["mag_u"] - near["mag_g"]).median() + 0.8
    assert (galaxies["bulge_H158"] >= galaxies["bulge_u"] - 1e-9).mean() > 0.9  # bulges are red


def test_shapes_can_be_drawn_and_stars_have_none():
    table, _ = sky()
    galaxies, stars = table.filter(pl.col("kind") == 0), table.filter(pl.col("kind") == 1)
    for part in ("disk", "bulge"):
        assert (galaxies[f"{part}_minor_arcsec"] <= galaxies[f"{part}_arcsec"]).all()
        assert (galaxies[f"{part}_minor_arcsec"] > 0).all()
        assert stars[f"{part}_arcsec"].null_count() == len(stars)
    bulge = galaxies["bulge_r"].to_numpy()
    assert ((bulge >= 0) & (bulge <= 1)).all()


def test_dust_dims_by_the_extinction_of_each_band():
    table, _ = sky(ebv_mag=0.1)
    dimmed = (table["mag_u"] - table["mag_true_u"]).to_numpy()
    assert dimmed == pytest.approx(0.481, abs=1e-9)
    assert 0 < (table["mag_H158"] - table["mag_true_H158"])[0] < (table["mag_y"] - table["mag_true_y"])[0]


@pytest.mark.parametrize(("ra_deg", "dec_deg"), [(0.0, 0.0), (10.0, 90.0)])
def test_sources_lie_in_the_field_across_ra_0_and_at_a_pole(ra_deg, dec_deg):
    table, _ = sky(ra_deg=ra_deg, dec_deg=dec_deg, side_px=2000)
    field = lay_tiles(joint_survey().surveys["roman"], 1, 2000, overlap_px=0, ra_deg=ra_deg, dec_deg=dec_deg)[0]
    x, y = field.positions(table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy())
    assert field.holds(x, y, margin_px=25 / 0.0575).all()
    assert field.holds(x, y).mean() > 0.6


def test_seed_decides_every_number():
    assert sky(seed=1)[0].equals(sky(seed=1)[0])
    assert not sky(seed=1)[0].equals(sky(seed=2)[0])


def test_no_source_at_all_is_a_sky():
    table, _ = sky(crowding=0.0, stars_per_arcmin2=0.0)
    assert len(table) == 0
