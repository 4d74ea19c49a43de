"""Friends of friends: against brute force, on the whole sphere, with largest groups, in bounded memory."""

import numpy as np
import polars as pl
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from skyloom.errors import ConfigError, InputError
from skyloom.match import fof, fof_table, friends_of_friends, sky_points
from skyloom.sky.geometry.sphere import angle_arcsec


def brute(points, length):
    """Groups by walking from friend to friend, with separations from dot products of all pairs."""
    near = angle_arcsec(np.linalg.norm(points[:, None] - points[None], axis=2)) <= length
    label = np.full(len(points), -1)
    for start in range(len(points)):
        if label[start] < 0:
            number, queue = label.max() + 1, [start]
            while queue:
                member = queue.pop()
                if label[member] < 0:
                    label[member] = number
                    queue += np.flatnonzero(near[member]).tolist()
    return label


def field(rng, n, ra=50.0, dec=-40.0, side=0.01):
    return sky_points(ra + rng.uniform(0, side, n) / np.cos(np.radians(dec)), dec + rng.uniform(0, side, n))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 80), length=st.floats(0.1, 8))
def test_groups_are_those_of_brute_force(seed, n, length):
    points = field(np.random.default_rng(seed), n)
    assert (friends_of_friends(points, length) == brute(points, length)).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_permutation_and_rotation_change_nothing(seed):
    rng = np.random.default_rng(seed)
    points = field(rng, 60)
    label = friends_of_friends(points, 3.0)
    order = rng.permutation(60)
    turned = Rotation.random(random_state=seed).apply(points)
    same = label[:, None] == label[None]
    assert ((friends_of_friends(turned, 3.0)[:, None] == friends_of_friends(turned, 3.0)[None]) == same).all()
    shuffled = friends_of_friends(points[order], 3.0)
    assert ((shuffled[:, None] == shuffled[None]) == same[np.ix_(order, order)]).all()


@pytest.mark.parametrize(("ra", "dec"), [([359.9999, 0.0001], [10, 10]), ([0, 180], [89.9999, 89.9999])])
def test_links_across_ra_0_and_the_pole(ra, dec):
    points = sky_points(np.array(ra), np.array(dec, dtype=float))
    assert friends_of_friends(points, 0.73).tolist() == [0, 0]
    assert friends_of_friends(points, 0.70).tolist() == [0, 1]


def test_groups_too_large_are_split_by_the_next_length():
    # three in a row 2" apart (one group at 2.1"), and a pair 2" apart
    dec = np.array([0, 2, 4, 100, 102]) / 3600
    points = sky_points(np.zeros(5), dec)
    assert fof.fof_groups(points, 2.1).tolist() == [0, 0, 0, 1, 1]
    assert fof.fof_groups(points, {2.1: 2, 1.0: None}).tolist() == [0, 1, 2, 3, 3]
    assert fof.fof_groups(points, {2.1: 3, 1.0: None}).tolist() == [0, 0, 0, 1, 1]
    assert fof.fof_groups(points, {2.1: 1}).tolist() == [0, 0, 0, 1, 1]  # there is no shorter length
    with pytest.raises(ConfigError, match="largest group"):
        fof.fof_groups(points, {2.1: 0})


def test_dense_fields_block_by_block(monkeypatch):
    points = field(np.random.default_rng(3), 400)
    whole = friends_of_friends(points, 2.0)
    monkeypatch.setattr(fof, "PAIRS_AT_ONCE", 50)
    assert (friends_of_friends(points, 2.0) == whole).all()
    assert whole.max() > 5


def test_table_of_several_catalogues_of_any_kind(tmp_path):
    truth = pl.DataFrame({"ra": [10.0, 10.0, 20.0], "dec": [0.0, 0.0002, 0.0]})
    truth.write_parquet(tmp_path / "truth.parquet")
    detected = Table({"ra": [10.0], "dec": [0.0001]})
    table = fof_table({"truth": tmp_path / "truth.parquet", "det": detected, "none": {"ra": [], "dec": []}}, 0.5)
    assert table.rows() == [(0, "truth", 0), (0, "truth", 1), (0, "det", 0), (1, "truth", 2)]


@pytest.mark.parametrize(
    ("ra", "dec", "message"),
    [
        ([1.0, np.nan], [0.0, 0.0], "1 of 2 rows have no valid position, the first is row 1"),
        ([1.0], [91.0], "Dec 91.0"),
        ([1.0, 2.0], [0.0], "2 right ascensions and 1 declinations"),
    ],
)
def test_positions_that_are_none(ra, dec, message):
    with pytest.raises(InputError, match=message):
        fof_table({"truth": {"ra": ra, "dec": dec}}, 1.0)


def test_missing_column_and_lengths():
    with pytest.raises(InputError, match="truth: no column 'ra'; it has RA, dec"):
        fof_table({"truth": {"RA": [1.0], "dec": [1.0]}}, 1.0)
    with pytest.raises(InputError, match="no catalogue"):
        fof_table({}, 1.0)
    with pytest.raises(ConfigError, match="not negative"):
        friends_of_friends(sky_points(np.zeros(1), np.zeros(1)), -1.0)
    assert friends_of_friends(sky_points(np.array([]), np.array([])), 1.0).tolist() == []
    assert friends_of_friends(sky_points(np.array([5.0, 5.0, 6.0]), np.zeros(3)), 0.0).tolist() == [0, 0, 1]
