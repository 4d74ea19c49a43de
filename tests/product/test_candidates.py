"""product=candidates: all that a detector sees, whatever the pieces, the processes and the truth."""

import pickle

import numpy as np
import polars as pl
import pytest
import torch

import skyloom
from make.detectors import detector_artifact
from make.joint_data import joint_data
from skyloom.detector.load import load_detector
from skyloom.errors import ConfigError, InputError
from skyloom.product.candidate_pieces import Finder, make_piece
from skyloom.product.detection_channels import Channels
from skyloom.product.detection_source import CutoutSource
from skyloom.sky.mask.rle import decode
from skyloom.store import Plan, Store

FAST = {"batch_size": 2, "shard_images": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return joint_data(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def model(data):
    return detector_artifact(data)


def find(data, **options):
    return skyloom.extract("candidates", **{**FAST, **options}, store=data.store.root)


@pytest.fixture(scope="module")
def found(data, model):
    return find(data, model=model, dataset=data.dataset)


def test_rows_are_what_the_detector_says_of_each_image(data, model, found):
    table, images = found.table(), found.table("images.parquet")
    detector = load_detector(model)
    source = CutoutSource({}, Channels(("lsst",), "wcs", "linear", False, 0.0), dataset=data.dataset)
    assert images["cutout_id"].to_list() == data.dataset.table("images.parquet")["cutout_id"].to_list()
    assert table["image_row"].is_sorted()
    assert found.counts["kept"] == len(table) > 0
    for row in (0, 3):
        with torch.inference_mode():
            raw = detector.raw([torch.from_numpy(source.read(row))])[0]
        own = table.filter(image_row=row)
        assert len(own) == len(raw)
        boxes = own.select("x0_px", "y0_px", "x1_px", "y1_px").to_numpy()
        assert np.allclose(boxes, raw.boxes, atol=1e-3)
        assert np.allclose(own["score"], raw.scores, atol=1e-5)
        assert own["class"].to_list() == raw.labels.tolist()
        masks = np.stack([decode(counts, raw.size_px) for counts in own["rle"]])
        assert (masks == raw.pasted().numpy()).mean() > 0.999
        points = own.select("keypoint_x_px", "keypoint_y_px").to_numpy()
        assert np.allclose(points, raw.centroids, atol=1e-2)


def test_a_row_group_for_each_piece(found):
    import pyarrow.parquet as pq

    file = pq.ParquetFile(found.file("candidates.parquet"))
    assert file.num_row_groups == 3
    counts = found.table().group_by(pl.col("image_row") // 2).len().sort("image_row")["len"].to_list()
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == counts


def test_a_part_is_its_images_and_cutouts_need_no_data_set(data, model, found):
    part = find(data, model=model, dataset=data.dataset, part="train_2")
    assert len(part.table("images.parquet")) == 2
    assert part.table().drop("rle").equals(found.table().filter(pl.col("image_row") < 2).drop("rle"))
    bare = find(data, model=model, lsst=data.lsst)
    assert bare.table().equals(found.table()), "the truth makes no difference"


def test_both_surveys_on_one_grid(data):
    both = detector_artifact(data, surveys=("lsst", "roman"))
    made = find(data, model=both, dataset=data.dataset, part="val")
    image = made.table("images.parquet").row(0, named=True)
    assert (image["height_px"], image["width_px"]) == (112, 112)
    assert len(made.notes["bands"]) == 9
    source = CutoutSource({}, Channels(("lsst", "roman"), "wcs", "linear", False, 0.0), dataset=data.dataset)
    assert np.allclose(source.area_factor(0), [(0.0575 / 0.2) ** 2] * 6 + [1.0] * 3)
    assert np.allclose(source.noise_factor(0), [0.2 / 0.0575 * 1.5] * 6 + [1.0] * 3, rtol=0.001), "linear keeps 2/3"
    alone = CutoutSource({}, Channels(("lsst",), "wcs", "linear", False, 0.0), dataset=data.dataset)
    assert np.array_equal(alone.noise_factor(0), np.ones(6))


def test_what_is_below_the_least_score_is_counted(data, model, found):
    middle = float(found.table()["score"].median())
    made = find(data, model=model, dataset=data.dataset, least_score=middle)
    assert made.counts["dropped"]["below the least score"]["number"] == found.counts["kept"] - made.counts["kept"] > 0
    assert made.table()["score"].min() >= np.float32(middle)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(data, model, found, monkeypatch):
    before = found.file("candidates.parquet").read_bytes()
    Store(data.store.root).remove(found)
    real, calls = Finder.write, []

    def stop_at_second(self, path, start, stop, advance):
        calls.append((start, stop))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, path, start, stop, advance)

    monkeypatch.setattr(Finder, "write", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        find(data, model=model, dataset=data.dataset)
    again = find(data, model=model, dataset=data.dataset)
    assert calls == [(0, 2), (2, 4), (2, 4), (4, 6)]
    assert again.id == found.id
    assert again.file("candidates.parquet").read_bytes() == before


def test_free_options_do_not_change_the_id(data, model, found):
    assert find(data, model=model, dataset=data.dataset, batch_size=5, shard_images=9, device="auto").id == found.id


def test_a_dry_run_makes_nothing(data, model):
    plan = find(data, model=model, dataset=data.dataset, part="test", dry_run=True)
    assert isinstance(plan, Plan)
    assert not plan.exists


def test_a_detector_without_weights_finds_the_stars(data):
    made = find(data, detector="sep", dataset=data.dataset, channels={"surveys": ["lsst"]})
    assert made.notes["detector"] == "sep"
    table = made.table()
    assert table["image_row"].n_unique() == 5, "cutout 2 is empty"
    masks = [decode(counts, (32, 32)) for counts in table["rle"]]
    assert all(mask.any() for mask in masks)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, ConfigError, "nothing says what detects: give a trained one, model=ID"),
        ({"detector": "mask_rcnn"}, ConfigError, "detector=mask_rcnn has weights"),
        ({"model": True, "detector": "sep"}, ConfigError, "brings its detector; leave detector=sep out"),
        ({"model": True, "part": "tset"}, ConfigError, "tset"),
        ({"model": True, "dataset": None, "lsst": None}, ConfigError, "no images of survey lsst: give a data set"),
        ({"model": True, "dataset": None, "part": "val"}, ConfigError, "part=val needs a data set"),
    ],
)
def test_one_line_for_every_mistake(data, model, options, error, match):
    options = {"dataset": data.dataset, **options}
    if options.get("model"):
        options["model"] = model
    if options.get("dataset") is None and "part" in options:
        options["lsst"] = data.lsst
    with pytest.raises(error, match=match) as caught:
        find(data, **options)
    assert "\n" not in str(caught.value)


def test_images_in_another_unit_are_refused(data):
    other = detector_artifact(data, units=["nJy"] * 6)
    with pytest.raises(InputError, match=r"was trained on units \['nJy'"):
        find(data, model=other, dataset=data.dataset)


def test_a_model_that_is_no_detector_is_refused(data):
    from skyloom.store import builds

    @builds("model", version=1)
    def train(build):
        build.write_json("model.json", {"backbone": {}})

    with pytest.raises(InputError, match="is no detector; expected one made by"):
        find(data, model=train(store=data.store), dataset=data.dataset)


def test_processes_make_the_same_pieces(data, model, found, monkeypatch):
    Store(data.store.root).remove(found)

    def one_after_the_other(build, tasks, make, *, workers, done, describe):
        assert workers == 2
        for key, task in tasks.items():
            make_piece(build.path / ".shards" / key, pickle.loads(pickle.dumps(task)))

    monkeypatch.setattr("skyloom.store.build.Build.shards_in_parallel", one_after_the_other)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)  # another number of threads rounds otherwise
    again = find(data, model=model, dataset=data.dataset, devices=2)
    assert again.id == found.id
    assert again.manifest["files"] == found.manifest["files"]
