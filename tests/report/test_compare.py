import json
import re

import numpy as np
import polars as pl
import pytest

from make.probes import blobs, make_features, make_labelled, task
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.probe.frozen import probe
from skyloom.report.compare.entries import differing, facts_of, open_entry
from skyloom.report.compare.report import compare
from skyloom.store import Artifact, Build, builds, of_kind

SPLIT = (["train"] * 6 + ["test"] * 4) * 9


@builds("model", version=1, inputs={"data": of_kind("selection")})
def fake_training(build: Build, *, data, task: dict, rate: float, seed: int) -> None:
    """A model with parameters only."""


@builds("features", version=1, inputs={"cutouts": of_kind("cutouts"), "weights": of_kind("model")})
def trained_features(build: Build, *, cutouts, weights, layer: str) -> None:
    """Features of a fake model: the higher its rate, the further apart the classes lie."""
    apart, seed = (20 * weights.parameters["rate"], weights.parameters["seed"]) if weights else (0.5, 0)
    values = blobs(90, apart=apart, seed=seed)[1]
    import h5py

    with build.write("features.h5") as path, h5py.File(path, "w") as file:
        file["features"] = values.astype(np.float32)
        file["cutout_id"] = cutouts.table("cutouts.parquet")["cutout_id"].to_numpy()


def make_probe(store, cutouts, *, rate=0.1, seed=0, trained=True, **changes) -> Artifact:
    """A probe of features of a fake model."""
    model = fake_training(data=None, task={"name": "byol"}, rate=rate, seed=seed, store=store) if trained else None
    made = trained_features(cutouts=cutouts, weights=model, layer="pooled", store=store)
    return probe(features=made, labels=None, task=task(**changes), seed=0, store=store)


def report(store, probes, **changes) -> Artifact:
    given = {"baseline": None, "labels": None, "metric": "balanced_accuracy", "average": ["seed"], "bootstrap": 200}
    return compare(probes=probes, **{**given, "dpi": 50, "seed": 0, **changes}, store=store)


def rows_of(made: Artifact) -> list[dict]:
    return json.loads(made.file("numbers.json").read_text())["rows"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def cutouts(store):
    return make_labelled(store, blobs(90)[0], split=SPLIT)


@pytest.fixture(scope="module")
def probes(store, cutouts):
    """Random weights, and two trainings by their rate with two seeds each."""
    return [
        make_probe(store, cutouts, trained=False),
        *(make_probe(store, cutouts, rate=r, seed=s) for r in (0.1, 0.4) for s in (1, 2)),
    ]


@pytest.fixture(scope="module")
def made(store, probes):
    return report(store, [p.id for p in probes])


def test_seeds_are_averaged_and_other_parameters_are_columns(made, probes):
    rows = rows_of(made)
    assert [row["facts"] for row in rows] == [
        {"weights": "byol", "weights.rate": "0.4"},
        {"weights": "byol", "weights.rate": "0.1"},
        {"weights": "none", "weights.rate": "-"},
    ]
    assert [len(row["ids"]) for row in rows] == [2, 2, 1]
    means = [row["metrics"]["balanced_accuracy"]["mean"] for row in rows]
    assert means == sorted(means, reverse=True)
    own = [p.table()["balanced_accuracy"].mean() for p in probes[3:]]
    assert means[0] == pytest.approx(np.mean(own))
    assert rows[1]["metrics"]["accuracy"]["std_runs"] == pytest.approx(
        np.std([p.table()["accuracy"].mean() for p in probes[1:3]], ddof=1)
    )


def test_intervals_hold_the_mean_and_differences_are_those_of_the_pieces(made):
    rows = rows_of(made)
    for row in rows:
        value = row["metrics"]["balanced_accuracy"]
        assert value["low"] <= value["mean"] <= value["high"]
    best, reference = rows[0], rows[-1]
    difference = best["difference"]["accuracy"]
    assert difference["mean"] == pytest.approx(
        best["metrics"]["accuracy"]["mean"] - reference["metrics"]["accuracy"]["mean"]
    )
    assert difference["low"] > 0.2
    assert (difference["pieces"], difference["better"]) == (1, 1)
    assert reference["difference"] == {}


def test_the_table_and_the_page_have_the_same(made, probes):
    table = made.table()
    assert table["balanced_accuracy_mean"].to_list() == [
        r["metrics"]["balanced_accuracy"]["mean"] for r in rows_of(made)
    ]
    page = made.file("report.html").read_text()
    pictures = set(re.findall(r'data-file="([^"]+)"', page))
    assert pictures == {"bars.png", "confusion.png"}
    assert all(p.id in page for p in probes)
    assert "weights.rate" in page


def test_folds_are_compared_one_by_one(store):
    plain = make_labelled(store, blobs(90)[0])
    two = [make_probe(store, plain, rate=r, fractions=[0.2, 1.0]) for r in (0.1, 0.4)]
    made = report(store, [p.id for p in two], bootstrap=0)
    first = next(row for row in rows_of(made) if row["difference"] and row["fraction"] == 1)
    ours, theirs = (p.table().filter(pl.col("fraction") == 1)["accuracy"].to_numpy() for p in two[::-1])
    assert first["difference"]["accuracy"]["pieces"] == 6
    assert first["difference"]["accuracy"]["mean"] == pytest.approx((ours - theirs).mean())
    assert first["difference"]["accuracy"]["std"] == pytest.approx((ours - theirs).std(ddof=1))
    assert first["metrics"]["accuracy"]["low"] is None
    assert "fractions.png" in made.file("report.html").read_text()


def test_methods_stand_in_lines_of_their_own_each_with_its_baseline(store, cutouts, probes):
    more = [make_probe(store, cutouts, rate=r, seed=1, method="knn") for r in (0.1, 0.4)]
    made = report(store, [p.id for p in (*more, *probes[1:])], baseline=probes[1].id)
    rows = rows_of(made)
    assert [(row["method"], bool(row["difference"])) for row in rows] == [
        ("knn", True), ("knn", False), ("linear", True), ("linear", False),
    ]  # fmt: skip


def test_all_probes_of_labels(store, cutouts, probes):
    other = make_labelled(store, blobs(90)[0], fold=[i % 3 for i in range(90)])
    make_probe(store, other)
    made = report(store, "all", labels=cutouts.id)
    ids = {id for row in rows_of(made) for id in row["ids"]}
    assert {p.id for p in probes} <= ids
    everything = {id for row in rows_of(report(store, "all")) for id in row["ids"]}
    assert len(everything) > len(ids)


def test_one_probe_has_no_differences(store, probes):
    rows = rows_of(report(store, probes[0].id))
    assert (len(rows), rows[0]["facts"], rows[0]["difference"]) == (1, {}, {})


def test_several_labels_have_no_confusion_matrix(store):
    names, values = blobs(90)
    both = make_labelled(
        store, [[n, "odd"] if i % 2 else [n] for i, n in enumerate(names)], split=SPLIT, multi_label=True
    )
    one = probe(features=make_features(store, both, values), labels=None, task=task(), seed=0, store=store)
    assert 'data-file="confusion.png"' not in report(store, [one.id]).file("report.html").read_text()


def test_the_same_probes_give_the_same_page(store, probes, made, tmp_path):
    again = report(store, [p.path for p in probes])
    assert again.id == made.id


def test_a_network_has_the_same_names_as_features_and_fine_tuned(store):
    network = {"backbone": {"model": "resnet18"}, "preprocess": {"stretch": "asinh"}}

    @builds("features", version=1)
    def features(build: Build, *, backbone: dict, preprocess: dict, layer: str) -> None:
        """Parameters only."""

    @builds("probe", version=1, inputs={"features": of_kind("features")})
    def read(build: Build, *, features, seed: int) -> None:
        """Parameters only."""

    @builds("probe", version=1)
    def tuned(build: Build, *, backbone: dict, preprocess: dict, seed: int) -> None:
        """Parameters only."""

    made = features(**network, layer="pooled", store=store)
    for facts in (facts_of(read(features=made, seed=0, store=store)), facts_of(tuned(**network, seed=0, store=store))):
        assert (facts["backbone.model"], facts["preprocess.stretch"]) == ("resnet18", "asinh")


def test_facts_tell_two_inputs_of_one_role_apart(store, cutouts):
    entry = make_probe(store, cutouts, seed=5)
    facts = facts_of(entry)
    assert facts["weights.task.name"] == "byol"
    assert facts["features.layer"] == "pooled"
    assert facts["probe.task.method"] == "linear"
    assert facts["features"] == "trained_features"
    assert facts["data"] == "none"
    pair = [open_entry(one).facts for one in (entry, make_probe(store, cutouts, seed=6))]
    assert "weights.seed" in differing(pair, [])
    assert "weights.seed" not in differing(pair, ["seed"])


def test_bad_input_is_said_in_one_line(store, probes, cutouts, tmp_path):
    with pytest.raises(StoreError, match="probe"):
        report(store, [cutouts.id])
    with pytest.raises(ConfigError, match="at least one"):
        report(store, [])
    with pytest.raises(ConfigError, match="not one of the probes"):
        report(store, [probes[0].id], baseline=probes[1].id)
    with pytest.raises(InputError, match="holds no probe"):
        report(tmp_path, "all")
    with pytest.raises(InputError, match="cannot be compared"):
        open_entry(cutouts)
