import json
import math

import numpy as np
import polars as pl
import pytest

from make.probes import blobs, make_features, make_labelled, task
from skyloom.errors import ConfigError, InputError
from skyloom.probe.frozen import Frozen, probe
from skyloom.store import Artifact

METRICS = ["accuracy", "balanced_accuracy", "macro_f1"]
OFFICIAL = (["train"] * 6 + ["val"] * 2 + ["test"] * 2) * 9


def run(store, features, labels=None, **changes) -> Artifact:
    return probe(features=features, labels=labels, task=task(**changes), seed=0, store=store)


def results(artifact: Artifact) -> pl.DataFrame:
    return artifact.table()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def easy(store):
    names, values = blobs(90)
    return make_features(store, make_labelled(store, names, split=OFFICIAL), values)


@pytest.mark.parametrize("method", ["knn", "linear"])
@pytest.mark.parametrize("split", ["official", "folds"])
def test_separable_classes_score_one(store, easy, method, split):
    table = results(run(store, easy, method=method, split=split, fractions=[0.2, 1.0]))
    assert table.select(METRICS).min().row(0) == (1.0, 1.0, 1.0)
    assert set(table["fold"]) == ({None} if split == "official" else {0, 1, 2})


@pytest.mark.parametrize("method", ["knn", "linear"])
def test_shuffled_labels_score_at_chance(store, method):
    names, values = blobs(600, classes=4)
    mixed = np.random.default_rng(3).permutation(names).tolist()
    table = results(run(store, make_features(store, make_labelled(store, mixed), values), method=method))
    spread = math.sqrt(0.25 * 0.75 / 600)
    assert abs(table["accuracy"].mean() - 0.25) < 4 * spread


def test_copies_in_one_group_do_not_raise_the_score(store):
    """Random labels, each image ten times: leakage would find the copy in the training part."""
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in np.repeat(rng.integers(0, 2, 60), 10)]
    values, group = np.repeat(rng.normal(size=(60, 4)), 10, axis=0), np.repeat(np.arange(60), 10).tolist()
    scores = {
        kind: results(run(store, make_features(store, make_labelled(store, names, group=given), values), method="knn"))[
            "accuracy"
        ].mean()
        for kind, given in (("grouped", group), ("leaking", None))
    }
    assert scores["leaking"] > 0.99
    assert scores["grouped"] < 0.75


def test_the_same_command_gives_the_same_bytes(tmp_path):
    found = []
    for root in (tmp_path / "a", tmp_path / "b"):
        names, values = blobs(60, apart=2.0)
        made = run(root, make_features(root, make_labelled(root, names), values), fractions=[0.1, 1.0])
        found.append((made.id, made.file("results.parquet").read_bytes(), made.file("numbers.json").read_bytes()))
    assert found[0] == found[1]


def test_what_is_not_random_is_measured_once(store, easy):
    table = results(run(store, easy, split="official", fractions=[0.5, 1.0], seeds=3))
    assert table.group_by("fraction").len().sort("fraction").rows() == [(0.5, 3), (1.0, 1)]
    fixed = make_labelled(store, blobs(90)[0], fold=[i % 4 for i in range(90)])
    table = results(run(store, make_features(store, fixed, blobs(90)[1]), fractions=[0.5, 1.0], seeds=2))
    assert table.group_by("fraction").len().sort("fraction").rows() == [(0.5, 8), (1.0, 4)]


def test_a_hundredth_keeps_every_class_and_uses_few(store):
    names, values = blobs(300)
    made = run(store, make_features(store, make_labelled(store, names), values), fractions=[0.01])
    assert results(made)["n_train"].to_list() == [3] * 6  # one of each: the folds have 200 to train on
    assert set(results(made)["classes_in_train"]) == {3}
    assert set(results(made)["chosen_on"]) <= {"inner folds"}


def test_a_class_with_one_member(store):
    names, values = blobs(60)
    names[-1] = "lonely"
    made = run(store, make_features(store, make_labelled(store, names), values), method="knn", seeds=1)
    numbers = json.loads(made.file("numbers.json").read_text())
    assert numbers["classes_with_fewer_members_than_folds"] == ["lonely"]
    row = next(r for r in numbers["fractions"][0]["per_class"] if r["class"] == "lonely")
    assert (row["number"], row["recall"]) == (1, 0.0)


def test_more_neighbours_than_labels(store):
    names, values = blobs(30)
    made = run(
        store, make_features(store, make_labelled(store, names), values), method="knn", knn={"k": [200]}, seeds=1
    )
    assert results(made)["chosen"].to_list() == [20.0] * 3  # the bank
    assert results(made)["accuracy"].min() == 1


def test_several_labels_each(store):
    names, values = blobs(90)
    both = [[name, "all"] if i % 2 else [name] for i, name in enumerate(names)]
    values = np.hstack([values, np.array([[20.0 * (i % 2)] for i in range(90)])])
    made = run(store, make_features(store, make_labelled(store, both, multi_label=True), values))
    assert results(made)["macro_f1"].min() > 0.99
    numbers = json.loads(made.file("numbers.json").read_text())
    assert numbers["fractions"][0]["confusion"] is None
    assert [row["class"] for row in numbers["fractions"][0]["per_class"]] == ["all", "c0", "c1", "c2"]


def test_tables_and_numbers_tell_the_same(store):
    names, values = blobs(90, apart=2.0)
    made = run(store, make_features(store, make_labelled(store, names, split=OFFICIAL), values, model="net"))
    told = made.table("predictions.parquet")
    right = (told["truth"] == told["predicted"]).mean()
    assert results(made)["accuracy"].item() == pytest.approx(right)
    assert len(told) == 18
    numbers = json.loads(made.file("numbers.json").read_text())
    matrix = np.array(numbers["fractions"][0]["confusion"])
    assert matrix.sum() == 18
    assert np.trace(matrix) / 18 == pytest.approx(right)
    assert made.notes["summary"] == numbers["summary"]
    assert (made.notes["backbone"], made.notes["split"], made.notes["classes"]) == (
        "net",
        "official",
        ["c0", "c1", "c2"],
    )
    assert told["scores"][0].sum() == pytest.approx(1, abs=1e-5)


def test_the_penalty_is_chosen_on_validation_labels_only(store):
    names, values = blobs(90, apart=2.0)
    cutouts = make_labelled(store, names, split=OFFICIAL)
    features = make_features(store, cutouts, values)
    before = results(run(store, features))
    assert before["chosen_on"].to_list() == ["val"]
    wild = values.copy()
    wild[[s == "test" for s in OFFICIAL]] = 0  # what is tested must not matter
    after = results(run(store, make_features(store, cutouts, wild)))
    assert after["chosen"].to_list() == before["chosen"].to_list()


def test_labels_without_features_are_counted(store, capsys):
    names, values = blobs(60)
    made = run(store, make_features(store, make_labelled(store, names), values[:45]), seeds=1)
    assert made.counts["dropped"]["no features"]["number"] == 15
    assert made.counts["used"] == 45
    assert "macro_f1" in capsys.readouterr().err


def test_labels_outside_the_split_are_counted(store):
    names, values = blobs(60)
    split = ["train"] * 30 + ["test"] * 20 + [None] * 10
    made = run(store, make_features(store, make_labelled(store, names, split=split), values))
    assert made.counts["dropped"]["in no part of the split"]["number"] == 10


def test_groups_that_an_official_split_tears_apart_are_counted(store):
    names, values = blobs(60)
    split, group = ["train"] * 30 + ["test"] * 30, list(range(30)) + list(range(30))
    made = run(store, make_features(store, make_labelled(store, names, split=split, group=group), values))
    assert made.notes["groups_in_train_and_test"] == 30


def test_bad_input_is_said_in_one_line(store, easy):
    names, values = blobs(30)
    cutouts = make_labelled(store, names)
    broken = values.copy()
    broken[4, 2] = np.nan
    with pytest.raises(InputError, match=r"1 of 30 labelled cutouts have features that are not finite.*512"):
        run(store, make_features(store, cutouts, broken))
    with pytest.raises(InputError, match="one class: c0"):
        run(store, make_features(store, make_labelled(store, ["c0"] * 30), values))
    with pytest.raises(InputError, match="no common origin"):
        run(store, easy, labels=cutouts)
    with pytest.raises(ConfigError, match="features must be given"):
        run(store, None, labels=cutouts)
    with pytest.raises(ConfigError, match="expected 2 to 30"):
        run(store, make_features(store, cutouts, values), folds=31)
    with pytest.raises(ConfigError, match=r"use task\.split=folds"):
        run(store, make_features(store, cutouts, values), split="official")


def test_features_must_belong_to_the_labels():
    with pytest.raises(InputError, match="3 features do not belong"):
        Frozen(np.zeros((3, 2)), type("L", (), {"cutout_id": np.arange(4)})(), None)


def test_options_of_another_method_do_not_change_the_id(store, easy):
    first = run(store, easy, method="knn")
    assert run(store, easy, method="knn", linear={"l2": [5.0]}, finetune={"epochs": 9}).id == first.id
    assert run(store, easy, method="knn", knn={"k": [1]}).id != first.id
