"""step=subsample: exactly the target, evenly from all clusters, the same for the same seed."""

import shutil

import numpy as np
import pytest

import skyloom
from make.artifacts import features_artifact
from skyloom.errors import ConfigError


@pytest.fixture
def clusters(tmp_path):
    """Three blobs of 1, 5 and 10 points."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], [1, 5, 10])
    x = (np.eye(3)[label] * 100 + rng.normal(0, 0.1, (16, 3))).astype("f4")
    levels = [{"clusters": 3, "sample_size": 1, "resamples": 0}]
    return skyloom.curate("cluster", features=features_artifact(tmp_path, x), levels=levels, store=tmp_path)


def select(clusters, **options):
    return skyloom.curate("subsample", clusters=clusters, **options, store=clusters.path.parents[1])


def test_sizes_1_5_10_and_target_9_give_1_4_4(clusters):
    table = select(clusters, target_size=9).table()
    assert sorted(table["cluster_1"].value_counts()["count"].to_list()) == [1, 4, 4]
    assert table["cutout_id"].n_unique() == 9
    assert table["row"].is_sorted()
    ids = np.load(clusters.file("cutout_id.npy"))
    assert ids[table["row"].to_numpy()].tolist() == table["cutout_id"].to_list()


def test_the_seed_decides(clusters, tmp_path):
    picks = {tuple(select(clusters, target_size=9, seed=seed).table()["row"]) for seed in range(6)}
    assert len(picks) > 1
    elsewhere = tmp_path / "other" / "clusters" / clusters.id
    shutil.copytree(clusters.path, elsewhere)
    again = select(type(clusters)(elsewhere), target_size=9)
    first = select(clusters, target_size=9)
    assert again.path != first.path, "made twice"
    assert again.table().equals(first.table())


def test_closest_takes_those_nearest_to_the_centroid(clusters):
    from skyloom.cluster.files import read_levels

    level = read_levels(clusters)[0]
    rows = set(select(clusters, target_size=9, leaf="closest").table()["row"])
    for k in range(3):
        members = level.indices[level.indptr[k] : level.indptr[k + 1]].tolist()
        chosen = [m in rows for m in members]
        assert chosen == sorted(chosen, reverse=True)


def test_a_multiplier_repeats_cutouts(clusters):
    artifact = select(clusters, target_size=20, multiplier=2)
    assert artifact.counts["kept"] == 20
    assert artifact.table()["cutout_id"].value_counts()["count"].max() == 2


@pytest.mark.parametrize(("target", "message"), [(17, "17"), (0, "target_size=0: input should be greater than 0")])
def test_impossible_targets(clusters, target, message):
    with pytest.raises(ConfigError, match=message):
        select(clusters, target_size=target)


@pytest.mark.parametrize("method", ["flat", "top_level", "random"])
def test_controls_take_as_many_each_at_most_once(clusters, method):
    artifact = select(clusters, target_size=9, method=method)
    assert artifact.table()["row"].n_unique() == 9
    assert artifact.notes["method"] == method
    if method != "random":
        assert sorted(artifact.table()["cluster_1"].value_counts()["count"].to_list()) == [1, 4, 4]
    assert artifact.id != select(clusters, target_size=9).id
    with pytest.raises(ConfigError, match=f"method={method} takes random cutouts, each at most once"):
        select(clusters, target_size=9, method=method, multiplier=2)
