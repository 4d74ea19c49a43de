import numpy as np
import pytest

from skyloom.cluster import Level, assign, hierarchical_kmeans, kmeans
from skyloom.errors import ConfigError, InputError

LEVELS = [Level(30, 5, 2), Level(6, 2, 3)]
FIELDS = ("centroids", "assignment", "indptr", "indices", "distance")


def features(rows=600, dim=4, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def equal(a, b):
    return len(a) == len(b) and all(
        np.array_equal(getattr(x, f), getattr(y, f)) for x, y in zip(a, b, strict=True) for f in FIELDS
    )


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("resample", ["closest", "random"])
def test_levels_fit_together(metric, resample):
    x = features()
    found = hierarchical_kmeans(x, LEVELS, seed=1, metric=metric, resample=resample)
    below = x
    for level, result in zip(LEVELS, found, strict=True):
        k, n = level.clusters, len(below)
        assert result.centroids.shape == (k, 4)
        assert [getattr(result, f).dtype for f in FIELDS] == [np.float32, np.int32, np.int64, np.int64, np.float32]
        index, distance = assign(below, result.centroids, metric)
        np.testing.assert_array_equal(result.assignment, index)
        np.testing.assert_allclose(result.distance, distance[result.indices], atol=1e-6)
        np.testing.assert_array_equal(np.sort(result.indices), np.arange(n))
        sizes = np.diff(result.indptr)
        assert sizes.sum() == n
        assert sizes.min() >= 1
        for cluster in range(k):
            span = slice(result.indptr[cluster], result.indptr[cluster + 1])
            assert (result.assignment[result.indices[span]] == cluster).all()
            assert (np.diff(result.distance[span]) >= 0).all()
        below = result.centroids


def test_members_at_equal_distance_are_in_order_of_their_number():
    x = np.array([[1.0], [-1], [1], [-1], [1], [-1]])
    found = hierarchical_kmeans(x, [Level(1, 1, 0)], seed=0)[0]
    np.testing.assert_array_equal(found.indices, np.arange(6))


def test_seed_decides_the_result():
    x = features()
    assert equal(hierarchical_kmeans(x, LEVELS, seed=3), hierarchical_kmeans(x, LEVELS, seed=3))
    assert not equal(hierarchical_kmeans(x, LEVELS, seed=3), hierarchical_kmeans(x, LEVELS, seed=4))


@pytest.mark.parametrize("finished", [1, 2])
def test_resuming_equals_an_uninterrupted_run(finished):
    x, calls = features(), []
    whole = hierarchical_kmeans(x, LEVELS, seed=5, resample="random")
    resumed = hierarchical_kmeans(
        x, LEVELS, seed=5, resample="random", done=whole[:finished], on_level=lambda i, r: calls.append((i, r))
    )
    assert equal(whole, resumed)
    assert [i for i, _ in calls] == list(range(finished + 1, 3))  # finished levels are not announced again
    assert all(result is resumed[i - 1] for i, result in calls)


def test_on_level_keeps_what_was_finished_before_a_failure():
    kept = []

    def store(number, result):
        if number == 2:
            raise RuntimeError("disk full")
        kept.append(result)

    x = features()
    with pytest.raises(RuntimeError, match="disk full"):
        hierarchical_kmeans(x, LEVELS, seed=5, on_level=store)
    assert equal(hierarchical_kmeans(x, LEVELS, seed=5, done=kept), hierarchical_kmeans(x, LEVELS, seed=5))


def test_no_resampling_is_plain_kmeans():
    x = features()
    found = hierarchical_kmeans(x, [Level(30, 5, 0)], seed=1)[0]
    rng = np.random.default_rng(np.random.SeedSequence(1, spawn_key=(1, 0)))
    np.testing.assert_array_equal(found.centroids, kmeans(x, 30, rng=rng).centroids)


def test_resampling_moves_centroids_from_density_to_cover():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(3000, 2)), rng.uniform(-12, 12, size=(300, 2))]).astype(np.float32)

    def central(resamples):
        centroids = hierarchical_kmeans(x, [Level(60, 5, resamples)], seed=1)[0].centroids
        return np.mean(np.linalg.norm(centroids, axis=1) < 2)

    assert central(6) < 0.7 * central(0)


def test_one_member_per_cluster_is_enough():
    x = features(200)
    found = hierarchical_kmeans(x, [Level(50, 1, 3), Level(50 - 1, 1, 2)], seed=0)
    assert [np.diff(level.indptr).min() for level in found] == [1, 1]


def test_many_identical_rows():
    x = np.concatenate([np.zeros((500, 3), np.float32), features(40, 3)])
    found = hierarchical_kmeans(x, [Level(20, 4, 3), Level(5, 2, 2)], seed=0, resample="random")
    assert all(np.diff(level.indptr).min() >= 1 for level in found)
    assert len(set(found[0].assignment[:500])) == 1


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "levels is empty"),
        ([Level(10, 2, 1), Level(10, 2, 1)], r"clusters must decrease .* \[10, 10\]"),
        ([Level(5, 2, 1), Level(10, 2, 1)], "clusters must decrease"),
        ([Level(601, 2, 1)], "clusters=601 is more than the 600 rows"),
    ],
)
def test_bad_levels(levels, message):
    with pytest.raises(ConfigError, match=message):
        hierarchical_kmeans(features(), levels, seed=0)


@pytest.mark.parametrize(
    ("values", "name"), [((0, 1, 1), "clusters"), ((5, 0, 1), "sample_size"), ((5, 1, -1), "resamples")]
)
def test_bad_level(values, name):
    with pytest.raises(ConfigError, match=f"{name} of a level"):
        Level(*values)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seed": -1}, "seed"), ({"resample": "near"}, "resample=near"), ({"iterations": 0}, "iterations")],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        hierarchical_kmeans(features(), LEVELS, **{"seed": 0, **options})


def test_finished_levels_of_other_features_are_refused():
    done = hierarchical_kmeans(features(500), LEVELS[:1], seed=0)
    with pytest.raises(InputError, match="finished level 1"):
        hierarchical_kmeans(features(600), LEVELS, seed=0, done=done)
    with pytest.raises(ConfigError, match="done holds 2 levels but only 1"):
        hierarchical_kmeans(features(500), LEVELS[:1], seed=0, done=done * 2)


@pytest.mark.parametrize("resample", ["closest", "random"])
def test_going_on_from_any_state_changes_no_bit(resample):
    x, states, kept = features(300), [], []
    options = {"seed": 5, "resample": resample, "weights": "counts"}
    levels = [Level(20, 4, 2), Level(5, 2, 1)]
    whole = hierarchical_kmeans(
        x, levels, on_state=lambda state: states.append((state, list(kept))), on_level=lambda i, r: kept.append(r),
        **options,
    )  # fmt: skip
    assert {(state.level, state.step) for state, _ in states} == {(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)}
    for state, done in states:
        assert equal(hierarchical_kmeans(x, levels, state=state, done=done, **options), whole)
    # A state older than the last finished level says nothing about the next one.
    assert equal(hierarchical_kmeans(x, levels, state=states[0][0], done=whole[:1], **options), whole)


def test_weights_by_counts_draw_upper_centroids_to_where_the_images_are():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 0.1, (900, 2)), rng.normal(10, 0.1, (20, 2))]).astype(np.float32)
    top = {
        weights: hierarchical_kmeans(x, [Level(2, 1, 0), Level(1, 1, 0)], seed=0, weights=weights)[1].centroids[0]
        for weights in ("none", "counts")
    }
    np.testing.assert_allclose(top["none"], 5, atol=0.2)
    np.testing.assert_allclose(top["counts"], 10 * 20 / 920, atol=0.2)


def test_upper_restarts_leave_level_1_alone_and_lower_the_inertia():
    x = features(800)
    once, often = (hierarchical_kmeans(x, [Level(60, 5, 1), Level(12, 3, 0)], seed=2, upper_restarts=n) for n in (1, 8))
    assert equal(once[:1], often[:1])
    assert np.sum(often[1].distance ** 2) <= np.sum(once[1].distance ** 2)
