"""step=neardup: a selection without near-duplicates, the same after a kill and for any memory."""

import numpy as np
import pytest

import skyloom
import skyloom.step.neardup as module
from make.artifacts import features_artifact
from skyloom.errors import ConfigError, InputError


def planted(seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, 16))
    label = np.concatenate([np.repeat(np.arange(20), 6), np.arange(20, 60)])
    return (centres[label] + rng.normal(0, 0.01, (len(label), 16))).astype("f4") * rng.uniform(1, 9, (160, 1)), label


def neardup(features, **options):
    return skyloom.curate("neardup", features=features.id, **options, store=features.path.parents[1])


def clusters_of(features, number):
    levels = [{"clusters": number, "sample_size": 3, "resamples": 0}]
    return skyloom.curate("cluster", features=features.id, levels=levels, store=features.path.parents[1])


def test_planted_duplicates_go_and_the_tables_say_which(tmp_path):
    x, label = planted()
    features = features_artifact(tmp_path, x)
    done = neardup(features, own_clusters=1)
    table, dropped = done.table(), done.table("dropped.parquet")
    assert sorted(label[table["row"].to_numpy()]) == list(range(60))
    assert table["row"].is_sorted()
    assert table["cutout_id"].to_list() == [1000 + row for row in table["row"]]
    assert sorted([*table["row"], *dropped["row"]]) == list(range(160))
    assert set(dropped["duplicate_of"]) <= set(table["cutout_id"])
    assert (label[dropped["duplicate_of"].to_numpy() - 1000] == label[dropped["row"].to_numpy()]).all()
    assert dropped["similarity"].min() > 0.95
    assert done.counts["kept"] == 60
    assert done.counts["dropped"]["near-duplicate"]["number"] == 100


def test_given_clusters_are_used(tmp_path):
    features = features_artifact(tmp_path, planted()[0])
    clusters = clusters_of(features, 4)
    done = neardup(features, clusters=clusters.id)
    level = np.load(clusters.file("level1/assignment.npy"))
    table = done.table()
    assert table["cluster_1"].to_list() == level[table["row"].to_numpy()].tolist()
    assert {a.id for a in done.inputs.values()} == {features.id, clusters.id}
    other = features_artifact(tmp_path, planted(1)[0], np.arange(160) + 5)
    with pytest.raises(InputError, match=f"clusters {clusters.id} were made from other cutouts"):
        neardup(other, clusters=clusters.id)


@pytest.mark.parametrize("memory_gb", [1e-6, 1.0])
def test_memory_does_not_change_the_result(tmp_path, memory_gb):
    x = planted()[0]
    stores = [tmp_path / "a", tmp_path / "b"]
    one, two = (
        neardup(features_artifact(store, x), own_clusters=5, memory_gb=gb)
        for store, gb in zip(stores, (0.5, memory_gb), strict=True)
    )
    assert one.id == two.id
    for name in one.manifest["files"]:
        assert one.file(name).read_bytes() == two.file(name).read_bytes()


def test_a_killed_run_goes_on_with_the_next_clusters(tmp_path, monkeypatch):
    x = planted()[0]
    whole = neardup(features_artifact(tmp_path / "whole", x), own_clusters=6)
    features = features_artifact(tmp_path / "killed", x)
    seen = []
    real = module.bucket_duplicates

    def stop(rows, bucket, *arguments, **options):
        seen.append(bucket.first)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(rows, bucket, *arguments, **options)

    monkeypatch.setattr(module, "bucket_duplicates", stop)
    with pytest.raises(KeyboardInterrupt):
        neardup(features, own_clusters=6, memory_gb=1e-6)
    monkeypatch.setattr(module, "kmeans", None)  # the clusters are not made again
    again = neardup(features, own_clusters=6, memory_gb=1.0)
    assert seen == [0, 1, 2, 3, 3]
    for name in again.manifest["files"]:
        assert again.file(name).read_bytes() == whole.file(name).read_bytes()
    assert (again.path / "manifest.json").read_bytes() == (whole.path / "manifest.json").read_bytes()


def test_bad_input_is_named(tmp_path):
    x = planted()[0]
    x[7, 3] = np.nan
    with pytest.raises(InputError, match="the first is row 7"):
        neardup(features_artifact(tmp_path, x))
    x[7] = 0
    with pytest.raises(InputError, match="row 7 of the features is all zeros"):
        neardup(features_artifact(tmp_path, x))
    good = features_artifact(tmp_path, planted()[0])
    with pytest.raises(ConfigError, match="161"):
        neardup(good, own_clusters=161)
    with pytest.raises(ConfigError, match="eps=0"):
        neardup(good, eps=0)
