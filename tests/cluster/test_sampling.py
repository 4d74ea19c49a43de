from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.cluster import (
    Level,
    flat_selection,
    hierarchical_kmeans,
    image_assignment,
    random_selection,
    sample_hierarchy,
    top_level_selection,
    water_fill,
)
from skyloom.cluster.members import group
from skyloom.errors import ConfigError, InputError
from skyloom.metric.balance import occupancy_entropy


def level(*clusters):
    """Build a level from the items of each cluster, nearest first."""
    assignment = np.zeros(sum(map(len, clusters)), np.int32)
    for number, items in enumerate(clusters):
        assignment[list(items)] = number
    indptr = np.concatenate([[0], np.cumsum([len(c) for c in clusters])])
    return SimpleNamespace(assignment=assignment, indptr=indptr, indices=np.concatenate([list(c) for c in clusters]))


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("sizes", "target", "expected"),
    [
        ([1, 5, 10], 9, [1, 4, 4]),
        ([1, 5, 10], 0, [0, 0, 0]),
        ([1, 5, 10], 16, [1, 5, 10]),
        ([1, 5, 10], 13, [1, 5, 7]),
        ([10, 1, 5], 9, [4, 1, 4]),
        ([0, 3, 0], 2, [0, 2, 0]),
        ([7], 3, [3]),
        ([], 0, []),
        ([4, 4, 4, 4], 8, [2, 2, 2, 2]),
    ],
)
def test_water_fill_known(sizes, target, expected):
    np.testing.assert_array_equal(water_fill(sizes, target, rng()), expected)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.data())
def test_water_fill_is_exact_and_fair(sizes, data):
    sizes = np.array(sizes)
    target = data.draw(st.integers(0, int(sizes.sum())))
    counts = water_fill(sizes, target, rng(data.draw(st.integers(0, 5))))
    assert counts.sum() == target
    assert ((counts >= 0) & (counts <= sizes)).all()
    with_room = counts[counts < sizes]
    if len(with_room):  # nobody who could take more has two fewer than anybody else
        assert counts.max() <= with_room.min() + 1


def test_water_fill_gives_the_remainder_at_random():
    totals = sum(water_fill([1, 10, 10, 10], 6, rng(seed)) for seed in range(600))  # level 1, two more for three
    assert totals[0] == 600
    assert (np.abs(totals[1:] / 600 - 5 / 3) < 0.1).all()


@pytest.mark.parametrize(("target", "message"), [(17, "target_size=17 is more than the 16 places"), (-1, "at least 0")])
def test_water_fill_refuses(target, message):
    with pytest.raises(ConfigError, match=message):
        water_fill([1, 5, 10], target, rng())


TWO_LEVELS = [level([0], [1, 2, 3, 4], [5, 6], [7, 8, 9]), level([0, 1], [2, 3])]  # tops hold 5 and 5 images


def test_hierarchy_shares_from_the_top_down():
    chosen = sample_hierarchy(TWO_LEVELS, 6, rng=rng(), leaf="closest")
    # 3 for each top cluster; left: image 0 and the two nearest of [1..4]; right: 2 + 1 or 1 + 2, drawn at random
    np.testing.assert_array_equal(chosen[:3], [0, 1, 2])
    assert chosen[3:].tolist() in ([5, 6, 7], [5, 7, 8])
    assert chosen.dtype == np.int64


def test_random_leaf_reaches_every_image():
    seen = np.unique(np.concatenate([sample_hierarchy(TWO_LEVELS, 6, rng=rng(s)) for s in range(60)]))
    np.testing.assert_array_equal(seen, np.arange(10))


def test_multiplier_repeats_images_of_small_clusters():
    chosen = sample_hierarchy(TWO_LEVELS, 20, rng=rng(), multiplier=2)
    np.testing.assert_array_equal(chosen, np.repeat(np.arange(10), 2))
    levels = [level([0], [1, 2, 3, 4, 5, 6, 7])]
    for leaf in ("closest", "random"):
        chosen = sample_hierarchy(levels, 8, rng=rng(), multiplier=5, leaf=leaf)
        counts = np.bincount(chosen, minlength=8)
        assert counts[0] == 4  # four copies of the only image of the small cluster
        assert sorted(counts[1:]) == [0, 0, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(
        sample_hierarchy([level([1, 0])], 3, rng=rng(), multiplier=2, leaf="closest"), [0, 1, 1]
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.data())
def test_selection_of_any_hierarchy(seed, data):
    draw = rng(seed)
    images, multiplier = int(draw.integers(5, 60)), int(draw.integers(1, 4))
    levels, items = [], images
    for _ in range(3):
        clusters = max(1, items // 2)
        assignment = draw.permutation(
            np.concatenate([np.arange(clusters), draw.integers(clusters, size=items)])[:items]
        )
        indptr, indices = group(assignment, clusters)
        levels.append(SimpleNamespace(assignment=assignment, indptr=indptr, indices=indices))
        items = clusters
    target = data.draw(st.integers(1, images * multiplier))
    chosen = sample_hierarchy(levels, target, rng=rng(seed), multiplier=multiplier)
    assert len(chosen) == target
    assert (np.diff(chosen) >= 0).all()
    assert np.bincount(chosen, minlength=images).max() <= multiplier
    top = image_assignment(levels, 3)
    shares = np.bincount(top[chosen], minlength=items)
    with_room = shares[shares < multiplier * np.bincount(top, minlength=items)]
    if len(with_room):
        assert shares.max() <= with_room.min() + 1


def test_seed_decides_the_selection():
    a, b, c = (sample_hierarchy(TWO_LEVELS, 4, rng=rng(s)).tolist() for s in (1, 1, 2))
    assert a == b
    assert a != c


def test_zipf_mixture_is_balanced():
    draw = rng(0)
    weights = 1 / np.arange(1, 41) ** 1.2
    classes = draw.choice(40, size=4000, p=weights / weights.sum())
    x = (draw.normal(size=(40, 16)) * 4)[classes] + draw.normal(size=(4000, 16))
    levels = hierarchical_kmeans(x, [Level(200, 5, 3), Level(40, 3, 3)], seed=0)

    def entropy(chosen):
        return occupancy_entropy(np.bincount(classes[chosen], minlength=40))

    hierarchical = entropy(sample_hierarchy(levels, 400, rng=rng(1)))
    assert hierarchical > entropy(random_selection(4000, 400, rng(1))) + 0.5
    assert hierarchical > 0.95 * np.log(40)
    assert entropy(flat_selection(levels[0].assignment, 400, rng(1))) > entropy(random_selection(4000, 400, rng(1)))


def test_baselines():
    np.testing.assert_array_equal(random_selection(5, 5, rng()), np.arange(5))
    assert len(set(random_selection(1000, 100, rng()))) == 100
    flat = flat_selection(TWO_LEVELS[0].assignment, 9, rng())
    np.testing.assert_array_equal(np.bincount(TWO_LEVELS[0].assignment[flat]), [1, 3, 2, 3])
    top = top_level_selection(TWO_LEVELS, 6, rng())
    np.testing.assert_array_equal(np.bincount(image_assignment(TWO_LEVELS, 2)[top]), [3, 3])
    for chosen in (flat, top):
        assert chosen.dtype == np.int64
        assert (np.diff(chosen) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 0}, "target_size=0: expected at least 1"),
        ({"target": 11}, "target_size=11 is more than the 10 images"),
        ({"target": 21, "multiplier": 2}, "target_size=21 is more than the 20 images"),
        ({"multiplier": 0}, "multiplier must be at least 1"),
        ({"leaf": "furthest"}, "leaf=furthest is not known"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        sample_hierarchy(TWO_LEVELS, **{"target": 3, "rng": rng(), **options})


@pytest.mark.parametrize("call", [random_selection, lambda n, t, r: flat_selection(np.zeros(n, int), t, r)])
@pytest.mark.parametrize("target", [0, 6])
def test_baselines_refuse_bad_targets(call, target):
    with pytest.raises(ConfigError, match=str(target)):
        call(5, target, rng())


def test_levels_must_fit_together():
    with pytest.raises(InputError, match="level 2 has 4 items but level 1 has 2 clusters"):
        sample_hierarchy([level([0, 1], [2]), level([0, 1], [2, 3])], 1, rng=rng())
    with pytest.raises(InputError, match="no levels"):
        sample_hierarchy([], 1, rng=rng())
    with pytest.raises(ConfigError, match="between 1 and 2"):
        image_assignment(TWO_LEVELS, 3)
