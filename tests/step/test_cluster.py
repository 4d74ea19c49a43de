"""step=cluster: levels in files, the same bytes after a kill, errors that name the way out."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import skyloom
from make.artifacts import features_artifact
from skyloom.cluster import Level
from skyloom.cluster.files import read_levels
from skyloom.errors import ConfigError, InputError
from skyloom.run.notebook import compose
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


@pytest.mark.parametrize("stop", [1, 3, 6, 9])
def test_a_run_killed_at_an_iteration_goes_on_from_there_with_the_same_bytes(tmp_path, monkeypatch, stop):
    x = np.random.default_rng(0).normal(size=(240, 8)).astype("f4")
    options = {"levels": LEVELS, "checkpoint_s": 0}
    whole = skyloom.curate("cluster", features=features_artifact(tmp_path / "a", x), store=tmp_path / "a", **options)
    features = features_artifact(tmp_path / "b", x)
    real, calls = module.write_state, []

    def killed(path, state):
        real(path, state)
        calls.append(state)
        if len(calls) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_state", killed)
    with pytest.raises(KeyboardInterrupt):
        skyloom.curate("cluster", features=features, store=tmp_path / "b", **options)
    stopped = calls[-1]
    again = skyloom.curate("cluster", features=features, store=tmp_path / "b", **options)
    assert (calls[stop].level, calls[stop].step) == (stopped.level, stopped.step)
    assert calls[stop].lloyd.moved == stopped.lloyd.moved, "it starts where it stopped, not before"
    assert again.manifest["files"] == whole.manifest["files"]


def test_a_selection_limits_what_is_clustered_and_rows_point_into_the_features(tmp_path):
    x = blobs()[0]
    features = features_artifact(tmp_path, x)
    levels = [{"clusters": 6, "sample_size": 4, "resamples": 1}]
    all_of_them = skyloom.curate("cluster", features=features, levels=levels, store=tmp_path)
    chosen = skyloom.curate("subsample", clusters=all_of_them, target_size=100, store=tmp_path)
    some = skyloom.curate("cluster", features=features, selection=chosen, levels=levels, store=tmp_path)
    rows = np.load(some.file("row.npy"))
    assert rows.tolist() == chosen.table()["row"].to_list()
    assert np.load(some.file("cutout_id.npy")).tolist() == (1000 + rows).tolist()
    level = read_levels(some)[0]
    nearest = np.linalg.norm(x[rows][:, None] - level.centroids[None], axis=2).argmin(axis=1)
    assert (level.assignment == nearest).all()
    assert (some.counts["read"], some.counts["kept"]) == (240, 100)
    again = skyloom.curate("subsample", clusters=some, target_size=30, store=tmp_path).table()
    assert (again["cutout_id"] == again["row"] + 1000).all(), "row counts in the features, not in the clusters"
    other = features_artifact(tmp_path, x[:50] + 1)
    with pytest.raises(InputError, match="names 100 cutouts, of which features"):
        skyloom.curate("cluster", features=other, selection=chosen, levels=levels, store=tmp_path)


@pytest.mark.parametrize("option", [{"threads": 1}, {"threads": 4}, {"memory_budget_gb": 1e-6}, {"checkpoint_s": 0}])
def test_resources_change_neither_id_nor_bytes(tmp_path, option):
    features = [features_artifact(tmp_path / name, blobs(9000)[0]) for name in "ab"]
    levels = [{"clusters": 12, "sample_size": 300, "resamples": 1}]
    plain = skyloom.curate("cluster", features=features[0], levels=levels, store=tmp_path / "a")
    other = skyloom.curate("cluster", features=features[1], levels=levels, store=tmp_path / "b", **option)
    assert plain.id == other.id
    assert plain.manifest["files"] == other.manifest["files"]


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("conf/hierarchy/*.yaml")), ids=lambda p: p.stem)
def test_presets_give_levels_and_the_command_line_wins(path):
    words = ["step=cluster", "features=x", f"hierarchy={path.stem}"]
    levels = [Level(**level) for level in compose("curate", words).levels]
    if path.stem != "tiny":
        assert path.stem.removeprefix("lotss_") == "_".join(str(level.clusters) for level in levels)
    own = compose("curate", [*words, "levels=[{clusters: 3, sample_size: 2, resamples: 1}]"]).levels
    assert [level.clusters for level in own] == [3]


def test_clustering_starts_without_torch():
    code = "import sys, skyloom.step.cluster; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
