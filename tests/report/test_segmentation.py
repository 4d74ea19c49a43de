"""report=segmentation: the numbers are COCO's on the grid of the truth, for every catalogue on the same images."""

import json

import numpy as np
import polars as pl
import pytest

import skyloom
from make.band_cutouts import band_cutouts
from make.datasets import annotate_disks, dataset
from make.found_catalogs import found_catalog, found_images, true_rows
from make.joint_data import joint_data
from skyloom.datamodule.band_index import BandIndex
from skyloom.datamodule.coco_dataset import open_dataset
from skyloom.datamodule.joint_grid import frame_of, placement
from skyloom.datamodule.joint_sample import moved_boxes
from skyloom.errors import ConfigError, InputError
from skyloom.metric.detection_scores import DetectionScores
from skyloom.report.segmentation.found import read_found
from skyloom.report.segmentation.inputs import Selection
from skyloom.report.segmentation.judge import common_rows, compare
from skyloom.report.segmentation.numbers import half_open
from skyloom.report.segmentation.truth import open_truth
from skyloom.sky.mask.rle import decode, encode
from skyloom.store import Store

AREAS = {"tiny": (0, 144), "large": (144, 1e10)}
FAST = {"dpi": 50, "examples": 0, "areas_px2": AREAS}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Annotated images of the survey of six bands; three of four are in the test part."""
    store = Store(tmp_path_factory.mktemp("store"))
    cutouts = band_cutouts(store, n=8, bands=6)
    bright = (pl.col("keypoint_x_px") * 0.1 + 18).alias("mag_i")
    annotations = annotate_disks(store.root, cutouts, without=[2], edit={"mag_i": bright})
    parts = {"train": 0.25, "val": 0.0, "test": 0.75}
    return dataset(store.root, cutouts, annotations=annotations, fractions=parts, subsets=[], coco=False)


@pytest.fixture(scope="module")
def store(made):
    return Store(made.path.parents[1])


@pytest.fixture(scope="module")
def perfect(made, store):
    return found_catalog(store, true_rows(made), found_images(made))


def report(made, **options):
    catalogs = {name: one.id for name, one in options.pop("catalogs").items()}
    given = {"dataset": made, "part": "test", "catalogs": catalogs, **FAST, **options}
    return skyloom.analyze("segmentation", **given, store=made.path.parents[1])


def compared(made, catalogs, *, edges=None, operating_score=None, part="test", selection=None):
    """The numbers without a page."""
    truth = open_truth(made, part, band=None, image_roots=None)
    chosen = Selection(**{"score": None, "nms": 0.5, "top_k": 1000, "across_classes": False, **(selection or {})})
    found = {
        name: read_found(name, one, truth.data.cutout_id, selection=chosen, band=truth.band, classes=truth.classes)
        for name, one in catalogs.items()
    }
    bins = {name: np.array(own) for name, own in (edges or {}).items()}
    return compare(truth, found, common_rows(truth, found, part, "error"), areas=AREAS, max_detections=1000,
                   edges=bins, operating_score=operating_score).catalogs  # fmt: skip


def numbers_of(artifact):
    return json.loads(artifact.file("numbers.json").read_text())


@pytest.fixture(scope="module")
def done(made, perfect):
    return report(made, catalogs={"ours": perfect}, examples=2)


def test_a_catalogue_that_is_the_truth_has_full_marks(made, done):
    numbers = numbers_of(done)
    ours = numbers["catalogs"]["ours"]
    for mode in ("classes", "any"):
        known = {key: value for key, value in ours[mode].items() if value is not None}
        assert all(value == pytest.approx(1) for value in known.values()), known
        assert {"mask_ap", "mask_ap50", "mask_ap_tiny", "box_ar_tiny"} <= set(known)
        assert ours[mode]["mask_ap_large"] is None, "no disk is as large"
    data = open_dataset(made, part="test")
    assert numbers["truths"] == sum(len(data.objects(row)) for row in range(len(data))) > 5
    counts = np.array(ours["confusion"])
    assert counts.sum() == np.trace(counts) == numbers["truths"]
    assert ours["operating"] == {"score": pytest.approx(0.9), "precision": 1, "recall": 1, "f1": 1}
    assert ours["other_images"] == 8 - len(data)


def test_numbers_are_those_of_the_metric_on_its_own(made, store):
    rng = np.random.default_rng(3)
    rows = true_rows(made).with_columns(score=pl.Series(rng.random(len(true_rows(made))), dtype=pl.Float32))
    rows = rows.with_columns(x0_px=pl.col("x0_px") + 1.5, x1_px=pl.col("x1_px") + 1.5).filter(
        rng.random(len(rows)) < 0.8
    )
    rows = rows.with_columns(pl.Series("class", rng.integers(0, 2, len(rows)), pl.Int8))
    judged = compared(made, {"ours": found_catalog(store, rows, found_images(made))})["ours"]
    data = open_dataset(made, part="test")
    alone = DetectionScores(["galaxy", "star"], areas=AREAS, max_detections=1000)
    for row, id in enumerate(data.cutout_id):
        own, true = rows.filter(pl.col("cutout_id") == id), data.objects(row)
        found = {"boxes": own.select("x0_px", "y0_px", "x1_px", "y1_px").to_numpy(), "labels": own["class"].to_numpy(),
                 "scores": own["score"].to_numpy(), "rle": own["rle"].to_list()}  # fmt: skip
        truth = {"boxes": data.boxes(row), "labels": data.labels(row), "rle": true["rle"].to_list()}
        alone.add(id, data.shape(row), truth, found)
    expected = alone.compute()
    ours = judged.numbers["classes"]
    assert 0.05 < ours["mask_ap"] < 0.95
    assert ours == pytest.approx(expected, abs=1e-9, nan_ok=True)
    curves = judged.curves.filter(mode="classes", kind="mask")
    assert curves["precision"].mean() == pytest.approx(expected["mask_ap"])


def test_without_classes_a_detector_that_tells_none_loses_nothing(made, store, perfect):
    blind = found_catalog(store, true_rows(made, **{"class": pl.lit(0, pl.Int8)}), found_images(made))
    done = report(made, catalogs={"ours": perfect, "sep": blind})
    sep = numbers_of(done)["catalogs"]["sep"]
    assert sep["any"]["mask_ap"] == pytest.approx(1)
    assert sep["classes"]["mask_ap_star"] == 0
    assert sep["classes"]["mask_ap"] < 0.6
    table = done.table()
    assert table.select("catalog", "mode").rows() == [(n, m) for n in ("ours", "sep") for m in ("classes", "any")]
    page = done.file("report.html").read_text()
    assert "python analyze.py report=segmentation dataset=" in page
    assert "whatever the class" in page


def test_the_best_threshold_is_found_and_the_matrix_taken_there(made, store):
    """False detections below 0.5, truths above: the best score leaves the false ones out."""
    line = encode(np.eye(*open_dataset(made).shape(0), dtype=bool))
    false = true_rows(made, rle=pl.lit(line), score=pl.lit(0.3, pl.Float32))
    rows = pl.concat([true_rows(made), false]).sort("cutout_id")
    noisy = found_catalog(store, rows, found_images(made))
    ours = compared(made, {"ours": noisy})["ours"].numbers
    assert ours["operating"] == {"score": pytest.approx(0.9), "precision": 1, "recall": 1, "f1": 1}
    everything = compared(made, {"ours": noisy}, operating_score=0.0)["ours"].numbers
    assert everything["operating"]["precision"] == pytest.approx(0.5)
    assert sum(everything["confusion"][-1]) * 2 == everything["detections"]


def test_bins_of_magnitude_and_signal_to_noise(made, store):
    data = open_dataset(made, part="test")
    mag = data.annotations["mag_i"].to_numpy()
    edge = float(np.sort(mag)[len(mag) // 2])  # an edge on a truth
    faint = found_catalog(store, true_rows(made).filter(pl.col("mag_mask_i") >= edge), found_images(made))
    edges = {"mag": [17.0, edge, 40.0], "snr": [0.0, 1e12]}
    table = compared(made, {"ours": faint}, edges=edges)["ours"].bins.filter(mode="any", kind="mask")
    rows = table.filter(quantity="mag")
    assert rows["truths"].to_list() == [(mag < edge).sum(), (mag >= edge).sum()], "the lower edge belongs to a bin"
    assert rows["recall50"].to_list() == [0, 1]
    assert rows["ap"].to_list() == pytest.approx([0, 1])
    assert table.filter(quantity="snr")["truths"].to_list() == [len(mag)]
    # signal to noise by hand: noise_i is 0.05 (make.datasets), the zero point that of the cutouts
    zero_point = made.inputs["cutouts"].notes["zero_point_mag"]["i"]
    area = data.annotations["area_px"].to_numpy()
    snr = np.sort(10 ** ((zero_point - mag) / 2.5) / (0.05 * np.sqrt(area)))
    cut = float((snr[2] + snr[3]) / 2)
    table = compared(made, {"ours": faint}, edges={"snr": [0.0, cut, 1e12]})["ours"].bins.filter(mode="any", kind="box")
    assert table["truths"].to_list() == [3, len(mag) - 3]


def test_without_magnitudes_of_detections_bins_have_a_recall_and_no_ap(made, store):
    bare = found_catalog(store, true_rows(made).drop("mag_mask_i"), found_images(made))
    done = report(made, catalogs={"ours": bare}, bins={"mag": [10.0, 30.0], "snr": None})
    table = pl.read_parquet(done.file("bins.parquet"))
    assert table["recall50"].to_list() == [1] * 4
    assert table["ap"].null_count() == 4
    assert "a recall and no AP" in done.file("report.html").read_text()


def test_half_open_bins():
    ranges = half_open(np.array([0.0, 1.0, 2.0]))
    inside = [[low <= value <= high for low, high in ranges] for value in (0.0, 1.0, 2.0, 2.1)]
    assert inside == [[True, False], [False, True], [False, True], [False, False]]


def test_images_that_a_catalogue_lacks(made, store, perfect):
    ids = open_dataset(made, part="test").cutout_id.tolist()
    rows = true_rows(made).filter(pl.col("cutout_id").is_in(ids[1:]))
    less = found_catalog(store, rows, found_images(made, ids[1:]))
    with pytest.raises(InputError, match=rf"looked at {len(ids) - 1} of the {len(ids)} images of part=test, not at"):
        report(made, catalogs={"ours": perfect, "less": less})
    done = report(made, catalogs={"ours": perfect, "less": less}, on_missing="skip")
    assert done.counts["images"] == len(ids) - 1
    assert done.counts["dropped"]["images not judged"]["number"] == 1
    assert done.counts["dropped"]["less: images it lacks"]["number"] == 1
    both = numbers_of(done)["catalogs"]
    assert both["ours"]["detections"] == both["less"]["detections"], "all are judged on the same images"
    none = found_catalog(store, rows[:0], found_images(made, []))
    with pytest.raises(InputError, match="no image of part=test was looked at"):
        report(made, catalogs={"none": none}, on_missing="skip")


def test_a_catalogue_without_detections_scores_nothing(made, store):
    none = found_catalog(store, true_rows(made)[:0], found_images(made))
    ours = compared(made, {"ours": none})["ours"].numbers
    assert (ours["any"]["mask_ap"], ours["detections"], ours["operating"]["score"]) == (0, 0, 0)
    assert np.isnan(ours["operating"]["precision"])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"part": "tset"}, ConfigError, "tset"),
        ({"band": "K"}, ConfigError, "K.*: i"),
        ({"areas_px2": {"tiny": (9, 3)}}, ConfigError, "low below high in px"),
        ({"bins": {"mag": [3, 2], "snr": None}}, ConfigError, "rising"),
    ],
)
def test_one_line_for_every_mistake(made, perfect, options, error, match):
    with pytest.raises(error, match=match) as caught:
        report(made, catalogs={"ours": perfect}, **options)
    assert "\n" not in str(caught.value)


def test_other_classes_and_names_are_refused(made, store):
    odd = found_catalog(store, true_rows(made), found_images(made), classes=("star", "galaxy"))
    with pytest.raises(InputError, match="has the classes star, galaxy, the data set galaxy, star"):
        report(made, catalogs={"ours": odd})
    with pytest.raises(ConfigError, match="the name 'truth' cannot be used"):
        report(made, catalogs={"truth": odd})


def test_pictures_and_page(done):
    pictures = {"confusion.png", "curves.png", "bins.png", "examples.png"}
    assert {name for name in done.manifest["files"] if name.endswith(".png")} <= pictures
    assert {"confusion.png", "curves.png", "examples.png"} <= set(done.manifest["files"])
    tables = {f"{name}.parquet" for name in ("scores", "bins", "curves", "confusion")}
    assert tables | {"report.html", "numbers.json"} <= set(done.manifest["files"])


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    return joint_data(tmp_path_factory.mktemp("joint"))


def test_detections_on_another_grid_are_brought_onto_that_of_the_truth(joint):
    """The true masks drawn on Roman's grid, and moved there and back, are nearly the true masks."""
    roman, lsst = BandIndex(joint.roman), BandIndex(joint.lsst)
    parts = []
    for row, id in enumerate(lsst.cutout_id.tolist()):
        place = placement(frame_of(lsst, row), frame_of(roman, row), combine="wcs", interpolation="linear",
                          conserve_flux=False)  # fmt: skip
        own = true_rows(joint.dataset).filter(pl.col("cutout_id") == id)
        if not len(own):
            continue
        masks = place.masks(np.stack([decode(text, lsst.shape(row)) for text in own["rle"]]))
        boxes = moved_boxes(own.select("x0_px", "y0_px", "x1_px", "y1_px").to_numpy(), place)
        own = own.with_columns(rle=pl.Series([encode(mask) for mask in masks]))
        names = ("x0_px", "y0_px", "x1_px", "y1_px")
        parts.append(own.with_columns(**{name: pl.Series(boxes[:, k]) for k, name in enumerate(names)}))
    images = found_images(joint.dataset).with_columns(
        height_px=pl.lit(112), width_px=pl.lit(112),
        fits_header=pl.Series([roman.header(row) for row in range(6)]),
    )  # fmt: skip
    rows = pl.concat(parts)
    ours = compared(joint.dataset, {"ours": found_catalog(joint.store, rows, images)}, part=None)["ours"].numbers
    assert ours["any"]["mask_ap75"] == pytest.approx(1)
    assert ours["any"]["box_ap75"] == pytest.approx(1)
    away = rows.with_columns(x0_px=pl.col("x0_px") + 500.0, x1_px=pl.col("x1_px") + 500.0)
    lost = report(joint.dataset, part=None, catalogs={"ours": found_catalog(joint.store, away, images)})
    assert lost.counts["dropped"]["ours: detections off image"]["number"] == len(rows)


def test_sep_as_candidates_and_as_a_catalogue(joint):
    """SExtractor finds the noiseless stars; its catalogue at the same thresholds is judged as its candidates are."""
    common = {"detector": "sep", "dataset": joint.dataset, "part": "test", "channels": {"surveys": ["lsst"]}}
    small = {"batch_size": 2, "shard_images": 2, "device": "cpu", "store": joint.store.root}
    candidates = skyloom.extract("candidates", **common, **small)
    catalog = skyloom.extract(
        "catalog", candidates=candidates, score=candidates.notes["score"], nms=0.5, formats=[],
        photometry={"enabled": False}, **small,
    )  # fmt: skip
    both = compared(joint.dataset, {"raw": candidates, "sure": catalog})
    assert both["raw"].numbers["any"] == pytest.approx(both["sure"].numbers["any"], nan_ok=True)
    assert both["raw"].numbers["detections"] == both["sure"].numbers["detections"] > 0
    with pytest.raises(ConfigError, match="were kept from a score of"):
        compared(joint.dataset, {"raw": candidates}, selection={"score": 0.0})
    none = compared(joint.dataset, {"raw": candidates}, selection={"score": 1.0})["raw"].numbers
    assert none["detections"] == 0


def test_without_cutouts_there_are_no_pictures(tmp_path):
    mask = np.zeros((9, 9), bool)
    mask[2:6, 3:7] = True
    polygon = [3, 2, 7, 2, 7, 6, 3, 6]
    annotation = {"bbox": [3, 2, 7, 6], "bbox_mode": 0, "category_id": 0, "segmentation": [polygon]}
    record = {"file_name": "a.fits", "height": 9, "width": 9, "image_id": 1, "annotations": [annotation]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record]))
    bare = skyloom.curate("deepdisc_import", files=path, store=tmp_path)
    rows = pl.DataFrame({
        "cutout_id": open_dataset(bare).cutout_id, "rle": [encode(mask)], "x0_px": 3.0, "y0_px": 2.0, "x1_px": 7.0,
        "y1_px": 6.0, "class": pl.Series([0], dtype=pl.Int8), "score": pl.Series([0.5], dtype=pl.Float32),
    })  # fmt: skip
    done = report(
        bare, part=None, catalogs={"ours": found_catalog(Store(tmp_path), rows, found_images(bare))}, examples=2
    )
    assert numbers_of(done)["catalogs"]["ours"]["any"]["mask_ap50"] == 1
    page = done.file("report.html").read_text()
    assert "the data set has no cutouts" in page
    assert "the annotations have no magnitudes" in page
    small = found_images(bare).with_columns(height_px=pl.lit(8))
    with pytest.raises(InputError, match="8x9 px, the image of the truth 9x9 px"):
        report(bare, part=None, catalogs={"ours": found_catalog(Store(tmp_path), rows, small)})
