"""The whole chain of Roman and Rubin by its recipe: counts of all steps add up, and pixels are what they say."""

import json
import re

import numpy as np
import polars as pl
import pytest
import torch
from omegaconf import OmegaConf

from make.forked_script import call, running
from skyloom.datamodule.band_index import BandIndex, truth_of
from skyloom.datamodule.coco_dataset import open_dataset
from skyloom.datamodule.roman_lsst import RomanLsstDataModule
from skyloom.run.notebook import compose
from skyloom.sky.mask import rle
from skyloom.step.integrity.gate import corrupt_cutouts
from skyloom.store import Store
from skyloom.trainer.train import open_data

SMALL = ["recipe.tile_px=500", "recipe.window_px=96", "recipe.links.survey.patch_px=80"]  # 25 cutouts on 2 x 2 patches
LINKS = ["survey", "roman", "lsst", "roman_integrity", "lsst_integrity", "annotations", "dataset", "train",
         "roman_stats", "lsst_stats", "report"]  # fmt: skip
BRIGHT_MAG = 25.0  # four times as bright as the faintest point source that is seen
OF_ONE_PIXEL = (0.2 / 0.0575) ** 2  # Roman pixels that a Rubin pixel becomes


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The store, the artifacts by link, and what a first and a second run of the recipe printed."""
    folder = tmp_path_factory.mktemp("joint")
    context = running()
    words = ["curate.py", "recipe=roman_lsst_demo", *SMALL, f"paths.store={folder}/store", f"paths.runs={folder}/runs"]
    runs = [call(context, *words, cwd=folder) for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    store = Store(folder / "store")
    ids = [row[1] for row in _table(runs[0])]
    return store, {name: store.open(id) for name, id in zip(LINKS, ids, strict=True)}, runs


def _table(run):
    """Link, id and state of each line of the table that a recipe ends with."""
    return re.findall(r"^(\w+) +(?:curate|analyze) \w+ +(\w+) +(\w+)", run.stderr, re.M)


def dropped(artifact, *words):
    """Number of what was left out for reasons that begin with one of these words."""
    counts = artifact.counts["dropped"]
    return sum(entry["number"] for reason, entry in counts.items() if not words or reason.startswith(words))


def index(chain, name):
    return BandIndex(chain[1][name])


def planes(chain, name):
    """Cutout id, band and pixels of every band of every cutout."""
    cutouts = index(chain, name)
    for row, id in enumerate(cutouts.cutout_id.tolist()):
        for band, pixels in zip(cutouts.bands, cutouts.read(row), strict=True):
            yield id, band, pixels


def test_every_link_is_made_once_and_a_second_run_does_nothing(chain):
    store, made, (first, second) = chain
    assert [row[0] for row in _table(first)] == LINKS
    assert {row[2] for row in _table(first)} == {"made"}
    assert second.returncode == 0, second.stderr
    assert [row[:2] for row in _table(second)] == [row[:2] for row in _table(first)]
    assert {row[2] for row in _table(second)} == {"there"}
    assert first.stdout == second.stdout == f"{made['report'].id}\n"
    assert {artifact.history["attempts"] for artifact in made.values()} == {1}
    assert len(list(store)) == len(LINKS)
    assert [name for name, artifact in made.items() if artifact.verify()] == []


def test_what_was_simulated_is_read_and_every_cutout_is_kept_or_dropped(chain):
    _, made, _ = chain
    survey, roman, lsst = (made[name] for name in ("survey", "roman", "lsst"))
    assert roman.counts["truth_read"] == survey.counts["roman_truth"]
    assert roman.counts["detections_read"] == survey.counts["roman_detections"]
    assert lsst.counts["detections_read"] == survey.counts["lsst_objects"]
    for cutouts in (roman, lsst):
        for name, word in (("truth", "true object"), ("detections", "detection")):
            assert cutouts.counts[f"{name}_read"] == cutouts.counts[f"{name}_kept"] + dropped(cutouts, word)
    assert roman.counts["cutouts"] == roman.counts["kept"] == 25
    found = roman.counts["detections_matched"] + roman.counts["detections_beaten"]
    assert roman.counts["detections_kept"] == found + roman.counts["detections_unmatched"]
    assert roman.counts["detections_matched"] > 0.7 * roman.counts["detections_kept"] > 10
    assert lsst.counts["read"] == roman.counts["kept"]
    assert lsst.counts["read"] == lsst.counts["kept"] + dropped(lsst, "no image", "partly covered")
    assert set(lsst.table()["cutout_id"]) <= set(roman.table()["cutout_id"])
    assert lsst.counts["joined"] > 0


def test_every_true_object_is_annotated_or_rejected_for_a_reason(chain):
    _, made, _ = chain
    annotations, lsst = made["annotations"], made["lsst"]
    counts = annotations.counts
    assert counts["read"] == lsst.counts["truth_in_cutouts"] == counts["kept"] + dropped(annotations)
    images = annotations.table()
    truth = pl.concat([truth_of(lsst, tile) for tile in images["tile"].unique()])
    per_image = truth.group_by("cutout_id").len("objects").join(images, on="cutout_id", how="right")
    assert (per_image["objects"].fill_null(0) == per_image["annotations"] + per_image["rejected"]).all()
    assert counts["cutouts"] == len(images) == lsst.counts["kept"]
    assert counts["kept"] == images["annotations"].sum() > 30


def test_the_blemishes_are_found_and_leave_the_data_set(chain):
    _, made, _ = chain
    expected = {
        "roman": {id for id, _, pixels in planes(chain, "roman") if np.isnan(pixels).any() or not pixels.any()},
        "lsst": {id for id, _, pixels in planes(chain, "lsst") if np.isnan(pixels).any() or not pixels.any()},
    }
    for name, ids in expected.items():
        report = made[f"{name}_integrity"]
        found = corrupt_cutouts(report)
        assert set(found["cutout_id"]) == ids
        assert report.counts["read"] == made[name].counts["kept"] == report.counts["corrupt"] + report.counts["sound"]
        assert report.counts["corrupt"] == len(ids) == len(found) > 0
    reasons = corrupt_cutouts(made["roman_integrity"])["detail"].str.join(" ").item()
    assert "NaN pixels in Y106" in reasons
    assert "empty band in J129" in reasons
    assert corrupt_cutouts(made["lsst_integrity"])["detail"].unique().to_list() == ["NaN pixels in u"]
    dataset, bad = made["dataset"], expected["roman"] | expected["lsst"]
    gone = dataset.table("dropped.parquet")
    assert set(gone.filter(pl.col("reason") == "corrupt cutout")["cutout_id"]) == bad
    assert not bad & set(dataset.table("images.parquet")["cutout_id"])


def test_images_of_the_data_set_are_its_parts_and_what_was_dropped(chain):
    _, made, _ = chain
    dataset, annotations = made["dataset"], made["annotations"]
    counts, images = dataset.counts, dataset.table("images.parquet")
    lost = dropped(dataset, "annotation of")
    assert counts["read"] == annotations.counts["cutouts"] == counts["kept"] + dropped(dataset) - lost
    assert counts["annotations_read"] == annotations.counts["kept"] == counts["annotations"] + lost
    assert counts["kept"] == len(images) == sum(counts[part] for part in ("train", "val", "test"))
    assert min(counts[part] for part in ("train", "val", "test")) > 0
    objects = dataset.table("annotations.parquet")
    assert len(objects) == counts["annotations"] == images["annotations"].sum()
    assert objects["annotation_id"].is_unique().all()
    coco = {part: json.loads(dataset.file(f"{part}.json").read_text()) for part in ("train", "val", "test")}
    assert {part: len(content["images"]) for part, content in coco.items()} == {part: counts[part] for part in coco}
    assert sum(len(content["annotations"]) for content in coco.values()) == counts["annotations"]
    assert images["train_4"].sum() == images.filter(pl.col("train_4"), split="train").height == 4
    assert made["train"].counts["kept"] == counts["train"]
    for name in ("roman", "lsst"):
        stats = made[f"{name}_stats"]
        assert stats.counts["kept"] == counts["train"] == stats.counts["read"] - dropped(stats)
        train = set(images.filter(split="train")["cutout_id"])
        mean = [np.mean([p.mean(dtype=float) for id, b, p in planes(chain, name) if b == band and id in train])
                for band in stats.notes["bands"]]  # fmt: skip
        assert stats.notes["mean"] == pytest.approx(mean, rel=1e-6)
    numbers = json.loads(made["report"].file("numbers.json").read_text())
    assert {part: numbers["parts"][part]["images"] for part in coco} == {part: counts[part] for part in coco}
    assert made["report"].counts["objects"] == counts["annotations"]


def test_masks_of_isolated_bright_galaxies_hold_their_brightest_pixel(chain):
    _, made, _ = chain
    lsst, seen = index(chain, "lsst"), 0
    truth = pl.concat([truth_of(made["lsst"], tile) for tile in made["lsst"].table()["tile"].unique()])
    objects = made["dataset"].table("annotations.parquet").filter(pl.col("mag_i") < BRIGHT_MAG, category_id=0)
    for one in objects.iter_rows(named=True):
        x, y = one["keypoint_x_px"], one["keypoint_y_px"]
        row = int(lsst.rows_of(np.array([one["cutout_id"]]))[0])
        height, width = lsst.shape(row)
        others = truth.filter(pl.col("mag_i") < one["mag_i"] + 2, pl.col("object_id") != one["object_id"],
                              cutout_id=one["cutout_id"])  # fmt: skip
        apart = np.hypot(others["x_px"].to_numpy() - x, others["y_px"].to_numpy() - y) > 7
        if not apart.all() or not (3 <= x < width - 4 and 3 <= y < height - 4):
            continue
        pixels = lsst.read(row, bands=["r", "i"]).sum(axis=0)
        row0, col0 = round(y) - 3, round(x) - 3
        around = pixels[row0 : row0 + 7, col0 : col0 + 7]
        top = np.unravel_index(around.argmax(), around.shape)
        mask = rle.decode(one["rle"], (height, width))
        assert mask[row0 + top[0], col0 + top[1]], one["object_id"]
        seen += 1
    assert seen >= 3


def test_the_datamodule_gives_nine_channels_with_boxes_around_bright_pixels(chain):
    store, made, _ = chain
    config = compose("train", ["task=byol", "datamodule=roman_lsst", "transform=detection",
                               f"dataset={made['dataset'].id}", "datamodule.truth=[object_id,mag_i]"])  # fmt: skip
    roles, options = (OmegaConf.to_container(config[key], resolve=True) for key in ("data", "datamodule"))
    assert options.pop("name") == "roman_lsst"
    data = open_data(roles, {}, store)
    assert [data[f"{name}_stats"].id for name in ("lsst", "roman")] == [
        made[f"{n}_stats"].id for n in ("lsst", "roman")
    ]
    batches = RomanLsstDataModule.from_artifacts(data, options, seed=0)
    assert batches.mean.tolist() == pytest.approx(
        [*made["lsst_stats"].notes["mean"], *made["roman_stats"].notes["mean"]]
    )
    counts, objects, bright = made["dataset"].counts, 0, 0
    for part, loader in (("val", batches.val_dataloader()), ("test", batches.test_dataloader())):
        images = [(image, target) for batch in loader for image, target in
                  zip(batch["image"], batch["targets"], strict=True)]  # fmt: skip
        assert len(images) == counts[part]
        for image, target in images:
            assert image.shape == (9, 96, 96)
            assert torch.isfinite(image).all()
            objects += len(target["boxes"]) + target["off_image"]
            noise = _noise(image).tolist()
            for box, mag in zip(target["boxes"], target["truth"]["mag_i"].tolist(), strict=True):
                if mag > BRIGHT_MAG - 0.3:  # bright on average over a box that is larger than Roman's image of it
                    continue
                left, top, right, bottom = (round(v) for v in box.tolist())
                for channel, shared in ((3, OF_ONE_PIXEL), (8, 1)):  # i of Rubin, H158 of Roman
                    inside = image[channel, top:bottom, left:right]
                    error = noise[channel] * (shared / inside.numel()) ** 0.5
                    assert inside.mean() > image[channel].median() + 3 * error
                bright += 1
    assert bright >= 3
    annotated = sum(len(open_dataset(made["dataset"], part=part).annotations) for part in ("val", "test"))
    assert objects == annotated
    batch = next(iter(batches.train_dataloader()))
    assert batch["image"].shape[1:] == (9, 96, 96)


def _noise(image):
    """Standard deviation of each channel by its quartiles."""
    quartiles = torch.quantile(image.flatten(1), torch.tensor([0.25, 0.75]), dim=1)
    return (quartiles[1] - quartiles[0]) / 1.349
