"""RomanLsstDataModule: channels, grids, targets that lie on their objects, changes of training images only."""

import pickle

import numpy as np
import pytest
import torch

from make.joint_data import LSST_PX, ROMAN_PX, STATS, joint_data, joint_stats
from skyloom.datamodule.roman_lsst import RomanLsstDataModule
from skyloom.errors import ConfigError, InputError
from skyloom.run.notebook import compose
from skyloom.store import Store
from skyloom.trainer.train import open_data

OPTIONS = {
    "surveys": ["lsst", "roman"], "combine": "wcs", "interpolation": "lanczos", "conserve_flux": False,
    "cache_maps": True, "parts": {"train": "train", "val": "val", "test": "test"}, "masks": True,
    "truth": ["object_id", "mag_i", "redshift"], "blank_value": 0.0, "augment": None, "batch_size": 2, "stack": True,
    "workers": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return joint_data(tmp_path_factory.mktemp("joint"))


def module(data, roles=None, **options):
    return RomanLsstDataModule.from_artifacts({"dataset": data.dataset, **(roles or {})}, OPTIONS | options, seed=1)


def augment():
    config = compose("train", ["task=byol", "datamodule=roman_lsst", "transform=detection", "dataset=x"])
    return {**dict(config.transform.augment), "noise_probability": 1.0}


def test_nine_channels_on_the_grid_of_roman_and_stars_under_their_centroids(data):
    batches = module(data)
    assert batches.bands == tuple(("lsst", b) for b in "ugrizy") + tuple(("roman", b) for b in ("Y106", "J129", "H158"))
    assert batches.categories == {0: "galaxy", 1: "star"}
    (batch,) = batches.val_dataloader()
    assert batch["image"].shape == (1, 9, ROMAN_PX, ROMAN_PX)
    assert batch["image"].dtype == torch.float32
    index = batches.images.grid
    id, target = int(batch["id"][0]), batch["targets"][0]
    x, y = index.wcs(int(index.rows_of(np.array([id]))[0])).all_world2pix(data.stars[id], 0).T
    np.testing.assert_allclose(target["centroids"], np.stack([x, y], 1), atol=0.01)
    for (a, b), box, mask in zip(target["centroids"].tolist(), target["boxes"], target["masks"], strict=True):
        row, col = round(b), round(a)
        image = batch["image"][0, :, row - 2 : row + 3, col - 2 : col + 3]
        assert image.amax((1, 2)).min() > 0.9  # the star is bright there in every channel of either survey
        rows, cols = torch.nonzero(mask, as_tuple=True)
        extent = torch.stack([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1])
        assert (extent - box).abs().max() < 1.5
        assert bool(mask[row, col])
    assert target["off_image"] == 0


def test_one_survey_alone_keeps_its_own_pixels(data):
    lsst = module(data, surveys=["lsst"]).samples("val")[0]
    assert lsst["image"].shape == (6, LSST_PX, LSST_PX)
    roman = module(data, surveys=["roman"]).samples("val")[0]
    assert roman["image"].shape == (3, ROMAN_PX, ROMAN_PX)
    both = module(data).samples("val")[0]
    assert torch.equal(roman["image"], both["image"][6:])
    assert torch.equal(roman["boxes"], both["boxes"])
    scale = 0.2 / 0.0575
    height = lsst["boxes"][:, 3] - lsst["boxes"][:, 1]
    assert roman["boxes"][:, 3] - roman["boxes"][:, 1] == pytest.approx(height * scale, rel=0.01)


@pytest.mark.parametrize("combine", ["resize", "pad"])
def test_the_ways_of_the_older_notebook(data, combine):
    sample = module(data, combine=combine).samples("val")[0]
    assert sample["image"].shape == (9, ROMAN_PX, ROMAN_PX)
    for (x, y), mask in zip(sample["centroids"].tolist(), sample["masks"], strict=True):
        assert sample["image"][:6, round(y), round(x)].min() > 0.85  # in the LSST channels, in which they are annotated
        assert bool(mask[round(y), round(x)])
    if combine == "pad":
        assert torch.count_nonzero(sample["image"][0, 0]) == 0


def test_flux_conserved_scales_pixels_and_their_statistics(data):
    stats = {f"{name}_stats": joint_stats(data, getattr(data, name)) for name in ("lsst", "roman")}
    plain, kept = module(data, stats), module(data, stats, conserve_flux=True)
    area = (0.0575 / 0.2) ** 2
    assert kept.samples("val")[0]["image"][0].sum() == pytest.approx(
        float(plain.samples("val")[0]["image"][0].sum()) * area, rel=1e-3
    )
    assert plain.mean.tolist() == [STATS["mean"]] * 9
    assert kept.std.tolist() == pytest.approx([STATS["std"] * area] * 6 + [STATS["std"]] * 3)


def test_images_without_objects_are_kept(data):
    samples = module(data).samples("train")
    assert len(samples) == 4
    counts = [len(sample["boxes"]) for sample in samples]
    assert counts == [3, 3, 0, 3]
    empty = samples[2]
    assert empty["masks"].shape == (0, ROMAN_PX, ROMAN_PX)
    assert empty["boxes"].shape == (0, 4)
    assert empty["centroids"].shape == (0, 2)
    assert empty["truth"]["object_id"] == []


def test_truth_columns_follow_their_objects(data):
    sample = module(data).samples("val")[0]
    assert sample["truth"]["object_id"] == [f"{sample['id']}-{i}" for i in range(3)]
    assert sample["truth"]["mag_i"].tolist() == [20.0, 21.0, 22.0]
    assert sample["truth"]["redshift"].isnan().tolist() == [False, True, True]
    assert sample["labels"].tolist() == [0, 1, 0]
    with pytest.raises(ConfigError, match="mag_q"):
        module(data, truth=["mag_q"]).samples("val")


def test_only_training_images_are_changed_and_every_epoch_otherwise(data):
    plain, changed = module(data), module(data, augment=augment())
    for part in ("val", "test"):
        assert torch.equal(plain.samples(part)[0]["image"], changed.samples(part)[0]["image"])
    samples = changed.samples("train")
    assert not torch.equal(samples[0, 0]["image"], plain.samples("train")[0]["image"])
    assert not torch.equal(samples[0, 0]["image"], samples[0, 1]["image"])
    for epoch in range(4):
        sample = samples[0, epoch]
        for (x, y), mask in zip(sample["centroids"].tolist(), sample["masks"], strict=True):
            assert bool(mask[round(y), round(x)])
            assert sample["image"][:, round(y), round(x)].min() > 0.7


def test_the_batches_do_not_depend_on_workers_or_on_the_cache(data):
    def epoch(**options):
        batches = module(data, augment=augment(), **options).train_dataloader()
        batches.sampler.set_epoch(3)
        return list(batches)

    alone = epoch()
    for others in (epoch(workers=1), epoch(cache_maps=False)):
        for one, other in zip(alone, others, strict=True):
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["id"], other["id"])
            for mine, yours in zip(one["targets"], other["targets"], strict=True):
                assert torch.equal(mine["boxes"], yours["boxes"])
                assert torch.equal(mine["masks"], yours["masks"])


def test_subsets_lists_and_boxes_alone(data):
    batches = module(data, parts={"train": "train_2", "val": None, "test": "test"}, stack=False, masks=False)
    assert batches.val_dataloader() == []
    (batch,) = batches.train_dataloader()
    assert len(batch["image"]) == 2
    assert batch["size_px"].tolist() == [[ROMAN_PX, ROMAN_PX]] * 2
    assert "masks" not in batch["targets"][0]
    with pytest.raises(ConfigError, match="train_3"):
        module(data, parts={"train": "train_3"}).train_dataloader()


def test_smaller_images_are_padded_at_right_and_bottom():
    from skyloom.datamodule.detection_batch import collated

    samples = [{"image": torch.ones(2, h, w), "id": h, "labels": torch.zeros(1)} for h, w in ((3, 5), (4, 2))]
    batch = collated(samples, stacked=True)
    assert batch["image"].shape == (2, 2, 4, 5)
    assert batch["image"].sum((1, 2, 3)).tolist() == [30.0, 16.0]
    assert batch["image"][1, 0, :, :2].eq(1).all()


def test_statistics_are_found_in_the_store(data, caplog):
    made = joint_stats(data, data.roman, number=2)
    fresh = Store(data.store)
    roles = {"dataset": data.dataset.id, "lsst": None, "roman": None, "lsst_stats": None, "roman_stats": "auto"}
    joint_stats(data, data.lsst, number=1)
    found = open_data({**roles, "lsst_stats": "auto", "roman_stats": made.id}, {}, fresh)
    assert found["lsst_stats"].inputs["cutouts"].id == data.lsst.id
    assert found["roman_stats"].id == made.id
    joint_stats(data, data.roman, number=3)
    with pytest.raises(ConfigError, match=r"choose one: data.roman_stats=ID"):
        open_data(roles, {}, fresh)
    with pytest.raises(ConfigError, match=r"data\.dataset=auto"):
        open_data({**roles, "dataset": "auto"}, {}, fresh)


def test_other_surveys_and_other_cutouts_are_refused(data):
    with pytest.raises(ConfigError, match="made from cutouts of lsst and roman; expected euclid"):
        module(data, surveys=["euclid"])
    with pytest.raises(ConfigError, match="expected names, each once"):
        module(data, surveys=["lsst", "lsst"])
    with pytest.raises(ConfigError, match="not an artifact of kind dataset"):
        RomanLsstDataModule.from_artifacts({"dataset": data.lsst}, OPTIONS, seed=1)
    with pytest.raises(ConfigError, match="transform=detection"):
        module(data, augment={"crop_area_min": 0.5})
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'blurr'.*detection.yaml"):
        module(data, augment={**augment(), "blurr": 1})
    with pytest.raises(ConfigError, match="wcs"):
        module(data, combine="wsc").samples("val")[0]


def test_images_that_do_not_overlap_are_named(data, tmp_path):
    from make.band_cutouts import band_cutouts

    far = band_cutouts(data.store, bands=3, n=6, size=ROMAN_PX, rng=1)
    index = module(data, {"roman": far})
    header = index.images.grid.header
    index.images.grid.header = lambda row: header(row).replace("-39.9", " 39.9")
    with pytest.raises(InputError, match=r"cutout \d+ of cutouts .* do not overlap on the sky"):
        index.samples("val")[0]


def test_samples_travel_to_other_processes(data):
    samples = module(data).samples("train")
    again = pickle.loads(pickle.dumps(samples))
    assert torch.equal(samples[1]["image"], again[1]["image"])
