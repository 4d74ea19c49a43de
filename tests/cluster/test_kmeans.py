import os
import subprocess
import sys
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
import zarr

from skyloom.cluster import assign, kmeans
from skyloom.cluster.init import kmeans_parallel, kmeans_plus_plus, random_rows
from skyloom.cluster.kmeans import LloydState
from skyloom.cluster.rows import BLOCK_ROWS, Rows
from skyloom.cluster.work import workers
from skyloom.errors import ConfigError, InputError


def mixture(seed=0, classes=8, per_class=50, dim=6, spread=0.1):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    means = rng.normal(size=(classes, dim)) * 5
    return (means[labels] + rng.normal(size=(len(labels), dim)) * spread).astype(np.float32), labels


def brute(x, centroids):
    distance = np.linalg.norm(x[:, None].astype(np.float64) - centroids[None].astype(np.float64), axis=2)
    return distance.argmin(axis=1), distance.min(axis=1)


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("centroids", "assignment", "distance", "inertia", "iterations")
    )


def test_recovers_a_separated_mixture():
    x, labels = mixture()
    found = kmeans(x, 8, rng=np.random.default_rng(1))
    table = np.zeros((8, 8), int)
    np.add.at(table, (labels, found.assignment), 1)
    assert (np.sort(table, axis=1)[:, :-1] == 0).all()  # one cluster per class
    assert (table.max(axis=0) == 50).all()  # and one class per cluster
    for cluster in range(8):
        mean = x[found.assignment == cluster].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(found.centroids[cluster], mean, rtol=1e-5)


def test_result_is_consistent_with_its_centroids():
    x = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)
    found = kmeans(x, 20, rng=np.random.default_rng(1), iterations=3)
    index, distance = brute(x, found.centroids)
    np.testing.assert_array_equal(found.assignment, index)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-5)
    assert found.inertia == pytest.approx((distance**2).sum(), rel=1e-6)
    assert (found.centroids.dtype, found.assignment.dtype, found.distance.dtype) == (np.float32, np.int32, np.float32)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("init", ["kmeans++", "random"])
def test_inertia_never_grows_with_iterations(metric, init):
    x = np.random.default_rng(3).normal(size=(600, 4)).astype(np.float32)
    inertia = [
        kmeans(x, 15, rng=np.random.default_rng(4), iterations=n, tolerance=0, metric=metric, init=init).inertia
        for n in range(1, 15)
    ]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(inertia))
    assert inertia[-1] < inertia[0]


def test_tolerance_stops_early():
    x = np.random.default_rng(3).normal(size=(1000, 4)).astype(np.float32)
    loose = kmeans(x, 10, rng=np.random.default_rng(0), tolerance=0.05)
    tight = kmeans(x, 10, rng=np.random.default_rng(0), tolerance=0, iterations=500)
    assert loose.iterations < tight.iterations < 500
    assert tight.inertia < loose.inertia


def test_seed_decides_the_result():
    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    a, b, c = (kmeans(x, 12, rng=np.random.default_rng(seed), iterations=5) for seed in (7, 7, 8))
    assert same(a, b)
    assert not np.array_equal(a.centroids, c.centroids)


def test_restarts_keep_the_best():
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    rng = np.random.default_rng(5)
    singles = [kmeans(x, 12, rng=rng, init="random").inertia for _ in range(6)]
    assert kmeans(x, 12, rng=np.random.default_rng(5), init="random", restarts=6).inertia == min(singles)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_lazy_sources_and_read_size_change_no_bit(tmp_path, metric):
    x = np.random.default_rng(0).normal(size=(2 * BLOCK_ROWS + 77, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    run = {"rng": np.random.default_rng(1), "iterations": 2}
    expected = kmeans(x, 6, metric=metric, **run)
    for read_rows in (1, BLOCK_ROWS, 10**6):
        run["rng"] = np.random.default_rng(1)
        assert same(kmeans(Rows(mapped, metric, read_rows=read_rows), 6, metric=metric, **run), expected)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        run["rng"] = np.random.default_rng(1)
        assert same(kmeans(file.create_dataset("features", data=x), 6, metric=metric, **run), expected)
    run["rng"] = np.random.default_rng(1)
    stored = zarr.create_array(tmp_path / "x.zarr", data=x, chunks=(1000, 4))
    assert same(kmeans(stored, 6, metric=metric, **run), expected)


@pytest.mark.parametrize("make", [list, torch.from_numpy])
def test_other_containers(make):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    run = {"clusters": 4, "iterations": 2}
    assert same(kmeans(make(x), rng=np.random.default_rng(0), **run), kmeans(x, rng=np.random.default_rng(0), **run))


def test_rows_of_another_metric_are_refused():
    with pytest.raises(ConfigError, match="metric=cosine"):
        kmeans(Rows(np.eye(3)), 2, rng=np.random.default_rng(0), metric="cosine")


def test_all_rows_count():
    x = np.zeros((BLOCK_ROWS + 5, 1), np.float32)
    x[BLOCK_ROWS:] = 1  # a handful of rows in the last block must have their own cluster
    found = kmeans(x, 2, rng=np.random.default_rng(0))
    assert sorted(np.bincount(found.assignment)) == [5, BLOCK_ROWS]
    assert found.inertia == 0


def test_sums_are_float64():
    x = np.full((200_000, 1), 16777.217, np.float32)  # a float32 running sum would drift by parts in a thousand
    found = kmeans(x, 1, rng=np.random.default_rng(0))
    assert found.centroids[0, 0] == x[0, 0]


def test_common_offset_costs_no_precision():
    x, _ = mixture(spread=1)
    plain = kmeans(x, 8, rng=np.random.default_rng(0))
    moved = kmeans(x + np.float32(4096), 8, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(plain.assignment, moved.assignment)
    assert moved.inertia == pytest.approx(plain.inertia, rel=1e-3)


def test_cosine_ignores_length():
    x, labels = mixture(classes=4)
    scaled = x * np.random.default_rng(0).uniform(0.01, 100, size=(len(x), 1)).astype(np.float32)
    found = kmeans(scaled, 4, rng=np.random.default_rng(1), metric="cosine", restarts=3)
    assert len(set(zip(labels, found.assignment, strict=True))) == 4
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, rtol=1e-6)


def test_cosine_members_that_cancel_out():
    x = np.array([[1, 0], [-1, 0]], np.float32)
    found = kmeans(x, 1, rng=np.random.default_rng(0), metric="cosine")
    assert np.linalg.norm(found.centroids[0]) == pytest.approx(1)


def test_as_many_clusters_as_rows():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    found = kmeans(x, 40, rng=np.random.default_rng(0), init="random")
    assert sorted(found.assignment) == list(range(40))
    assert found.inertia == 0


@pytest.mark.parametrize("init", ["kmeans++", "random"])
@pytest.mark.parametrize("clusters", [9, 10])
def test_duplicates_leave_no_cluster_empty(init, clusters):
    values = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    x = values[np.random.default_rng(1).integers(10, size=500)]
    found = kmeans(x, clusters, rng=np.random.default_rng(2), init=init)
    assert (np.bincount(found.assignment, minlength=clusters) > 0).all()
    assert (found.inertia == 0) == (clusters == 10)
    again = kmeans(x, clusters, rng=np.random.default_rng(2), init=init)
    assert same(found, again)


@pytest.mark.parametrize("init", ["kmeans++", "random"])
def test_fewer_distinct_rows_than_clusters(init):
    x = np.repeat(np.eye(4, dtype=np.float32), 20, axis=0)
    with pytest.raises(InputError, match="clusters=5 needs at least as many different rows"):
        kmeans(x, 5, rng=np.random.default_rng(0), init=init)
    values = np.random.default_rng(0).normal(size=(10, 4))
    with pytest.raises(InputError, match="clusters=11 needs"):
        kmeans(np.repeat(values, 9, axis=0), 11, rng=np.random.default_rng(0), init=init)


def test_plus_plus_starts_better_than_random():
    x, _ = mixture(classes=12, per_class=20, spread=0.5)

    def start(method, seed):
        return np.sum(assign(x, method(Rows(x), 12, np.random.default_rng(seed)))[1] ** 2)

    seeds = range(10)
    assert np.mean([start(kmeans_plus_plus, s) for s in seeds]) < 0.5 * np.mean([start(random_rows, s) for s in seeds])


def test_greedy_plus_plus_finds_every_class():
    x, labels = mixture(classes=20, per_class=30, spread=0.6)
    order = np.argsort(labels)
    x, labels = x[order], labels[order]

    def hit(seed):
        start = kmeans_plus_plus(Rows(x), 20, np.random.default_rng(seed))
        return len(set(labels[assign(start, x)[0]]))

    # One candidate per step, plain k-means++, misses a class in 18 of these 20 draws.
    assert sum(hit(seed) == 20 for seed in range(20)) >= 12


def test_plus_plus_draws_by_squared_distance():
    # From 0 the others weigh 1, 1 and 1e4, so the far point is drawn, and two centres explain nearly everything.
    x = np.array([[0], [1], [-1], [100]], np.float32)
    for seed in range(5):
        assert 100 in kmeans_plus_plus(Rows(x), 2, np.random.default_rng(seed))


@pytest.mark.parametrize(("rows", "clusters"), [(1, 1), (300, 7), (1000, 300)])
def test_assign_equals_brute_force(rows, clusters):
    rng = np.random.default_rng(rows)
    x, centroids = rng.normal(size=(rows, 9)).astype(np.float32), rng.normal(size=(clusters, 9)).astype(np.float32)
    index, distance = assign(x, centroids)
    expected, exact = brute(x, centroids)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(distance, exact, rtol=1e-5)


def test_assign_is_exact_far_from_the_origin():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 6)) + 4096).astype(np.float32)
    centroids = (rng.normal(size=(30, 6)) + 4096).astype(np.float32)
    np.testing.assert_array_equal(assign(x, centroids)[0], brute(x, centroids)[0])


def test_assign_distance_is_zero_for_equal_vectors_and_ties_go_to_the_lowest():
    x = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32) * 1000
    index, distance = assign(x, np.concatenate([x, x]))
    np.testing.assert_array_equal(index, np.arange(50))
    assert (distance == 0).all()


def test_assign_does_not_depend_on_the_neighbouring_rows():
    rng = np.random.default_rng(0)
    x, centroids = rng.normal(size=(1000, 16)).astype(np.float32), rng.normal(size=(30, 16)).astype(np.float32)
    index, distance = assign(x, centroids)
    part_index, part_distance = assign(x[333:777], centroids)
    np.testing.assert_array_equal(part_index, index[333:777])
    np.testing.assert_array_equal(part_distance, distance[333:777])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, "clusters must be at least 1, found 0"),
        ({"clusters": 11}, "clusters=11 is more than the 10 rows"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"tolerance": -1.0}, r"tolerance must lie in \[0, 1\)"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"metric": "cosin"}, "Did you mean 'cosine'"),
        ({"init": "kmeans"}, "Did you mean 'kmeans"),
    ],
)
def test_bad_options(options, message):
    x = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(ConfigError, match=message):
        kmeans(x, **{"clusters": 3, "rng": np.random.default_rng(0), **options})


@pytest.mark.parametrize(
    ("x", "metric", "message"),
    [
        (np.array([[0.0, 1], [np.nan, 0]]), "l2", "the first is row 1"),
        (np.array([[0.0, 1], [1e300, 0]]), "l2", "finite in float32"),
        (np.array([[0.0, 1], [0, 0]]), "cosine", "row 1 of the features is all zeros"),
        (np.zeros(5), "l2", r"non-empty \(N, D\) array"),
        (np.zeros((0, 5)), "l2", r"non-empty \(N, D\) array"),
        (np.array([["a"]]), "l2", "real numbers"),
    ],
)
def test_bad_features(x, metric, message):
    with pytest.raises(InputError, match=message):
        kmeans(x, 1, rng=np.random.default_rng(0), metric=metric)


def test_bad_row_of_a_lazy_source_is_named_by_its_number(tmp_path):
    x = np.zeros((BLOCK_ROWS * 2, 2), np.float32)
    x[BLOCK_ROWS + 3, 1] = np.inf
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(InputError, match=f"the first is row {BLOCK_ROWS + 3}"):
        Rows(np.load(tmp_path / "x.npy", mmap_mode="r"), read_rows=1)


def test_centroids_of_other_features():
    with pytest.raises(InputError, match=r"shape \(K, 3\)"):
        assign(np.ones((4, 3)), np.ones((2, 5), np.float32))


def test_parallel_start_is_nearly_as_good_as_greedy_and_better_than_random():
    x, _ = mixture(classes=40, per_class=60, spread=0.5)

    def start(method, seed):
        return np.sum(assign(x, method(Rows(x), 40, np.random.default_rng(seed)))[1] ** 2)

    mean = {m: np.mean([start(m, seed) for seed in range(8)]) for m in (kmeans_plus_plus, kmeans_parallel, random_rows)}
    assert mean[kmeans_parallel] < 2 * mean[kmeans_plus_plus]
    assert mean[kmeans_parallel] < 0.5 * mean[random_rows]


def test_parallel_start_with_many_equal_rows():
    x = np.repeat(np.random.default_rng(0).normal(size=(10, 4)), 50, axis=0)
    assert kmeans(x, 10, rng=np.random.default_rng(0), init="kmeans||").inertia == 0
    with pytest.raises(InputError, match="clusters=11 needs"):
        kmeans(x, 11, rng=np.random.default_rng(0), init="kmeans||")


def test_auto_start_depends_on_the_work_only(monkeypatch):
    x, _ = mixture()
    run = {"clusters": 8, "iterations": 2}
    auto, greedy, parallel = (
        kmeans(x, rng=np.random.default_rng(0), init=init, **run) for init in ("auto", "kmeans++", "kmeans||")
    )
    assert same(auto, greedy)
    monkeypatch.setattr(sys.modules[LloydState.__module__], "GREEDY_UP_TO", 8 * len(x) - 1)
    assert same(kmeans(x, rng=np.random.default_rng(0), init="auto", **run), parallel)


def test_a_weight_of_two_is_a_row_given_twice():
    x, _ = mixture(classes=3, per_class=20, spread=2.0)
    weights = 1.0 + (np.arange(len(x)) % 2)
    state = LloydState(x[:3].copy(), 0, np.inf)
    run = {"clusters": 3, "rng": np.random.default_rng(0), "iterations": 4, "tolerance": 0, "state": state}
    weighted = kmeans(x, weights=weights, **run)
    twice = kmeans(np.repeat(x, weights.astype(int), axis=0), **run)
    np.testing.assert_allclose(weighted.centroids, twice.centroids, rtol=1e-5)
    assert weighted.inertia == pytest.approx(twice.inertia, rel=1e-6)
    assert not np.allclose(weighted.centroids, kmeans(x, **run).centroids)
    with pytest.raises(ConfigError, match="weights must be 60 positive numbers"):
        kmeans(x, weights=np.zeros(60), **run)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_going_on_from_any_iteration_changes_no_bit(metric):
    x = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    states = []
    run = {"clusters": 30, "metric": metric, "tolerance": 0}
    whole = kmeans(x, rng=np.random.default_rng(0), on_iteration=states.append, **run)
    assert len(states) == whole.iterations + 1
    for state in states:
        assert same(kmeans(x, rng=np.random.default_rng(99), state=state, **run), whole)


@pytest.mark.parametrize("init", ["kmeans++", "kmeans||"])
def test_the_number_of_threads_changes_no_bit(init):
    x = np.random.default_rng(0).normal(size=(3 * BLOCK_ROWS + 5, 16)).astype(np.float32)
    found = []
    for threads in (1, 4):
        with workers(threads):
            found.append(kmeans(x, 20, rng=np.random.default_rng(0), iterations=3, init=init))
    assert same(*found)


def test_torch_finds_the_same_clusters():
    x, _ = mixture(classes=12)
    a, b = (kmeans(x, 12, rng=np.random.default_rng(0), backend=backend) for backend in ("numpy", "torch"))
    np.testing.assert_array_equal(a.assignment, b.assignment)
    with pytest.raises(ConfigError, match="backend=cupy is not known"):
        kmeans(x, 2, rng=np.random.default_rng(0), backend="cupy")


def test_a_memory_budget_changes_no_bit_and_is_kept(tmp_path):
    x = np.random.default_rng(0).normal(size=(BLOCK_ROWS + 500, 4)).astype(np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("features", data=x)
        small, large = Rows(stored, memory_bytes=x.nbytes), Rows(stored, memory_bytes=2 * x.nbytes)
        assert (small.in_memory, large.in_memory) == (False, True)
        chosen = np.arange(0, len(x), 2)
        picked = [rows.subset(chosen) for rows in (Rows(stored, memory_bytes=1000), small, large)]
        assert [rows.in_memory for rows in picked] == [False, True, True]
        runs = [kmeans(rows, 5, rng=np.random.default_rng(0), iterations=2) for rows in picked]
    assert same(runs[0], runs[1])
    assert same(runs[0], runs[2])


def test_blas_is_held_to_one_thread_so_that_other_settings_change_no_bit(tmp_path):
    code = (
        "import numpy as np, hashlib; from skyloom.cluster import kmeans\n"
        "x = np.random.default_rng(0).normal(size=(9000, 64)).astype('f4')\n"
        "r = kmeans(x, 100, rng=np.random.default_rng(1), iterations=2)\n"
        "print(hashlib.sha256(r.centroids.tobytes() + r.assignment.tobytes()).hexdigest())"
    )
    found = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": threads},
                       capture_output=True, text=True, check=True).stdout
        for threads in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1]


def test_the_start_that_takes_several_at_a_time_is_as_good_as_one_by_one(monkeypatch):
    x, _ = mixture(classes=60, per_class=40, dim=12, spread=1.0)
    start = sys.modules[kmeans_plus_plus.__module__]

    def potential():
        return np.mean(
            [np.sum(assign(x, kmeans_plus_plus(Rows(x), 300, np.random.default_rng(s)))[1] ** 2) for s in range(4)]
        )

    several = potential()
    monkeypatch.setattr(start, "_ONE_BY_ONE", 10**9)
    assert several < 1.02 * potential()


def test_rows_that_differ_by_less_than_rounding_of_a_product_are_still_different():
    x = np.float32(1000) + np.arange(30, dtype=np.float32)[:, None] * np.float32(1e-3)
    x = np.concatenate([x, np.full((1, 1), -1000, np.float32)])
    found = kmeans(x, 20, rng=np.random.default_rng(0))
    assert np.bincount(found.assignment).min() >= 1


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_guided_rows_in_memory_and_on_disk_give_the_same_bits(tmp_path, monkeypatch, metric):
    monkeypatch.setattr(sys.modules["skyloom.cluster.grouping"], "LEAST_WORK", 0)
    x, _ = mixture(classes=30, per_class=2 * BLOCK_ROWS // 30, dim=8, spread=1.0)
    np.save(tmp_path / "x.npy", x)
    run = {"clusters": 60, "iterations": 4, "metric": metric, "init": "kmeans||"}
    rows = Rows(x, metric)
    inside = kmeans(rows, rng=np.random.default_rng(0), **run)
    assert rows.guide is not None
    stored = Rows(np.load(tmp_path / "x.npy", mmap_mode="r"), metric, read_rows=BLOCK_ROWS)
    assert same(kmeans(stored, rng=np.random.default_rng(0), **run), inside)
    expected, distance = brute(rows.read(0, len(rows)), inside.centroids)
    np.testing.assert_array_equal(inside.assignment, expected)
    np.testing.assert_allclose(inside.distance, distance, rtol=1e-4, atol=1e-5)
