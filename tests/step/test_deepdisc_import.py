"""step=deepdisc_import: nothing is lost, boxes end at the image, both spellings of keys are read."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import skyloom
from make.band_cutouts import band_cutouts
from make.datasets import disk
from skyloom.datamodule.coco_dataset import open_dataset
from skyloom.errors import ConfigError, InputError
from skyloom.sky.mask.polygon import outlines

REAL = os.environ.get("SKYLOOM_REAL_DATA")


def annotation(x=10, y=12, **keys):
    mask = disk(x, y, 4, (40, 50))
    ys, xs = np.nonzero(mask)
    box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
    return {"bbox": box, "bbox_mode": 1, "area": box[2] * box[3], "category_id": 0, "obj_id": 7,
            "segmentation": outlines(mask)} | keys  # fmt: skip


def image(name="c0_1.5_-2.json", *annotations, **keys):
    return {
        "file_name": f"/data/{name}",
        "image_id": 0,
        "height": 40,
        "width": 50,
        "annotations": list(annotations),
    } | keys


def write(path: Path, *images) -> Path:
    path.write_text(json.dumps(images))
    return path


def take(store, files, **options):
    return skyloom.curate("deepdisc_import", files=files, store=store, **options)


def test_boxes_end_at_the_image_and_are_counted(tmp_path):
    objects = [
        annotation(obj_id=1, bbox=[-7, 3, 20, 10]),
        annotation(obj_id=2, bbox=[45.5, 35, 20, 20]),
        annotation(obj_id=3, bbox=[2, 3, 8, 9], bbox_mode=0),
        annotation(obj_id=4, bbox=[60, 3, 8, 9]),
        annotation(obj_id=5, bbox=[10, 12, 0, 5]),
    ]
    made = take(tmp_path, write(tmp_path / "a.json", image("a.npy", *objects)))
    data = open_dataset(made)
    assert data.annotations["object_id"].to_list() == ["1", "2", "3", "5"]
    assert data.boxes(0).tolist() == [[0, 3, 13, 13], [45.5, 35, 50, 40], [2, 3, 8, 9], [6, 8, 15, 17]]
    assert data.annotations["clipped"].to_list() == [True, True, False, False]
    counts = made.counts
    assert (counts["boxes_clipped"], counts["boxes_from_masks"], counts["annotations"]) == (2, 1, 4)
    assert counts["dropped"]["box outside"] == {"number": 1, "why": "no pixel of its box is in the image",
                                                "examples": ["a.json, image 0: 4"]}  # fmt: skip


def test_both_spellings_of_the_file(tmp_path):
    old = {"filename": "tests/old_images.fits", "height": 40, "width": 50, "annotations": [annotation()]}
    bands = {"filename_R": "R-a.fits", "filename_G": "G-a.fits", "height": 40, "width": 50, "annotations": []}
    made = take(tmp_path, write(tmp_path / "a.json", old, bands, image("new.npy")))
    assert made.table()["file_name"].to_list() == ["old_images.fits", "G-a.fits", "new.npy"]
    assert made.table()["annotations"].to_list() == [1, 0, 0]


def test_masks_are_those_that_were_outlined(tmp_path):
    ring = disk(20, 15, 9, (40, 50)) & ~disk(20, 15, 4, (40, 50))
    file = write(tmp_path / "a.json", image("a.npy", annotation(segmentation=outlines(ring))))
    assert np.array_equal(open_dataset(take(tmp_path, file)).masks(0)[0], ring)
    filled = open_dataset(take(tmp_path, file, polygons="coco")).masks(0)[0]
    assert filled[15, 20], "detectron2 fills holes"


def test_parts_extra_keys_and_keypoints(tmp_path):
    objects = annotation(keypoints=[10.25, 12.5, 2], ra=50.1, dec=-39.9, mag_i=21, tags=["a"], redshift=None)
    other = annotation(mag_i=22.5, tags={"b": 1}, redshift=0.5)
    files = {
        "train": write(tmp_path / "t.json", image("a.npy", objects), image("b.npy")),
        "test": [write(tmp_path / "s.json", image("c.npy", other))],
    }
    made = take(tmp_path, files)
    data = open_dataset(made)
    assert data.images["split"].to_list() == ["train", "train", "test"]
    assert made.notes["parts"] == {"train": 2, "test": 1}
    assert data.centroids(0).tolist() == [[10.25, 12.5]]
    assert np.isnan(data.centroids(2)).all()
    assert data.objects(0).select("ra_deg", "dec_deg", "mag_i").row(0) == (50.1, -39.9, 21.0)
    assert [json.loads(text) for text in data.annotations["tags"]] == [["a"], {"b": 1}]
    assert data.annotations["redshift"].to_list() == [None, 0.5]


def test_annotations_find_their_cutouts_by_name(tmp_path):
    cutouts = band_cutouts(tmp_path, n=2, size=40)
    table = cutouts.table()
    own = image(table["file_name"][1], annotation(), width=40, tile="50.94_-39.9")
    made = take(tmp_path, write(tmp_path / "a.json", own), cutouts=cutouts.id)
    assert made.table()["cutout_id"].to_list() == [table["cutout_id"][1]]
    assert made.table()["ra_deg"].to_list() == [table["ra_deg"][1]]
    with pytest.raises(InputError, match=r"image 0: the cutouts have no x.npy"):
        take(tmp_path, write(tmp_path / "b.json", image("x.npy")), cutouts=cutouts.id)
    with pytest.raises(InputError, match=r"has 40 x 50 px, the cutout of this name 40 x 40"):
        take(tmp_path, write(tmp_path / "c.json", own | {"width": 50}), cutouts=cutouts.id)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"images": [], "annotations": []}, "this is a COCO file"),
        ([], "expected a list of at least one image"),
        ([{"file_name": "a", "height": 4, "width": 4}], "image 0: expected a mapping with a list 'annotations'"),
        ([image("a", height=0)], "expected 'height' in pixels, found 0"),
        ([image("a", annotation(bbox=[1, 2, -3, 4]))], r"annotation 0: the box \[1, 2, -3, 4\] has a negative side"),
        ([image("a", annotation(bbox=[1, 2, float("nan"), 4]))], "expected a 'bbox' of four finite numbers"),
        ([image("a", annotation(bbox_mode=4))], "expected bbox_mode 0 .* found 4"),
        ([image("a", annotation(segmentation=[[1, 2, 3]]))], "expected polygons of x, y"),
        ([image("a", annotation(segmentation=None))], "expected 'segmentation' as a list of polygons or run lengths"),
        ([image("a", annotation(category_id=2))], "an annotation has category 2; classes names 2"),
        ([image("a", annotation(category_id=None))], "expected 'category_id' as a number from 0"),
        ([image("a"), image("a")], "image a is in the files 2 times"),
        ([{"height": 4, "width": 4, "annotations": []}], "expected its file under one of file_name, filename"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_on_one_line(tmp_path, records, message):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(records))
    with pytest.raises(InputError, match=message) as caught:
        take(tmp_path, path)
    assert "\n" not in str(caught.value)


def test_no_json_and_no_file(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text('[{"a": ')
    with pytest.raises(InputError, match=r"bad.json: expected a JSON list of images; it cannot be read"):
        take(tmp_path, path)
    with pytest.raises(InputError, match="no such file; check files="):
        take(tmp_path, tmp_path / "none.json")
    with pytest.raises(ConfigError, match="files must be given"):
        take(tmp_path, {})


def test_two_files_of_other_numbers_make_one_table(tmp_path):
    files = [
        write(tmp_path / "a.json", image("a", annotation(mag_i=21, only_a=True))),
        write(tmp_path / "b.json", image("b", annotation(mag_i=21.5, only_b="x"))),
    ]
    table = open_dataset(take(tmp_path, files)).annotations
    assert table["mag_i"].to_list() == [21.0, 21.5]
    assert table.select("only_a", "only_b").rows() == [(True, None), (None, "x")]


@pytest.mark.skipif(not REAL, reason="SKYLOOM_REAL_DATA is not set; it names the folder of real annotations")
@pytest.mark.parametrize(
    ("name", "objects", "negative", "file_name"),
    [
        ("dc2_single_test", 424, 10, "3828_2,2_12_images.fits"),
        ("hsc_single_test", 454, 7, "G-10054-0,2-c1_scarlet_img.fits"),
    ],
)
def test_the_real_files_come_in_and_go_out_without_loss(tmp_path, name, objects, negative, file_name):
    path = Path(str(REAL)) / "deepdisc" / f"{name}.json"
    given = json.loads(path.read_text())
    made = take(tmp_path, path)
    data = open_dataset(made)
    assert made.counts["annotations"] == made.counts["annotations_read"] == len(data.annotations) == objects
    assert data.images["file_name"].to_list() == [file_name]
    boxes = data.boxes(0)
    height, width = data.shape(0)
    was = np.array([one["bbox"] for one in given[0]["annotations"]])
    assert (was[:, :2] < 0).any(1).sum() == negative
    beyond = (was[:, :2] < 0).any(1) | (was[:, 0] + was[:, 2] > width) | (was[:, 1] + was[:, 3] > height)
    assert data.annotations["clipped"].to_list() == beyond.tolist()
    assert made.counts["boxes_clipped"] == beyond.sum() == 19
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert made.counts["empty_masks"] == 0
    back = skyloom.curate("export", dataset=made.id, format="deepdisc", store=tmp_path)
    assert json.loads(back.file("all.json").read_text()) == given
    clipped = skyloom.curate("export", dataset=made.id, format="deepdisc", as_given=False, store=tmp_path)
    again = take(tmp_path, clipped.file("all.json"))
    assert again.counts["boxes_clipped"] == 0
    assert open_dataset(again).annotations["rle"].equals(data.annotations["rle"]), "outlines give the same masks"
    assert pl.Series(open_dataset(again).boxes(0).ravel()).equals(pl.Series(boxes.ravel()))
