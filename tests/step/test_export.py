"""step=export: what is written is the data set, in the words of DeepDISC or COCO."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

import skyloom
from make.band_cutouts import band_cutouts
from make.datasets import annotate_disks, dataset
from skyloom.datamodule.coco_dataset import open_dataset
from skyloom.errors import ConfigError
from skyloom.sky.mask.polygon import fill_outlines
from skyloom.sky.mask.rle import decode


@pytest.fixture
def made(tmp_path):
    cutouts = band_cutouts(tmp_path, tiles=2, n=8)
    annotations = annotate_disks(tmp_path, cutouts, without=[0, 4, 7])
    subsets = [{"name": "train_4", "part": "train", "number": 4}]
    parts = {"train": 0.5, "val": 0.2, "test": 0.3}
    return dataset(tmp_path, cutouts, annotations=annotations, subsets=subsets, coco=False, fractions=parts)


def write(made, **options):
    return skyloom.curate("export", dataset=made.id, store=made.path.parents[1], **options)


@pytest.mark.parametrize("masks", ["polygons", "rle"])
def test_deepdisc_lists_hold_the_same_objects(made, masks):
    data = open_dataset(made)
    done = write(made, format="deepdisc", masks=masks)
    assert set(done.manifest["files"]) == {"train.json", "val.json", "test.json"}
    seen = []
    for part in ("train", "val", "test"):
        for record in json.loads(done.file(f"{part}.json").read_text()):
            row = int(np.flatnonzero(data.cutout_id == record["cutout_id"])[0])
            assert row in data.rows_of(part)
            seen.append(row)
            assert record["wcs"] == data.images["fits_header"][row]
            objects = data.objects(row)
            assert len(record["annotations"]) == len(objects)
            for one, mask, own in zip(
                record["annotations"], data.masks(row), objects.iter_rows(named=True), strict=True
            ):
                given = one["segmentation"]
                found = decode(given["counts"], (32, 32)) if masks == "rle" else fill_outlines(given, (32, 32))
                assert np.array_equal(found, mask)
                assert one["bbox"] == [own["bbox_x_px"], own["bbox_y_px"], own["bbox_w_px"], own["bbox_h_px"]]
                assert one["keypoints"] == [own["keypoint_x_px"], own["keypoint_y_px"], 2]
                assert (one["bbox_mode"], one["category_id"]) == (1, own["category_id"])
                assert str(one["obj_id"]) == own["object_id"]
                assert (one["ra"], one["mag_i"], one["flux_i"]) == (own["ra_deg"], 20.5, 23000.0)
                assert one["area"] == one["bbox"][2] * one["bbox"][3]
    assert sorted(seen) == list(range(len(data))), "every image once, those without objects as well"


def test_a_subset_alone_and_its_count(made):
    done = write(made, format="deepdisc", part="train_4")
    assert len(json.loads(done.file("train_4.json").read_text())) == 4
    assert done.counts["read"] == 16
    assert done.counts["dropped"]["other part"]["number"] == 12
    with pytest.raises(ConfigError, match=r"part=trian .*Did you mean 'train'"):
        write(made, format="deepdisc", part="trian")


def test_coco_of_a_subset(made, capsys):
    coco = COCO(write(made, format="coco", part="train_4").file("train_4.json"))
    data = open_dataset(made, part="train_4")
    assert len(coco.imgs) == 4
    assert sorted(coco.anns) == data.annotations["annotation_id"].to_list()


def test_an_export_comes_back_as_the_same_data_set(made):
    store = made.path.parents[1]
    done = write(made, format="deepdisc")
    files = {part: done.file(f"{part}.json") for part in ("train", "val", "test")}
    again = open_dataset(skyloom.curate("deepdisc_import", files=files, cutouts=made.inputs["cutouts"].id, store=store))
    data = open_dataset(made)
    columns = ["cutout_id", "object_id", "category_id", "rle", "keypoint_x_px", "ra_deg", "mag_i"]
    assert again.annotations.select(columns).sort(columns).equals(data.annotations.select(columns).sort(columns))
    parts = ["cutout_id", "split", "annotations"]
    assert again.images.select(parts).sort("cutout_id").equals(data.images.select(parts).sort("cutout_id"))


def test_pixels_and_lines_have_three_points(tmp_path):
    record = {"file_name": "a.npy", "height": 8, "width": 9, "annotations": [
        {"bbox": [2, 3, 1, 1], "category_id": 1, "segmentation": [[2, 3]]},
        {"bbox": [2, 3, 4, 1], "category_id": 1, "segmentation": [[2, 3, 5, 3]]},
    ]}  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record]))
    made = skyloom.curate("deepdisc_import", files=path, store=tmp_path)
    assert open_dataset(made).annotations["area_px"].to_list() == [1, 4]
    done = write(made, format="deepdisc", as_given=False)
    (back,) = json.loads(done.file("all.json").read_text())
    assert all(len(p) >= 6 for one in back["annotations"] for p in one["segmentation"]), "detectron2 needs three points"
    assert [fill_outlines(one["segmentation"], (8, 9)).sum() for one in back["annotations"]] == [1, 4]
