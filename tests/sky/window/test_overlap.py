"""Overlaps: greedy equals its definition, kept windows share no pixel, sky pairs equal brute force."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.sky.geometry.sphere import unit_vectors
from skyloom.sky.window.overlap import keep_best, nonoverlapping, sky_pairs


def occupancy(row0, col0, size, kept):
    """How many kept windows cover each pixel."""
    pixels = np.zeros((int((row0 + size).max()), int((col0 + size).max())), dtype=int)
    for r, c, s in zip(row0[kept], col0[kept], size[kept], strict=True):
        pixels[r : r + s, c : c + s] += 1
    return pixels


def square(length, size, stride, row_phase=0, col_phase=0):
    rows, cols = (np.arange(phase, length - size + 1, stride) for phase in (row_phase, col_phase))
    row0, col0 = (a.ravel() for a in np.meshgrid(rows, cols, indexing="ij"))
    return row0, col0, np.full(len(row0), size)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_greedy_in_rounds_equals_one_by_one(number, pairs, seed):
    rng = np.random.default_rng(seed)
    every = {tuple(sorted(rng.choice(number, 2, replace=False))) for _ in range(pairs)}
    pair = np.array(sorted(every), dtype=int).reshape(-1, 2)
    rank = rng.permutation(number)
    expected = np.full(number, -1)
    kept = []
    for item in np.argsort(rank):
        rivals = [k for k in kept if (min(k, item), max(k, item)) in every]
        if rivals:
            expected[item] = rivals[0]
        else:
            kept.append(item)
    flip = rng.random(len(pair)) < 0.5
    first, second = np.where(flip, pair[:, 1], pair[:, 0]), np.where(flip, pair[:, 0], pair[:, 1])
    np.testing.assert_array_equal(keep_best(number, first, second, rank), expected)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 25), st.integers(1, 60), st.booleans(), st.integers(0, 2**32 - 1))
def test_no_two_kept_windows_share_a_pixel_and_none_could_be_added(size, number, mixed, seed):
    rng = np.random.default_rng(seed)
    row0, col0 = rng.integers(0, 60, (2, number))
    sizes = rng.integers(1, size + 1, number) if mixed else np.full(number, size)
    lost_to = nonoverlapping(row0, col0, sizes, rng.permutation(number))
    kept = lost_to < 0
    pixels = occupancy(row0, col0, sizes, kept)
    assert pixels.max() == 1
    for i in np.flatnonzero(~kept):
        own = (slice(row0[i], row0[i] + sizes[i]), slice(col0[i], col0[i] + sizes[i]))
        if pixels[own].sum() == 0:
            pytest.fail(f"window {i} overlaps nothing that was kept")
        winner = lost_to[i]
        assert kept[winner]
        assert abs(row0[i] - row0[winner]) < max(sizes[i], sizes[winner])
        assert abs(col0[i] - col0[winner]) < max(sizes[i], sizes[winner])


@pytest.mark.parametrize(("size", "stride"), [(32, 16), (30, 21), (20, 2), (32, 32), (33, 16), (7, 3)])
@pytest.mark.parametrize("phases", [(0, 0), (5, 11)])
def test_a_full_grid_keeps_as_many_as_fit(size, stride, phases):
    row0, col0, sizes = square(150, size, stride, *phases)
    kept = nonoverlapping(row0, col0, sizes, np.arange(len(row0))) < 0
    every = -(-size // stride)
    per_axis = [-(-len(np.unique(a)) // every) for a in (row0, col0)]
    assert kept.sum() == per_axis[0] * per_axis[1]
    assert occupancy(row0, col0, sizes, kept).max() == 1


def test_the_phase_that_keeps_most_is_taken():
    row0, col0, sizes = square(200, 32, 16)
    odd = (row0 // 16 % 2 == 1) & (col0 // 16 % 2 == 1)
    some = odd | (np.arange(len(row0)) % 9 == 0)
    rank = np.where(odd, len(row0), 0) + np.arange(len(row0))  # the quality would choose others
    kept = nonoverlapping(row0[some], col0[some], sizes[some], np.argsort(np.argsort(rank[some]))) < 0
    assert kept[odd[some]].all()


def test_a_last_row_moved_inwards_is_used_where_there_is_room():
    row0, col0 = np.array([0, 16, 32, 48, 57]), np.zeros(5, int)
    kept = nonoverlapping(row0, col0, np.full(5, 32), np.arange(5)) < 0
    assert kept.sum() == 2
    assert occupancy(row0, col0, np.full(5, 32), kept).max() == 1


@pytest.mark.parametrize("dec", [0.0, 60.0, 89.95, -90.0])
def test_sky_pairs_equal_brute_force_across_ra_zero_and_poles(dec, monkeypatch):
    monkeypatch.setattr("skyloom.sky.window.overlap.CHUNK", 17)
    rng = np.random.default_rng(3)
    lat = np.clip(dec + rng.normal(0, 0.1, 150), -90, 90)
    lon = rng.normal(0, min(0.1 / max(np.cos(np.radians(dec)), 1e-9), 180), 150) % 360
    group, radius = rng.integers(0, 3, 150), rng.uniform(20, 200, 150)
    found = set()
    for first, second, distance in sky_pairs(unit_vectors(lon, lat), group, radius):
        pairs = set(zip(first.tolist(), second.tolist(), strict=True))
        assert not pairs & found
        found |= pairs
        assert (distance > 0).all()
    place = SkyCoord(lon * u.deg, lat * u.deg)
    apart = place[:, None].separation(place[None, :]).arcsec
    near = (apart < np.minimum(radius[:, None], radius)) & (group[:, None] != group)
    assert found == set(zip(*(a.tolist() for a in np.nonzero(np.triu(near))), strict=True))
    assert len(found) > 20
