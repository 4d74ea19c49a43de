import numpy as np
import pytest

from skyloom.datamodule.labels import label_subset
from skyloom.errors import ConfigError
from skyloom.probe.folds import grouped_folds


def hot(labels):
    labels = np.asarray(labels)
    return np.eye(labels.max() + 1, dtype=bool)[labels]


def survey(seed=0, groups=60, classes=4):
    """Groups of 1 to 9 items whose classes are not those of the whole."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups) * 1000 + 7, rng.integers(1, 10, groups))
    label = (rng.integers(0, classes, groups)[group // 1000] + (rng.random(len(group)) < 0.3)) % classes
    return hot(label), group


@pytest.mark.parametrize("seed", range(5))
def test_no_group_lies_in_two_folds_and_classes_are_spread(seed):
    targets, group = survey(seed)
    fold = grouped_folds(targets, group, 5, seed)
    for number in np.unique(group):
        assert len(np.unique(fold[group == number])) == 1
    assert set(fold) == set(range(5))
    shares = np.stack([targets[fold == f].sum(0) for f in range(5)]) / targets.sum(0)
    assert np.abs(shares - 0.2).max() < 0.09


def test_items_without_company_are_stratified_exactly():
    targets = hot([0] * 50 + [1] * 25 + [2] * 5 + [3])
    fold = grouped_folds(targets, np.arange(81), 5, 3)
    assert np.stack([targets[fold == f].sum(0) for f in range(5)])[:, :3].tolist() == [[10, 5, 1]] * 5
    assert np.ptp(np.bincount(fold)) <= 1


def test_folds_depend_on_the_seed_alone():
    targets, group = survey()
    assert np.array_equal(grouped_folds(targets, group, 5, 1), grouped_folds(targets, group, 5, 1))
    assert not np.array_equal(grouped_folds(targets, group, 5, 1), grouped_folds(targets, group, 5, 2))


def test_rows_with_several_labels_or_none():
    rng = np.random.default_rng(0)
    targets = rng.random((200, 6)) < [0.5, 0.3, 0.1, 0.05, 0.2, 0.02]
    fold = grouped_folds(targets, np.arange(200), 4, 0)
    assert np.ptp(np.bincount(fold)) <= 8
    assert all(targets[fold == f][:, 3].any() for f in range(4))


def test_more_folds_than_groups_is_refused():
    with pytest.raises(ConfigError, match=r"task\.folds=5: expected 2 to 3"):
        grouped_folds(hot([0, 1, 0, 1, 0, 1]), np.array([1, 1, 2, 2, 3, 3]), 5, 0)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 1.0])
def test_a_fraction_keeps_every_class(fraction):
    targets = hot([0] * 300 + [1] * 40 + [2])
    kept = label_subset(targets, fraction, np.random.default_rng(0))
    assert targets[kept].sum(0).tolist() == [max(1, round(fraction * n)) for n in (300, 40, 1)]
    assert len(kept) == len(np.unique(kept))


def test_a_smaller_fraction_lies_within_a_larger_one():
    targets, _ = survey()
    few, many = (label_subset(targets, f, np.random.default_rng(5)) for f in (0.1, 0.5))
    assert set(few) < set(many)


def test_a_fraction_of_several_labels_each_keeps_every_class():
    targets = np.random.default_rng(0).random((400, 5)) < [0.5, 0.3, 0.1, 0.05, 0.01]
    kept = label_subset(targets, 0.1, np.random.default_rng(1))
    assert targets[kept].any(0).all()
    assert 0.05 < len(kept) / 400 < 0.2
