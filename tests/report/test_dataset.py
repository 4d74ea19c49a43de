"""report=dataset: the page has the numbers of the data set, and says why a part of it is missing."""

import json

import polars as pl
import pytest

import skyloom
from make.band_cutouts import band_cutouts
from make.datasets import annotate_disks, dataset
from skyloom.datamodule.coco_dataset import open_dataset
from skyloom.report.dataset.report import dataset as report_on


def report(made, **options):
    given = {"examples": 2, "pixel_images": 3, "dpi": 50, "seed": 0, "image_roots": None, **options}
    return report_on(dataset=made, store=made.path.parents[1], **given)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    cutouts = band_cutouts(store, n=8, bands=3)
    annotations = annotate_disks(store, cutouts, without=[2])
    subsets = [{"name": "train_2", "part": "train", "number": 2}]
    parts = {"train": 0.7, "val": 0.0, "test": 0.3}
    return dataset(store, cutouts, annotations=annotations, fractions=parts, subsets=subsets, coco=False)


@pytest.fixture(scope="module")
def done(made):
    return report(made)


def test_numbers_are_those_of_the_tables(made, done):
    numbers = json.loads(done.file("numbers.json").read_text())
    data = open_dataset(made)
    assert numbers["parts"]["all"] == {"images": 8, "objects": 35, "without_objects": 1}
    for part in data.parts:
        rows = data.rows_of(part)
        assert numbers["parts"][part]["objects"] == sum(len(data.objects(row)) for row in rows)
    assert sum(numbers["categories"].values()) == 35
    assert numbers["categories"]["star"] == (data.annotations["category_id"] == 1).sum()
    assert numbers["magnitude"] == {"i": {"p5": 20.5, "median": 20.5, "p95": 20.5}}
    galaxies = data.annotations.filter(pl.col("category_id") == 0)["area_px"]
    assert numbers["area_px"]["galaxy"]["median"] == galaxies.median()
    assert set(numbers["pixels"]) == {"Y106", "J129", "H158"}
    assert numbers["pixels"]["H158"]["images"] == 3
    assert numbers["rejected"] == {"empty_mask": 2, "galsim_fail": 1}
    assert (numbers["tiles"], numbers["with_sky_position"]) == (1, 8)


def test_the_page_holds_all_pictures(done):
    pictures = {"rejected.png", "objects.png", "pixels.png", "sky.png", "examples.png"}
    assert pictures | {"report.html", "numbers.json"} == set(done.manifest["files"])
    page = done.file("report.html").read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "35 annotated objects in 8 images" in page
    assert "python analyze.py report=dataset dataset=" in page


def test_without_pixels_the_page_says_why(made, tmp_path):
    page = report(made, examples=0, pixel_images=0).file("report.html").read_text()
    assert "No pixels were read: pixel_images=0." in page
    assert "No images are shown: examples=0." in page
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"file_name": "a.fits", "height": 9, "width": 9, "annotations": []}]))
    bare = skyloom.curate("deepdisc_import", files=path, store=tmp_path)
    page = report(bare).file("report.html").read_text()
    assert "the data set has no cutouts" in page
    assert "None of the images has a position" in page
    assert "no magnitudes" in page
