"""Who finds the nearest centroid, and what is left out, must not change what is found."""

import numpy as np
import pytest

from skyloom.cluster.grouping import make_guide, prepare
from skyloom.cluster.rows import Rows
from skyloom.cluster.search import FaissSearch, NumpySearch, TorchSearch, fastest, make_search
from skyloom.errors import ConfigError


def clustered(rows=6000, classes=40, dim=16, separation=20.0, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, dim)) * separation
    return (means[rng.integers(classes, size=rows)] + rng.normal(size=(rows, dim))).astype(np.float32)


def brute(x, centroids):
    squared = ((x[:, None].astype(np.float64) - centroids[None].astype(np.float64)) ** 2).sum(axis=2)
    return squared.argmin(axis=1)


@pytest.mark.parametrize("separation", [0.0, 1.0, 20.0])
def test_a_guide_leaves_out_no_nearest_centroid(monkeypatch, separation):
    monkeypatch.setattr("skyloom.cluster.grouping.LEAST_WORK", 0)
    x = clustered(separation=separation)
    centroids = x[np.random.default_rng(1).choice(len(x), 300, replace=False)]
    rows = Rows(x)
    prepare(rows, len(centroids))
    assert rows.guide is not None
    np.testing.assert_array_equal(NumpySearch(rows, centroids).nearest(0, x), brute(x, centroids))


def test_a_guide_spares_most_distances_between_separate_classes(monkeypatch):
    monkeypatch.setattr("skyloom.cluster.grouping.LEAST_WORK", 0)
    x = clustered()
    guide = make_guide(Rows(x), 300)
    centroids = x[::20]
    assert guide.nearest_candidates(centroids)[guide.label].mean() < 0.1
    distance = np.linalg.norm(x.astype(np.float64)[:, None] - x[None, :50], axis=2)
    assert (guide.gaps(x[:50])[guide.label] <= distance + 1e-6).all()


def test_little_work_needs_no_guide():
    assert make_guide(Rows(clustered(1000)), 100) is None


SEARCHES = {
    "numpy": NumpySearch,
    "torch": TorchSearch,
    "two devices": lambda rows, centroids: TorchSearch(rows, centroids, ["cpu", "cpu"]),
    "faiss": FaissSearch,
}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("offset", [0.0, 4096.0])
def test_all_backends_find_the_same(name, offset):
    if name == "faiss":
        pytest.importorskip("faiss", reason="faiss is an extra")
    x = clustered(5000, separation=0.5) + np.float32(offset)
    centroids = x[::37]
    np.testing.assert_array_equal(SEARCHES[name](Rows(x), centroids).nearest(0, x), brute(x, centroids))


@pytest.mark.parametrize("name", SEARCHES)
def test_of_equally_near_centroids_the_lowest_is_found(name):
    if name == "faiss":
        pytest.importorskip("faiss", reason="faiss is an extra")
    x = clustered(500)
    centroids = np.concatenate([x[:100], x[:100], x[:100]])  # more equals than the two that faiss is asked for
    found = SEARCHES[name](Rows(x), centroids).nearest(0, x)
    np.testing.assert_array_equal(found[:100], np.arange(100))
    assert found.max() < 100


def test_without_a_gpu_numpy_is_chosen(monkeypatch):
    monkeypatch.setattr("skyloom.cluster.search.has_gpu", lambda: False)
    assert fastest(Rows(clustered(500)), 20) == "numpy"


def test_with_a_gpu_a_trial_chooses(monkeypatch):
    monkeypatch.setattr("skyloom.cluster.search.has_gpu", lambda: True)
    seconds = {"TorchSearch": 2.0, "FaissSearch": 3.0, "NumpySearch": 1.0}
    monkeypatch.setattr("skyloom.cluster.search._seconds", lambda search, block: seconds[type(search).__name__])
    rows = Rows(clustered(500))
    assert fastest(rows, 20) == "torch", "without groups of rows, numpy has nothing to spare and is not tried"
    pytest.importorskip("faiss", reason="faiss is an extra")
    seconds["TorchSearch"] = 4.0
    assert fastest(rows, 20) == "faiss"


def test_faiss_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("skyloom.cluster.search.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="faiss is not installed"):
        make_search("faiss", Rows(clustered(500)), clustered(20))
