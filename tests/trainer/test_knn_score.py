"""The k-NN score of a fit under way is that of the features, and touches neither weights nor random streams."""

import csv

import numpy as np
import polars as pl
import pytest

from make.tiny_fit import make_cutouts, request
from skyloom.datamodule.labels import FILE, Labels
from skyloom.errors import InputError
from skyloom.store import Artifact, Build, builds, of_kind
from skyloom.trainer.knn_score import parts
from skyloom.trainer.train import train


@builds("labels", version=1, inputs={"cutouts": of_kind("cutouts")})
def fake_labels(build: Build, *, cutouts: Artifact, classes: int) -> None:
    """Labels by the number of the cutout, every third one in the queries."""
    ids = cutouts.table()["cutout_id"].to_list()
    table = pl.DataFrame(
        {
            "cutout_id": ids,
            "label": [[f"class {i % classes}"] for i in range(len(ids))],
            "split": ["val" if i % 3 == 0 else "train" for i in range(len(ids))],
            "fold": [None] * len(ids),
            "group": list(range(len(ids))),
        },
        schema_overrides={"fold": pl.Int64},
    )
    with build.write(FILE) as path:
        table.write_parquet(path)


def scores(model):
    with model.file("metrics.csv").open(newline="") as file:
        return [float(row["monitor/knn_accuracy"]) for row in csv.DictReader(file) if row["monitor/knn_accuracy"]]


def test_one_class_is_always_right_and_the_weights_are_the_same(tmp_path):
    store = tmp_path / "store"
    labels = fake_labels(cutouts=make_cutouts(store), classes=1, store=store)
    scored = train(**request(store, monitor_labels=labels.id))
    assert scores(scored) == [1.0, 1.0, 1.0]
    plain = train(**request(store))
    assert plain.id != scored.id
    assert plain.file("model.safetensors").read_bytes() == scored.file("model.safetensors").read_bytes()
    assert labels.id in {artifact.id for artifact in scored.inputs.values()}


def test_labels_without_meaning_are_guessed(tmp_path):
    store = tmp_path / "store"
    labels = fake_labels(cutouts=make_cutouts(store), classes=4, store=store)
    model = train(**request(store, trainer={"max_epochs": 1}, monitor_labels=labels.id))
    assert 0 <= scores(model)[0] < 0.8


def make(split, group):
    size = len(split)
    return Labels(
        cutout_id=np.arange(size), classes=["a"], targets=np.ones((size, 1), bool), multi_label=False,
        split=np.array(split, dtype=object), fold=None, group=np.array(group), cutouts=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("split", "group", "bank", "queries"),
    [
        (["train", "val", "test", "train"], [0, 1, 2, 3], [0, 3], [1]),
        (["train", "test", "test", None], [0, 1, 2, 3], [0], [1, 2]),
        ([None] * 5, [9, 9, 4, 4, 7], [0, 1, 2, 3], [4]),
        (["train"] * 4, [1, 2, 1, 2], [0, 2], [1, 3]),
    ],
    ids=["val", "test", "no parts", "one part"],
)
def test_bank_and_queries(split, group, bank, queries):
    found = parts(make(split, group), np.arange(len(split)))
    assert [part.tolist() for part in found] == [bank, queries]


def test_one_group_makes_no_queries():
    with pytest.raises(InputError, match="make no bank and queries"):
        parts(make([None] * 3, [1, 1, 1]), np.arange(3))


def test_a_set_without_labels_is_refused(tmp_path):
    store = tmp_path / "store"
    with pytest.raises(InputError, match="hold no labels"):
        train(**request(store, monitor_labels=make_cutouts(store).id))
