"""The report on features finds what was planted: copies, smooth neighbours, a shifted set, an outlier, a collapse."""

import json
import re
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import polars as pl
import pytest

import skyloom
from make.feature_sets import chosen_rows, features_of, given_labels, windows
from skyloom.errors import ConfigError, InputError
from skyloom.metric.representation import rankme
from skyloom.report import feature_set
from skyloom.report.features.report import features
from skyloom.report.features.sections import colour_values

UMAP = {"n_neighbors": 5, "min_dist": 0.1, "metric": "euclidean", "fit_rows": 50, "engine": "umap-learn"}
PLAIN = {
    "selection": None, "other": None, "other_digests": "refuse", "labels": None, "color": "peak_snr",
    "embedding": "pca", "embedding_rows": None, "umap": UMAP, "queries": None, "galleries": 3, "neighbours": 4,
    "metric": "l2", "pairs": 200, "test_rows": 100, "uniformity_rows": 100, "outliers": 5, "outlier_neighbour": 2,
    "outlier_reference": 30, "thumbnails": 0, "dpi": 50, "seed": 0, "image_roots": None,
}  # fmt: skip


def report(made, **options):
    return features(features=made, store=made.path.parents[1], **{**PLAIN, **options})


def numbers_of(artifact):
    return json.loads(artifact.file("numbers.json").read_text())


def page_of(artifact):
    return artifact.file("report.html").read_text()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def cutouts(root):
    return windows(root)


@pytest.fixture(scope="module")
def noise(cutouts):
    values = np.random.default_rng(0).normal(size=(72, 8))
    values[40] = values[3]  # a copy, in the other image
    values[17] += 30  # and one that is like no other
    return features_of(cutouts, values)


@pytest.fixture(scope="module")
def plain(noise):
    return report(noise, thumbnails=4)


def ids(*rows):
    return [1000 + 7 * row for row in rows]


def values_of(made):
    with h5py.File(made.file("features.h5")) as file:
        return file["features"][:]


def test_measures_are_those_of_the_matrix(plain, noise):
    found = numbers_of(plain)
    z = values_of(noise).astype(float)
    assert (found["cutouts"], found["dimensions"]) == (72, 8)
    assert found["representation"]["rankme"] == pytest.approx(rankme(z), rel=1e-5)
    np.testing.assert_allclose(found["representation"]["variances"], np.linalg.eigvalsh(np.cov(z.T))[::-1], rtol=1e-5)
    assert found["representation"]["collapsed"] is False


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_gallery_finds_the_copy(noise, metric):
    found = numbers_of(report(noise, queries=ids(3, 40), metric=metric, pairs=0, outliers=0))["neighbours"]["queries"]
    assert [entry["neighbours"][0] for entry in found] == ids(40, 3)
    assert [entry["distances"][0] for entry in found] == [0, 0]
    assert all(entry["cutout_id"] not in entry["neighbours"] for entry in found)


def test_the_outlier_comes_first(plain):
    found = numbers_of(plain)["outliers"]
    assert found["cutouts"][0]["cutout_id"] == ids(17)[0]
    assert found["cutouts"][0]["distance"] > 5 * found["cutouts"][1]["distance"]
    assert found["exact"] is True
    table = plain.table("outliers.parquet")
    assert table["cutout_id"].to_list() == [entry["cutout_id"] for entry in found["cutouts"]]


def test_a_collapsed_encoder_is_reported(cutouts):
    made = report(features_of(cutouts, np.full((72, 5), 0.3)), embedding="pca")
    found = numbers_of(made)
    assert found["representation"]["collapsed"] is True
    assert "complete collapse" in page_of(made)
    assert not [test for test in found["physical_neighbours"]["tests"] if test["significant"]]


def position(cutouts):
    table = cutouts.table()
    return np.column_stack([table["row0"], table["col0"], 200 * table["image"].cast(pl.Categorical).to_physical()])


@pytest.mark.parametrize("stride", [16, 8])
def test_features_smooth_on_the_sky_pass_the_neighbour_test_and_random_ones_do_not(root, stride):
    cutouts = windows(root, images=2, side=8, stride=stride)
    place = position(cutouts)
    rng = np.random.default_rng(1)
    tests = {}
    for name, values in (("smooth", place + rng.normal(size=place.shape)), ("random", rng.normal(size=place.shape))):
        found = numbers_of(report(features_of(cutouts, values), galleries=0, outliers=0, embedding="none"))
        tests[name] = {(t["first"], t["second"]): t for t in found["physical_neighbours"]["tests"]}
        pairs = found["physical_neighbours"]["pairs"]
        assert (pairs["overlapping"] > 0) == (stride < 16)
    assert tests["smooth"]["touching", "random"]["significant"]
    assert tests["smooth"]["touching", "random"]["auc"] > 0.95
    assert tests["smooth"]["touching", "same_image"]["auc"] > 0.95
    assert not tests["random"]["touching", "random"]["significant"]
    assert abs(tests["random"]["touching", "random"]["auc"] - 0.5) < 0.1


def test_what_an_image_has_in_common_is_not_taken_for_the_sky(root):
    cutouts = windows(root, images=4, side=8)
    image = np.repeat(np.arange(4), 64)
    values = 20 * np.eye(4)[image] + np.random.default_rng(2).normal(size=(256, 4))
    found = numbers_of(report(features_of(cutouts, values), galleries=0, outliers=0, embedding="none"))
    tests = {(t["first"], t["second"]): t for t in found["physical_neighbours"]["tests"]}
    assert tests["touching", "random"]["significant"]
    assert not tests["touching", "same_image"]["significant"]


def test_two_samples_are_at_chance_for_one_distribution_and_apart_for_a_shifted_one(root):
    first, second = windows(root, images=6, side=5), windows(root, images=6, side=5, seed=1)
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 150, 6))
    one = features_of(first, a)
    short = {"galleries": 0, "outliers": 0, "embedding": "none", "pairs": 0, "test_rows": 150}
    same = numbers_of(report(one, other=features_of(second, b), **short))["two_sample"]
    assert same["interval_95"][0] < 0.5 < same["interval_95"][1]
    assert (same["verdict"], same["folds_by_image"], same["rows"]) == ("alike", True, 150)
    apart = report(one, other=features_of(second, b + 3), **short)
    found = numbers_of(apart)["two_sample"]
    assert found["accuracy"] > 0.95
    assert found["verdict"] == "incompatible"
    assert found["mean_shift"]["mean"] == pytest.approx(3, abs=0.3)
    assert "two_sample.png" in apart.manifest["files"]


def test_other_features_of_another_network_are_refused_unless_asked(noise, cutouts):
    foreign = features_of(cutouts, values_of(noise), backbone="another")
    with pytest.raises(InputError, match=r"differ in backbone_digest.*other_digests=allow"):
        report(noise, other=foreign)
    assert numbers_of(report(noise, other=foreign, other_digests="allow"))["two_sample"]["common_cutouts"] > 0
    with pytest.raises(InputError, match="8 dimensions"):
        report(noise, other=features_of(cutouts, np.ones((72, 3))), other_digests="allow")


def test_the_page_holds_the_pictures_that_lie_beside_it(plain):
    found = set(re.findall(r'data-file="([^"]+)"', page_of(plain)))
    assert found == {name for name in plain.manifest["files"] if name.endswith(".png")}
    assert found >= {"map.png", "density.png", "map_thumbnails.png", "spectrum.png", "neighbours.png",
                     "physical_neighbours.png", "outliers.png"}  # fmt: skip
    assert "python analyze.py report=features features=" in page_of(plain)
    assert "umap.n_neighbors=5" in page_of(plain)


def test_the_same_request_gives_the_same_bytes_in_another_store(tmp_path, noise, plain):
    other = report(features_of(windows(tmp_path), values_of(noise)), thumbnails=4)
    assert other.id == plain.id
    assert other.manifest["files"] == plain.manifest["files"]


def test_features_on_disk_give_what_features_in_memory_give(noise, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_set, "MEMORY_BYTES", 100)
    other = report(features_of(windows(tmp_path), values_of(noise)), thumbnails=4)
    assert numbers_of(other) == numbers_of(plain)


def test_a_selection_restricts_the_cutouts(noise, root, monkeypatch):
    rows = [40, 3, 3, 20, 25, 30, 35, 50]
    chosen = chosen_rows(features=noise, rows=rows, store=root)
    monkeypatch.setattr(feature_set, "MEMORY_BYTES", 100)
    made = report(noise, selection=chosen, queries=ids(3), pairs=0)
    assert numbers_of(made)["cutouts"] == 7
    assert numbers_of(made)["neighbours"]["queries"][0]["neighbours"][0] == ids(40)[0]
    assert made.table()["cutout_id"].to_list() == sorted(ids(*set(rows)))
    with pytest.raises(InputError, match=r"1 of 1 cutout ids \(first: 1007\) have no features"):
        report(noise, selection=chosen, queries=ids(1))


def test_without_thumbnails_no_image_is_read(tmp_path):
    made = features_of(windows(tmp_path), np.random.default_rng(0).normal(size=(72, 4)))
    for path in tmp_path.glob("images/*/m*.npy"):
        path.rename(tmp_path / path.name)
    assert not [name for name in report(made).manifest["files"] if name in ("neighbours.png", "map_thumbnails.png")]
    with pytest.raises(InputError, match="no longer at"):
        report(made, thumbnails=2)


def test_labels_colour_the_map_and_cutouts_without_one_are_grey(noise, cutouts, root):
    labels = given_labels(cutouts=cutouts, labels=[["a"], ["b"], [], ["a", "b"]], store=root)
    with feature_set.open_features(noise) as data:
        values, names = colour_values(data, "label", labels)
    assert names == ["a", "b", "several"]
    assert values[:5].tolist() == [0, 1, -1, 2, -1]
    made = report(noise, labels=labels, color="label", galleries=0, pairs=0, outliers=0)
    assert "coloured by label" in page_of(made)
    foreign = windows(root, images=1)
    with pytest.raises(InputError, match="take labels of the same cutouts"):
        report(noise, labels=given_labels(cutouts=foreign, labels=[["a"]], store=root), color="label")


def test_wrong_options_are_refused_before_any_work(noise, monkeypatch):
    with pytest.raises(ConfigError, match=r"color.*peak_snrr.*peak_snr"):
        report(noise, color="peak_snrr")
    with pytest.raises(ConfigError, match="column of texts"):
        report(noise, color="image")
    with pytest.raises(ConfigError, match="labels=ID belong together"):
        report(noise, color="label")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match=r"extra 'analysis'.*embedding=pca"):
        report(noise, embedding="umap")


def test_bad_features_are_named(cutouts):
    made = features_of(cutouts, np.arange(216).reshape(72, 3))
    path = made.file("features.h5")
    path.chmod(0o644)
    with h5py.File(path, "r+") as file:
        file["features"][5, 1] = np.nan
    with pytest.raises(InputError, match="row 5 is not"):
        report(made)


def test_cuml_is_taken_where_it_is(noise, monkeypatch):
    told = {}

    class Gpu:
        def __init__(self, **options):
            told.update(options)

        def fit_transform(self, x):
            return x[:, :2]

        def transform(self, x):
            return x[:, :2]

    monkeypatch.setitem(sys.modules, "cuml", SimpleNamespace(__spec__=None))
    monkeypatch.setitem(sys.modules, "cuml.manifold", SimpleNamespace(UMAP=Gpu))
    made = report(noise, embedding="umap", umap={**UMAP, "engine": "auto"}, galleries=0, pairs=0, outliers=0)
    assert numbers_of(made)["embedding"]["method"] == "cuml"
    assert told == {"n_components": 2, "n_neighbors": 5, "min_dist": 0.1, "metric": "euclidean", "random_state": 0}
    np.testing.assert_allclose(made.table()["x"].to_numpy(), values_of(noise)[:, 0])


def test_umap_places_groups_apart_and_the_rest_near_their_own(root):
    pytest.importorskip("umap", reason="the extra 'analysis' is not installed")
    cutouts = windows(root, images=2, side=7)
    group = np.arange(98) % 2
    values = 20 * group[:, None] + np.random.default_rng(4).normal(size=(98, 5))
    made = report(features_of(cutouts, values), embedding="umap", galleries=0, pairs=0, outliers=0, embedding_rows=90)
    found = numbers_of(made)["embedding"]
    assert (found["method"], found["placed"], found["fitted"]) == ("umap-learn", 90, 50)
    assert "90 of the 98 cutouts are on the map" in page_of(made)
    assert "fitted on 50 of them" in page_of(made)
    table = made.table()
    own = group[(table["cutout_id"].to_numpy() - 1000) // 7]
    xy = table.select("x", "y").to_numpy()
    centres = np.array([np.median(xy[own == g], axis=0) for g in (0, 1)])
    assert (np.linalg.norm(xy[:, None] - centres, axis=2).argmin(axis=1) == own).mean() > 0.98


def test_the_verb_finds_it_with_the_defaults_of_its_file(noise, root):
    planned = skyloom.analyze("features", features=noise, dry_run=True, **{"paths.store": str(root)})
    assert planned.request.parameters["umap"]["n_neighbors"] == 50
    assert planned.request.parameters["umap"]["min_dist"] == 0.1
