"""step=cluster: levels in files, the same bytes after a kill, errors that name the way out."""

import h5py
import numpy as np
import pytest

import skyloom
from make.artifacts import features_artifact
from skyloom.cluster.files import read_levels
from skyloom.errors import ConfigError, InputError
from skyloom.step import cluster as module

LEVELS = [{"clusters": 12, "sample_size": 4, "resamples": 2}, {"clusters": 3, "sample_size": 2, "resamples": 1}]


def blobs(number=240, centres=6, dimensions=8, seed=0):
    rng = np.random.default_rng(seed)
    label = np.arange(number) % centres
    return (rng.normal(0, 8, (centres, dimensions))[label] + rng.normal(0, 0.3, (number, dimensions))).astype(
        "f4"
    ), label


def test_levels_are_written_as_csr_sorted_by_distance(tmp_path):
    x, label = blobs()
    features = features_artifact(tmp_path, x)
    artifact = skyloom.curate("cluster", features=features, levels=LEVELS, store=tmp_path)
    first, second = read_levels(artifact)
    assert artifact.notes["levels"] == [12, 3]
    assert first.assignment.shape == (240,)
    assert second.assignment.shape == (12,)
    for k in range(12):
        members = first.indices[first.indptr[k] : first.indptr[k + 1]]
        assert (first.assignment[members] == k).all()
        assert len(np.unique(label[members])) == 1, "a cluster never mixes blobs that lie far apart"
        distance = first.distance[first.indptr[k] : first.indptr[k + 1]]
        assert (np.diff(distance) >= 0).all()
        assert np.allclose(distance, np.linalg.norm(x[members] - first.centroids[k], axis=1), atol=1e-3)
    with h5py.File(features.file("features.h5")) as file:
        assert np.array_equal(np.load(artifact.file("cutout_id.npy")), file["cutout_id"][:])


def test_a_run_killed_between_levels_ends_with_the_same_bytes(tmp_path, monkeypatch):
    features = features_artifact(tmp_path / "a", blobs()[0])
    whole = skyloom.curate("cluster", features=features, levels=LEVELS, store=tmp_path / "a")
    features = features_artifact(tmp_path / "b", blobs()[0])
    real = module.hierarchical_kmeans

    def only_first(x, levels, **options):
        real(x, levels[:1], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "hierarchical_kmeans", only_first)
    with pytest.raises(KeyboardInterrupt):
        skyloom.curate("cluster", features=features, levels=LEVELS, store=tmp_path / "b")
    seen = []
    monkeypatch.setattr(
        module, "hierarchical_kmeans", lambda x, levels, **o: (seen.append(len(o["done"])), real(x, levels, **o))[1]
    )
    again = skyloom.curate("cluster", features=features, levels=LEVELS, store=tmp_path / "b")
    assert seen == [1], "the finished level was not made again"
    assert again.manifest["files"] == whole.manifest["files"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"levels": [{"clusters": 500, "sample_size": 1, "resamples": 0}]}, ConfigError, "500"),
        ({"levels": [{"clusters": 0, "sample_size": 1, "resamples": 0}]}, ConfigError, "clusters"),
        ({"levels": [LEVELS[1], LEVELS[0]]}, ConfigError, "12"),
        ({"metric": "l1"}, ConfigError, "metric=l1 is not known; choose one of: cosine, l2"),
    ],
)
def test_bad_options(tmp_path, options, error, message):
    features = features_artifact(tmp_path, blobs()[0])
    with pytest.raises(error, match=message) as caught:
        skyloom.curate("cluster", features=features, **{"levels": LEVELS, **options}, store=tmp_path)
    assert "\n" not in str(caught.value)


def test_nan_features_are_refused(tmp_path):
    x = blobs()[0]
    x[7, 3] = np.nan
    with pytest.raises(InputError, match="finite"):
        skyloom.curate("cluster", features=features_artifact(tmp_path, x), levels=LEVELS, store=tmp_path)
