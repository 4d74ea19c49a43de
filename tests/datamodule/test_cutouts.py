"""The datamodule: raw pixels as the file has them, an order that depends on seed and epoch alone."""

import pickle

import numpy as np
import pytest
import torch
from astropy.io import fits

import skyloom
from make.survey import sky, write_image
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.datamodule.cutouts import CutoutsDataModule
from skyloom.errors import ConfigError, InputError


@pytest.fixture
def cutouts(tmp_path):
    pixels = sky(96, 96)
    pixels[:4, :4] = np.nan
    write_image(tmp_path / "in" / "a.fits", pixels)
    write_image(tmp_path / "in" / "b.fits", sky(96, 96, seed=1))
    return skyloom.curate(
        "cutouts", images=tmp_path / "in", window_px=32, max_nan_frac=0.5, threads=1, store=tmp_path / "store"
    )


def module(cutouts, **options):
    given = {"batch_size": 8, "workers": 0, **options}
    return CutoutsDataModule.from_artifacts({"cutouts": cutouts, "selection": None}, given, seed=3)


def epoch(datamodule, number):
    loader = datamodule.train_dataloader()
    loader.sampler.set_epoch(number)
    return [batch["id"].tolist() for batch in loader]


def test_batches_are_raw_pixels_with_ids(cutouts, tmp_path):
    batch = next(iter(module(cutouts).train_dataloader()))
    assert batch["image"].shape == (8, 1, 32, 32)
    assert batch["image"].dtype == torch.float32
    table = cutouts.table()
    for image, id in zip(batch["image"], batch["id"].tolist(), strict=True):
        row = table.filter(table["cutout_id"] == id).row(0, named=True)
        with fits.open(tmp_path / "in" / f"{row['image']}.fits", memmap=False) as hdus:
            window = hdus[0].data[row["row0"] : row["row0"] + 32, row["col0"] : row["col0"] + 32]
        assert np.array_equal(image[0].numpy(), window.astype("f4"), equal_nan=True)


def test_the_order_is_a_function_of_seed_and_epoch(cutouts):
    first = module(cutouts)
    assert epoch(first, 0) == epoch(module(cutouts), 0)
    assert epoch(first, 0) != epoch(first, 1)
    assert epoch(first, 1) == epoch(module(cutouts), 1)
    ids = [id for batch in epoch(first, 0) for id in batch]
    assert len(ids) == len(set(ids)) == 48, "each cutout once; the last batch of 2 is left out"


def test_worker_processes_change_nothing(cutouts):
    alone = list(module(cutouts).train_dataloader())
    helped = list(module(cutouts, workers=2).train_dataloader())
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a["id"], b["id"])
        assert torch.equal(a["image"].nan_to_num(9), b["image"].nan_to_num(9))


def test_an_index_can_be_pickled_with_open_images(cutouts):
    index = CutoutIndex(cutouts)
    pixels = index.read([3, 40])
    again = pickle.loads(pickle.dumps(index))
    assert np.array_equal(again.read([3, 40]), pixels)
    assert index.window_px == 32
    assert len(index) == 50


def test_more_images_than_may_be_open_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("skyloom.datamodule.cutout_index.OPEN_IMAGES", 2)
    for i in range(5):
        write_image(tmp_path / "in" / f"{i}.fits", sky(32, 32, seed=i))
    index = CutoutIndex(skyloom.curate("cutouts", images=tmp_path / "in", window_px=32, store=tmp_path / "store"))
    first = index.read(range(5))
    assert np.array_equal(index.read([4, 2, 0]), first[[4, 2, 0]])
    assert len(index._open) == 2


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ({"cutouts": None}, {}, ConfigError, "cutouts=null is not an artifact of kind cutouts"),
        ({}, {"batch_size": 51}, ConfigError, "batch_size=51 is more than the 50 cutouts"),
    ],
)
def test_impossible_requests(cutouts, data, options, error, message):
    with pytest.raises(error, match=message):
        CutoutsDataModule.from_artifacts(
            {"cutouts": cutouts, **data}, {"batch_size": 8, "workers": 0, **options}, seed=0
        )


def test_a_damaged_image_is_named(cutouts, tmp_path):
    path = tmp_path / "in" / "a.fits"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"a\.fits"):
        next(iter(module(cutouts).train_dataloader()))
