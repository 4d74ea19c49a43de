"""Near-duplicates: planted ones are found, nothing else is lost, the order of rows and the blocks have no influence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.cluster.neardup import BLOCK, bucket_duplicates, buckets, mark_duplicates, preference
from skyloom.cluster.rows import Rows, unit_rows
from skyloom.errors import ConfigError


def unit(x):
    return unit_rows(np.ascontiguousarray(x, dtype=np.float32))


def planted(rng, groups=40, copies=5, singles=100, dim=32, noise=0.005):
    """Unit vectors with groups of near copies, and the group of each; single ones have groups of their own."""
    centres = unit(rng.normal(size=(groups + singles, dim)))
    label = np.concatenate([np.repeat(np.arange(groups), copies), np.arange(groups, groups + singles)])
    return unit(centres[label] + rng.normal(0, noise, (len(label), dim))), label


def run(x, assignment, centroids, ids, *, eps=0.05, keep="farthest", seed=0, max_rows=10**9):
    rows = Rows(x, "cosine")
    parts = [
        bucket_duplicates(rows, b, assignment, centroids, ids, eps=eps, keep=keep, seed=seed)
        for b in buckets(assignment, len(centroids), max_rows)
    ]
    return tuple(np.concatenate(p) for p in zip(*parts, strict=True))


@pytest.mark.parametrize("block", [7, 64, 1024])
def test_one_of_each_planted_group_is_kept_and_no_single_is_lost(block):
    x, label = planted(np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(len(x))
    duplicate_of, similarity = mark_duplicates(x[order], 0.05, block=block)
    kept = duplicate_of < 0
    assert sorted(label[order][kept]) == list(range(140))
    first = [np.flatnonzero(label[order] == g)[0] for g in range(140)]
    assert kept[first].all()  # the one that comes first in the order of preference
    assert (label[order][duplicate_of[~kept]] == label[order][~kept]).all()
    assert (similarity[~kept] > 0.95).all()
    assert np.isnan(similarity[kept]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.floats(0.01, 0.9), st.sampled_from([1, 3, 8, 1024]), st.integers(0, 2**32 - 1))
def test_no_two_kept_are_alike_and_each_dropped_has_a_kept_one_before_it(number, eps, block, seed):
    x = unit(np.random.default_rng(seed).normal(size=(number, 3)))
    duplicate_of, similarity = mark_duplicates(x, eps, block=block)
    alike = x.astype(np.float64) @ x.T.astype(np.float64)
    kept = np.flatnonzero(duplicate_of < 0)
    inside = alike[np.ix_(kept, kept)] - 2 * np.eye(len(kept))
    assert inside.max(initial=-1) <= 1 - eps + 1e-6
    for i in np.flatnonzero(duplicate_of >= 0):
        before = kept[kept < i]
        assert duplicate_of[i] in before
        assert similarity[i] == pytest.approx(alike[i, before].max(), abs=1e-6)
        assert similarity[i] > 1 - eps - 1e-6


def test_a_chain_of_likenesses_is_not_lost_as_a_whole():
    angle = np.radians(np.arange(0, 90, 6.0))  # neighbours are alike, the ends are at right angles
    x = unit(np.column_stack([np.cos(angle), np.sin(angle)]))
    duplicate_of, _ = mark_duplicates(x, 1 - np.cos(np.radians(7)))
    assert np.flatnonzero(duplicate_of < 0).tolist() == list(range(0, 15, 2))


def test_duplicates_are_looked_for_within_clusters_only():
    x, label = planted(np.random.default_rng(2), groups=10, copies=4, singles=0)
    assignment = (np.arange(len(x)) % 2).astype(np.int32)
    dropped, kept, _ = run(x, assignment, np.ones((2, 32)), np.arange(len(x)))
    assert len(dropped) == 20
    assert (assignment[dropped] == assignment[kept]).all()
    assert (label[dropped] == label[kept]).all()


@pytest.mark.parametrize("keep", ["farthest", "closest", "random"])
def test_the_order_of_the_rows_and_the_buckets_have_no_influence(keep):
    rng = np.random.default_rng(3)
    x, label = planted(rng)
    ids = rng.permutation(10**6)[: len(x)]
    assignment, centroids = (label % 3).astype(np.int32), rng.normal(size=(3, 32))
    plain = run(x, assignment, centroids, ids, keep=keep, max_rows=60)
    order = rng.permutation(len(x))
    shuffled = run(x[order], assignment[order], centroids, ids[order], keep=keep)
    one = {(ids[a], ids[b]) for a, b in zip(*plain[:2], strict=True)}
    two = {(ids[order][a], ids[order][b]) for a, b in zip(*shuffled[:2], strict=True)}
    assert one == two
    assert len(one) == 40 * 4


def test_whom_a_group_keeps():
    centroid = np.array([[1.0, 0.0]])
    angle = np.radians([1.0, 3.0, 2.0])
    x = unit(np.column_stack([np.cos(angle), np.sin(angle)]))
    kept = {}
    for keep in ("farthest", "closest"):
        dropped, _, _ = run(x, np.zeros(3, np.int32), centroid, np.array([7, 8, 9]), keep=keep)
        kept[keep] = sorted({0, 1, 2} - set(dropped))
    assert kept == {"farthest": [1], "closest": [0]}
    same = unit(np.ones((50, 4)))
    chosen = set()
    for seed in range(8):
        dropped, _, _ = run(same, np.zeros(50, np.int32), np.ones((1, 4)), np.arange(50), keep="random", seed=seed)
        chosen |= set(range(50)) - set(dropped)
    assert len(chosen) > 3
    with pytest.raises(ConfigError, match="keep=far"):
        preference(np.zeros(2), np.arange(2), "far", np.random.default_rng())


def test_buckets_hold_every_row_once_and_go_on_from_any_cluster():
    assignment = np.random.default_rng(0).integers(0, 9, 300)
    for max_rows in (1, 50, 100, 1000):
        parts = list(buckets(assignment, 10, max_rows))
        assert [p.first for p in parts] == [0, *(p.last for p in parts[:-1])]
        assert parts[-1].last == 10
        assert sorted(np.concatenate([p.rows for p in parts])) == list(range(300))
        assert all(len(p.rows) <= max_rows or p.last - p.first == 1 for p in parts)
    assert next(iter(buckets(assignment, 10, 50, start=4))).first == 4


def test_a_big_cluster_never_needs_all_its_similarities(monkeypatch):
    import tracemalloc

    x = unit(np.random.default_rng(0).normal(size=(6 * BLOCK, 8)))
    tracemalloc.start()
    mark_duplicates(x, 1e-4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 4 * BLOCK**2  # all similarities would take 36 blocks


@pytest.mark.parametrize("eps", [0.0, 2.0, -1.0])
def test_bad_eps(eps):
    with pytest.raises(ConfigError, match="eps must lie"):
        mark_duplicates(np.eye(3, dtype=np.float32), eps)
