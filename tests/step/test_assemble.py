"""step=assemble: nothing goes missing uncounted, ids are unique, parts share no sky, and COCO files are COCO."""

import json

import numpy as np
import polars as pl
import pytest
from pycocotools.coco import COCO

import skyloom
from make.band_cutouts import band_cutouts
from make.datasets import annotate_disks, dataset, integrity_report
from skyloom.datamodule.coco_dataset import open_dataset
from skyloom.errors import ConfigError, InputError
from skyloom.sky.geometry.sphere import cell_of
from skyloom.step.split import part_of

HALVES = {"train": 0.5, "val": 0.2, "test": 0.3}


@pytest.fixture
def cutouts(tmp_path):
    return band_cutouts(tmp_path, tiles=2, n=10)


@pytest.fixture
def annotations(tmp_path, cutouts):
    return annotate_disks(tmp_path, cutouts, without=[3])


def ids_of(cutouts, *numbers):
    table = cutouts.table()
    return table.filter(pl.col("number").is_in(numbers))["cutout_id"].to_list()


def test_counts_reconcile_and_everything_dropped_is_listed(tmp_path, cutouts, annotations):
    partners = band_cutouts(tmp_path, bands=3, tiles=2, n=9)
    reports = [
        integrity_report(tmp_path, cutouts, ids_of(cutouts, 1)),
        integrity_report(tmp_path, partners, [*ids_of(partners, 2)[:1], *ids_of(partners, 1)]),
    ]
    made = dataset(
        tmp_path, cutouts, annotations=annotations, match=partners.id, integrity=[r.id for r in reports], seed=2
    )
    counts = made.counts
    assert (counts["read"], counts["kept"]) == (20, 20 - 2 - 3)
    dropped = made.table("dropped.parquet")
    assert dict(dropped["reason"].value_counts().rows()) == {"no partner": 2, "corrupt cutout": 3}
    assert set(dropped.filter(pl.col("reason") == "no partner")["cutout_id"]) == set(ids_of(cutouts, 9))
    assert dropped.filter(pl.col("reason") == "corrupt cutout")["detail"].null_count() == 0
    assert {reason: entry["number"] for reason, entry in counts["dropped"].items()} == {
        "no partner": 2, "corrupt cutout": 3, "annotation of a dropped image": 18 * 5 - (15 - 2) * 5,
    }  # fmt: skip
    assert counts["annotations_read"] == 18 * 5
    assert counts["annotations"] == (15 - 2) * 5
    assert counts["without_objects"] == 2, "images without objects stay"
    assert sum(made.notes["parts"].values()) == counts["kept"]
    assert {role for role in made.inputs} == {"annotations", "cutouts", "match", "integrity[0]", "integrity[1]"}
    assert made.inputs["cutouts"].id == cutouts.id


def test_objects_are_those_of_their_image(tmp_path, cutouts, annotations):
    made = open_dataset(dataset(tmp_path, cutouts, annotations=annotations))
    assert made.annotations["annotation_id"].to_list() == list(range(1, 91))
    assert made.images["image_id"].to_list() == list(range(1, 21))
    assert made.images.select("tile", "number").equals(made.images.select("tile", "number").sort("tile", "number"))
    assert dict(made.categories) == {0: "galaxy", 1: "star"}
    for row in range(len(made)):
        tile, id = made.images["tile"][row], made.images["cutout_id"][row]
        source = annotations.table(f"annotations/{tile}.parquet").filter(pl.col("cutout_id") == id)
        own = made.objects(row)
        assert own["object_id"].to_list() == source["object_id"].to_list()
        masks = made.masks(row)
        assert masks.shape == (len(source), 32, 32)
        assert masks.sum((1, 2)).tolist() == source["area_px"].to_list()
        for mask, (x0, y0, x1, y1) in zip(masks, made.boxes(row), strict=True):
            ys, xs = np.nonzero(mask)
            assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x0, y0, x1, y1)
        np.testing.assert_allclose(made.centroids(row)[:, 0], source["keypoint_x_px"], rtol=1e-6)
        assert made.labels(row).dtype == np.int64


def test_a_part_and_some_columns_are_read_alone(tmp_path, cutouts, annotations):
    artifact = dataset(
        tmp_path, cutouts, annotations=annotations, fractions=HALVES,
        subsets=[{"name": "train_3", "part": "train", "number": 3}],
    )  # fmt: skip
    whole = open_dataset(artifact)
    assert whole.parts == ("test", "train", "val", "train_3")
    few = open_dataset(artifact, part="train_3", columns=["mag_i"])
    assert few.cutout_id.tolist() == whole.cutout_id[whole.rows_of("train_3")].tolist()
    assert set(whole.rows_of("train_3")) < set(whole.rows_of("train"))
    assert "mag_i" in few.annotations.columns
    assert "flux_i_njy" not in few.annotations.columns
    for row, id in enumerate(few.cutout_id):
        other = int(np.flatnonzero(whole.cutout_id == id)[0])
        assert few.objects(row)["annotation_id"].equals(whole.objects(other)["annotation_id"])
    with pytest.raises(ConfigError, match=r"part=train_4 .*Did you mean 'train_3'"):
        open_dataset(artifact, part="train_4")
    with pytest.raises(ConfigError, match=r"column=mag_r .*Did you mean 'mag_i'"):
        open_dataset(artifact, columns=["mag_r"])


def test_coco_files_are_read_by_pycocotools(tmp_path, cutouts, annotations, capsys):
    artifact = dataset(tmp_path, cutouts, annotations=annotations, fractions=HALVES)
    whole = open_dataset(artifact)
    seen_images, seen_objects = set(), set()
    for part in HALVES:
        coco = COCO(artifact.file(f"{part}.json"))
        assert len(coco.imgs) == artifact.notes["parts"][part]
        assert not seen_images & set(coco.imgs)
        assert not seen_objects & set(coco.anns)
        seen_images |= set(coco.imgs)
        seen_objects |= set(coco.anns)
        assert [category["name"] for category in coco.loadCats([0, 1])] == ["galaxy", "star"]
        for image in coco.imgs.values():
            row = image["id"] - 1
            assert image["cutout_id"] == whole.cutout_id[row]
            found = coco.imgToAnns[image["id"]]
            masks = np.array([coco.annToMask(one) for one in found], bool).reshape(-1, 32, 32)
            assert np.array_equal(masks, whole.masks(row))
            assert [one["category_id"] for one in found] == whole.labels(row).tolist()
            for one, (x0, y0, x1, y1) in zip(found, whole.boxes(row), strict=True):
                assert one["bbox"] == [x0, y0, x1 - x0, y1 - y0]
                assert (one["keypoints"][2], one["num_keypoints"], one["iscrowd"]) == (2, 1, 0)
                assert one["redshift"] is None, "NaN is not JSON"
    assert len(seen_images) == 20
    assert len(seen_objects) == 90
    assert "NaN" not in artifact.file("train.json").read_text()
    without = dataset(tmp_path, cutouts, annotations=annotations, fractions=HALVES, coco=False)
    assert "train.json" not in without.manifest["files"]
    assert without.id != artifact.id


def test_by_cell_no_cell_is_in_two_parts(tmp_path):
    cutouts = band_cutouts(tmp_path, n=60, objects=1, size=8, bands=3)
    made = dataset(tmp_path, cutouts, by="cell", level=11, fractions=HALVES, seed=1, coco=False)
    images = made.table()
    cells = cell_of(images["ra_deg"].to_numpy(), images["dec_deg"].to_numpy(), 11)
    expected = part_of(cells, 11, np.cumsum(list(HALVES.values())), 1)
    assert images["split"].to_list() == [list(HALVES)[i] for i in expected]
    assert made.counts["kept"] + made.counts["dropped"].get("border cutout", {"number": 0})["number"] == 60
    with pytest.raises(InputError, match=r"no image of .* is left for .* a finer level, or by=cutout"):
        dataset(tmp_path, cutouts, by="cell", level=2, fractions=HALVES)


def test_the_part_of_a_cutout_is_its_own_and_the_seed_decides(tmp_path):
    few, many = (band_cutouts(tmp_path, n=n, objects=1, size=8, bands=3) for n in (20, 40))
    parts = [
        dict(dataset(tmp_path, c, seed=s, coco=False, fractions=HALVES).table()["cutout_id", "split"].iter_rows())
        for c, s in ((few, 0), (many, 0), (many, 1))
    ]
    assert parts[0].items() <= parts[1].items()
    assert parts[1] != parts[2]


def test_an_object_in_training_and_test_is_counted_and_told(tmp_path, capfd):
    cutouts = band_cutouts(tmp_path, n=10, objects=1, size=8, bands=3)
    alone = dataset(tmp_path, cutouts, fractions=HALVES, coco=False)
    assert alone.counts["objects_in_several_parts"] == 0
    assert "several parts" not in capfd.readouterr().err
    one = {"object_id": pl.lit("7"), "ra_deg": pl.lit(10.0), "dec_deg": pl.lit(1.0)}
    same = dataset(tmp_path, cutouts, annotations=annotate_disks(tmp_path, cutouts, edit=one), fractions=HALVES)
    assert same.counts["objects_in_several_parts"] == 1
    assert "1 objects are annotated in images of several parts" in capfd.readouterr().err
    apart = one | {"ra_deg": pl.col("cutout_id").cast(pl.Float64)}  # the same number, elsewhere
    made = dataset(tmp_path, cutouts, annotations=annotate_disks(tmp_path, cutouts, edit=apart), fractions=HALVES)
    assert made.counts["objects_in_several_parts"] == 0


def test_smaller_subsets_lie_within_larger_ones(tmp_path, cutouts):
    wanted = [{"name": f"train_{n}", "part": "train", "number": n} for n in (2, 5, 1)]
    table = dataset(tmp_path, cutouts, subsets=wanted, coco=False).table()
    sets = {name: set(table.filter(name)["cutout_id"]) for name in ("train_1", "train_2", "train_5")}
    assert [len(found) for found in sets.values()] == [1, 2, 5]
    assert sets["train_1"] < sets["train_2"] < sets["train_5"] <= set(table.filter(split="train")["cutout_id"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"subsets": [{"name": "a", "part": "trian", "number": 1}]}, ConfigError,
         "part of a=trian .*Did you mean 'train'"),
        ({"subsets": [{"name": "a", "part": "train", "number": 900}]}, ConfigError,
         "a wants 900 images of part train, which has"),
        ({"subsets": [{"name": "tile", "part": "train", "number": 1}]}, ConfigError, "the name tile is taken"),
        ({"fractions": {"train": 0.5, "val": 0.4, "test": 0.0}}, ConfigError, "fractions add up to 0.9"),
        ({"by": "cell", "level": 12, "fractions": {"train": 1.0, "val": 0, "test": 0}, "annotations": "big"},
         ConfigError, "cells of 0.9' are too small"),
    ],
)  # fmt: skip
def test_what_cannot_be_done(tmp_path, cutouts, options, error, message):
    if options.get("annotations") == "big":
        cutouts = band_cutouts(tmp_path, n=1, size=512, objects=1)
        options = {k: v for k, v in options.items() if k != "annotations"}
    with pytest.raises(error, match=message):
        dataset(tmp_path, cutouts, **options)


def test_damaged_annotations_and_foreign_reports(tmp_path, cutouts):
    with pytest.raises(InputError, match=r"object \S+ is annotated 2 times in cutout \d+"):
        dataset(tmp_path, cutouts, annotations=annotate_disks(tmp_path, cutouts, repeat=True))
    flat = annotate_disks(tmp_path, cutouts, edit={"bbox_w_px": pl.lit(float("nan"))})
    with pytest.raises(InputError, match=r"the box of object \S+ in cutout \d+ has no width or height"):
        dataset(tmp_path, cutouts, annotations=flat)
    other = band_cutouts(tmp_path, n=2)
    report = integrity_report(tmp_path, other, [])
    with pytest.raises(
        InputError, match=f"integrity {report.id} is about cutouts {other.id}; expected one about {cutouts.id}"
    ):
        dataset(tmp_path, cutouts, integrity=report.id)
    own = annotate_disks(tmp_path, cutouts)
    with pytest.raises(InputError, match=f"annotations {own.id} are those of cutouts {cutouts.id}, not of {other.id}"):
        skyloom.curate("assemble", annotations=own.id, cutouts=other.id, store=tmp_path)


def test_a_part_becomes_a_selection(tmp_path, cutouts):
    made = dataset(tmp_path, cutouts, subsets=[{"name": "train_3", "part": "train", "number": 3}], coco=False)
    for name in ("train", "train_3"):
        chosen = skyloom.curate("part", split=made.id, part=name, store=tmp_path).table()
        images = open_dataset(made)
        assert set(chosen["cutout_id"]) == set(images.cutout_id[images.rows_of(name)])
        assert cutouts.table()["cutout_id"].gather(chosen["row"]).equals(chosen["cutout_id"])
    with pytest.raises(ConfigError, match=r"part=train_4 .*Did you mean 'train_3'"):
        skyloom.curate("part", split=made.id, part="train_4", store=tmp_path)


def test_images_json_and_headers(tmp_path, cutouts):
    made = dataset(tmp_path, cutouts)
    images = open_dataset(made).images
    assert images["fits_header"].str.contains("CRVAL1").all()
    assert images["noise_i"].to_list() == [0.05] * 20
    record = json.loads(made.file("train.json").read_text())["images"][0]
    assert record["file_name"] == images["file_name"][record["id"] - 1]
