"""LabelledDataModule: the parts that are asked for, whole in evaluation, and a fraction that keeps every class."""

import numpy as np
import pytest
import torch

from make.labelled import first_zip, galaxy, mirabest_npz, png
from skyloom import curate
from skyloom.datamodule.labelled import LabelledDataModule, fraction_of
from skyloom.datamodule.labels import open_labels
from skyloom.errors import ConfigError
from skyloom.run.notebook import compose

OPTIONS = {"test_fold": None, "val_fold": None, "label_fraction": 1.0, "batch_size": 5, "workers": 0}


@pytest.fixture
def first(tmp_path):
    return curate("labelled", format="radio_galaxy_dataset", files=first_zip(tmp_path / "z.zip"), store=tmp_path / "s")


@pytest.fixture
def batches(tmp_path):
    return curate("labelled", format="mirabest", files=mirabest_npz(tmp_path / "m.npz"), store=tmp_path / "s")


def module(artifact, **options):
    return LabelledDataModule.from_artifacts({"labels": artifact}, OPTIONS | options, seed=1)


def ids(loader):
    return [int(i) for batch in loader for i in batch["id"]]


def test_official_parts(first):
    data, labels = module(first), open_labels(first)
    for part, loader in (
        ("train", data.train_dataloader()), ("val", data.val_dataloader()), ("test", data.test_dataloader()),
    ):  # fmt: skip
        expected = labels.cutout_id[labels.split == part].tolist()
        assert sorted(ids(loader)) == sorted(expected), "every cutout once, the last small batch included"
        if part != "train":
            assert ids(loader) == expected
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == (5, 1, 24, 24)
    assert batch["image"].dtype == torch.float32
    assert batch["target"].dtype == torch.int64
    want = dict(zip(labels.cutout_id.tolist(), labels.label.tolist(), strict=True))
    assert [want[i] for i in batch["id"].tolist()] == batch["target"].tolist()


def test_pixels_belong_to_their_ids(first):
    names = dict(zip(first.table()["cutout_id"], first.table()["image"], strict=True))
    for batch in module(first).train_dataloader():
        for image, id in zip(batch["image"], batch["id"].tolist(), strict=True):
            number = round((float(names[id].split("_")[0]) - 100) / 1.5)
            assert np.array_equal(image[0].numpy(), galaxy(number))


def test_order_depends_on_seed_and_epoch_alone(first):
    one, two = module(first).train_dataloader(), module(first).train_dataloader()
    assert ids(one) == ids(two)
    two.sampler.set_epoch(1)
    assert ids(one) != ids(two)


def test_folds(batches):
    labels = open_labels(batches)
    data = module(batches, test_fold=2, val_fold=1)
    assert sorted(ids(data.test_dataloader())) == sorted(labels.cutout_id[labels.fold == 2].tolist())
    assert sorted(ids(data.val_dataloader())) == sorted(labels.cutout_id[labels.fold == 1].tolist())
    assert sorted(ids(data.train_dataloader())) == sorted(labels.cutout_id[labels.fold == 3].tolist())
    assert module(batches).val_dataloader() == []


def test_fractions_keep_every_class(first):
    labels = open_labels(first)
    train = np.flatnonzero(labels.split == "train")
    few, more = (fraction_of(labels, train, fraction, 3) for fraction in (0.01, 0.5))
    assert labels.targets[few].sum(0).tolist() == [1, 1, 1, 1]
    assert labels.targets[more].sum(0).tolist() == [3, 3, 3, 3]
    assert set(few) < set(more) < set(train)
    assert set(few) != set(fraction_of(labels, train, 0.01, 4)) or set(few) != set(fraction_of(labels, train, 0.01, 5))
    assert fraction_of(labels, train, 1.0, 3).tolist() == train.tolist()
    data = module(first, label_fraction=0.01)
    assert len(ids(data.train_dataloader())) == 4
    assert len(ids(data.test_dataloader())) == 8, "evaluation is never cut"


def test_a_training_batch_of_one_is_left_out(first):
    assert len(ids(module(first, batch_size=23).train_dataloader())) == 23
    assert len(ids(module(first, batch_size=22).train_dataloader())) == 24


def test_multi_label_targets_are_float_vectors(tmp_path, first):
    import polars as pl

    path = tmp_path / "t.parquet"
    pl.DataFrame(
        {"id": first.table()["cutout_id"], "t": ["a|b", "b"] * 20, "part": ["train", "test"] * 20}
    ).write_parquet(path)
    sources = {"labels": "t", "separator": "|", "id": "id", "split": "part"}
    made = curate("labelled", format="table", files=path, cutouts=first, sources=sources, store=tmp_path / "s")
    batch = next(iter(module(made).train_dataloader()))
    assert batch["target"].dtype == torch.float32
    assert batch["target"].tolist() == [[1.0, 1.0]] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fold": 0}, "the labels have no folds"),
        ({"val_fold": 0}, "val_fold=0 needs datamodule.test_fold"),
        ({"label_fraction": 0.0}, "label_fraction=0.0: expected more than 0"),
    ],
)
def test_bad_options(first, options, message):
    with pytest.raises(ConfigError, match=message):
        module(first, **options)


def test_folds_that_are_not_there(batches):
    with pytest.raises(ConfigError, match=r"test_fold=9 is not a fold of the labels; they have \[1, 2, 3\]"):
        module(batches, test_fold=9)
    with pytest.raises(ConfigError, match="are both 1"):
        module(batches, test_fold=1, val_fold=1)


def test_the_configuration_gives_these_options():
    config = compose("train", ["datamodule=labelled", "labels=abc"])
    assert {key: config.datamodule[key] for key in OPTIONS} | {"batch_size": 5} == OPTIONS
    assert config.data.labels == "abc"


def test_a_cutout_of_a_single_image_part_still_trains(tmp_path):
    folder = tmp_path / "in" / "train" / "x"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png(galaxy(1)))
    made = curate("labelled", format="image_folder", files=tmp_path / "in", store=tmp_path / "s")
    assert len(ids(module(made).train_dataloader())) == 1
