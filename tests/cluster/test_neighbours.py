"""Neighbour search is exact, in memory and on disk, and isolation bounds the distance from above."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from skyloom.cluster.neighbours import isolation, nearest_rows
from skyloom.cluster.rows import BLOCK_ROWS, Rows


@pytest.fixture(scope="module")
def points():
    return (np.random.default_rng(0).normal(size=(300, 6)) + 50).astype(np.float32)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_neighbours_are_those_of_all_distances(points, metric):
    own = np.array([5, 299, 0])
    index, distance = nearest_rows(Rows(points), points[own], 7, metric=metric, own=own)
    every = cdist(points[own], points, {"l2": "euclidean", "cosine": "cosine"}[metric])
    every[np.arange(3), own] = np.inf
    np.testing.assert_array_equal(index, np.argsort(every, axis=1)[:, :7])
    np.testing.assert_allclose(distance, np.sort(every, axis=1)[:, :7], rtol=1e-3, atol=1e-9)


def test_many_blocks_on_disk_give_the_same(tmp_path):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(2 * BLOCK_ROWS + 5, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", points)
    lazy = Rows(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert not lazy.in_memory
    queries = rng.normal(size=(4, 3)).astype(np.float32)
    index, distance = nearest_rows(lazy, queries, 3)
    every = cdist(queries, points)
    np.testing.assert_array_equal(index, np.argsort(every, axis=1)[:, :3])
    np.testing.assert_allclose(distance, np.sort(every, axis=1)[:, :3], rtol=1e-6)


def test_few_rows_and_zero_rows():
    points = np.array([[0.0, 0], [1, 0], [0, 2]], dtype=np.float32)
    index, distance = nearest_rows(Rows(points), points[:1], 9, metric="cosine", own=np.array([0]))
    assert index.tolist() == [[1, 2]]
    assert distance.tolist() == [[1, 1]]


def test_isolation_is_the_distance_to_a_neighbour_in_the_sample_and_bounds_that_to_all(points):
    reference = np.arange(0, 300, 4)
    found = isolation(Rows(points), reference, 3)
    every = cdist(points, points)
    np.fill_diagonal(every, np.inf)
    np.testing.assert_allclose(found, np.sort(every[:, reference], axis=1)[:, 2], rtol=1e-3)
    assert (found >= np.sort(every, axis=1)[:, 2] - 1e-3).all()
