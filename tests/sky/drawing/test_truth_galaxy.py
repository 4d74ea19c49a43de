"""What a truth table says becomes fluxes and shapes; what cannot be is told apart with its reason."""

import numpy as np
import polars as pl
import pytest

from make.joint_tables import STAR, lsst_truth, sky_sources
from make.true_sources import SURVEYS, bands_of
from skyloom.errors import ConfigError, InputError
from skyloom.sky.drawing.truth_galaxy import check_columns, needed_columns, sources_of
from skyloom.sky.survey.bands import TableFacts

BANDS = bands_of("lsst")


@pytest.fixture(scope="module")
def facts():
    import yaml

    return TableFacts.from_mapping("truth", yaml.safe_load((SURVEYS / "lsst.yaml").read_text())["truth"])


def table(**changes):
    rng = np.random.default_rng(0)
    kind = np.array([0, 0, STAR, 0])
    sky = sky_sources(rng, np.full(4, 50.0), np.full(4, -40.0), kind, np.array([20.0, 22.0, 23.0, 24.0]), 7)
    category = pl.Series("category_id", kind // STAR, pl.Int8)
    return lsst_truth(sky).with_columns(category, **changes)


def test_fluxes_and_shapes(facts):
    truth = table(mag_true_u=pl.lit(None, pl.Float64), mag_g=pl.lit(21.0))
    found = sources_of(truth, facts, BANDS)
    assert found.problem == [None] * 4
    assert found.is_star.tolist() == [False, False, True, False]
    np.testing.assert_allclose(found.flux[:, 3], 10 ** (0.4 * (27 - np.array([20, 22, 23, 24]))))
    assert found.flux[[0, 1, 3], 0].tolist() == [0, 0, 0]  # galaxies have no u magnitude, the star has
    assert found.flux[2, 0] > 0
    assert found.flux[2, 1] == pytest.approx(10 ** (0.4 * 6))  # a star's is mag, a galaxy's mag_true
    assert not found.bulge_fraction[2].any()
    radius, q = found.ellipses()
    row = truth.row(0, named=True)
    assert radius[0, 0] ** 2 == pytest.approx(row["size_disk_true"] * row["size_minor_disk_true"])
    assert q[0, 0] == pytest.approx(row["size_minor_disk_true"] / row["size_disk_true"])
    assert found.profile(1, 3).flux == pytest.approx(found.flux[1, 3])
    assert found[np.array([2])].is_star.tolist() == [True]


@pytest.mark.parametrize(
    ("column", "value", "reason", "words"),
    [
        ("size_disk_true", -1.0, "bad_shape", "half-light axes of the disk: -1.0"),
        ("size_minor_disk_true", float("nan"), "bad_shape", "of the disk"),
        ("size_minor_disk_true", 9.0, "bad_shape", "expected major >= minor > 0"),
        ("size_bulge_true", None, "bad_shape", "half-light axes of the bulge: nan"),
        ("position_angle_true_dc2", float("inf"), "bad_shape", "angle, shear_1, shear_2 = inf"),
        ("shear_1", 1.2, "bad_shape", "1.2"),
        ("bulge_to_total_ratio_r", 1.5, "bad_shape", "bulge_fraction=1.5, expected 0 to 1"),
        ("bulge_to_total_ratio_r", float("nan"), "bad_shape", "bulge_fraction=nan"),
    ],
)
def test_impossible_galaxies_are_told_and_stars_are_not_asked(facts, column, value, reason, words):
    found = sources_of(table(**{column: pl.lit(value, pl.Float64)}), facts, BANDS)
    assert found.problem[2] is None
    assert [problem[0] for i, problem in enumerate(found.problem) if i != 2] == [reason] * 3
    assert words in found.problem[0][1]


def test_an_object_without_any_magnitude_and_a_part_without_light(facts):
    dark = {f"mag_true_{b.name}": pl.lit(float("nan")) for b in BANDS}
    assert sources_of(table(**dark), facts, BANDS).problem[0] == ("no_flux", "no band has a magnitude")
    no_bulge = {f"bulge_to_total_ratio_{b.name}": pl.lit(0.0) for b in BANDS}
    found = sources_of(table(size_bulge_true=pl.lit(0.0), **no_bulge), facts, BANDS)
    assert found.problem == [None] * 4


def test_a_missing_column_is_named_with_what_it_stands_for(facts):
    columns = table().columns
    check_columns(columns, facts, BANDS, "truth.parquet")
    for standard, column in needed_columns(facts, BANDS).items():
        with pytest.raises(InputError, match=rf"^truth\.parquet has no column {column}, .*says {standard} is"):
            check_columns([name for name in columns if name != column], facts, BANDS, "truth.parquet")
    with pytest.raises(ConfigError, match="size_disk_arcsec"):
        needed_columns(TableFacts({"object_id": "id"}, {}), BANDS)
