import numpy as np
import pytest

from skyloom.errors import InputError
from skyloom.metric.balance import coverage, gini, normalised_entropy, occupancy_entropy


def test_equal_counts_are_perfectly_balanced():
    counts = np.full(7, 3)
    assert occupancy_entropy(counts) == pytest.approx(np.log(7))
    assert normalised_entropy(counts) == pytest.approx(1)
    assert gini(counts) == pytest.approx(0)
    assert coverage(counts) == 1


def test_everything_in_one_cluster():
    counts = [0, 12, 0, 0]
    assert occupancy_entropy(counts) == 0
    assert normalised_entropy(counts) == 0
    assert gini(counts) == pytest.approx(3 / 4)
    assert coverage(counts) == 0.25


def test_known_values():
    assert occupancy_entropy([1, 3]) == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    counts = np.array([1.0, 2, 3, 10])
    pairs = np.abs(counts[:, None] - counts).mean() / (2 * counts.mean())
    assert gini(counts) == pytest.approx(pairs)
    assert gini(counts[::-1]) == pytest.approx(pairs)


def test_empty_clusters_lower_the_normalised_entropy_only():
    assert occupancy_entropy([2, 2, 0, 0]) == pytest.approx(occupancy_entropy([2, 2]))
    assert normalised_entropy([2, 2, 0, 0]) == pytest.approx(0.5)


def test_single_cluster():
    assert (occupancy_entropy([4]), normalised_entropy([4]), gini([4]), coverage([4])) == (0, 1, 0, 1)


@pytest.mark.parametrize("measure", [occupancy_entropy, normalised_entropy, gini, coverage])
@pytest.mark.parametrize("counts", [[], [[1, 2]], [1, -1], [1, np.nan], [0, 0]])
def test_unusable_counts(measure, counts):
    with pytest.raises(InputError, match="counts"):
        measure(counts)
