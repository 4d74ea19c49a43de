"""step=labelled: each published layout becomes cutouts with labels; what does not fit is counted and named."""

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import skyloom
from make.fits import write_fits
from make.labelled import class_folders, first_zip, galaxy, mirabest_npz, mnist_folder, png
from make.windows import grid, index
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.datamodule.labels import open_labels
from skyloom.errors import ConfigError, InputError, SkyloomError
from skyloom.transform import Preprocess

REAL = os.environ.get("SKYLOOM_REAL_DATA")
real = pytest.mark.skipif(not REAL, reason="SKYLOOM_REAL_DATA is not set; it names the folder of real data")


@pytest.fixture
def make(tmp_path):
    def labelled(format, files, **options):
        return skyloom.curate("labelled", format=format, files=files, store=tmp_path / "store", **options)

    return labelled


def read(artifact):
    return CutoutIndex(artifact).read(range(len(artifact.table())))


def dropped(artifact):
    return {reason: entry["number"] for reason, entry in artifact.counts["dropped"].items()}


def test_the_first_zip_with_its_splits(make, tmp_path):
    made = make("radio_galaxy_dataset", first_zip(tmp_path / "first.zip"))
    assert made.kind == "cutouts"
    labels = open_labels(made)
    assert labels.classes == ["Bent", "Compact", "FRI", "FRII"]
    assert (labels.targets.sum(0) == 10).all()
    assert made.notes["splits"] == {"test": 8, "train": 24, "val": 8}
    assert not labels.multi_label
    assert labels.fold is None
    assert dropped(made) == {"copy": 40}
    table = made.table()
    row = table.row(by_predicate=pl.col("image") == "103_-3_0_Some_Tab1", named=True)
    assert (row["ra_deg"], row["dec_deg"], row["size_px"], row["peak"]) == (103.0, -3.0, 24, 255.0)
    at = table["image"].to_list().index("103_-3_0_Some_Tab1")
    assert np.array_equal(read(made)[at], galaxy(2))
    assert made.table("images.parquet")["pixel_scale_arcsec"].unique().to_list() == [1.8]
    assert made.verify() == []


def test_groups_are_cells_of_the_sky(make, tmp_path):
    path = first_zip(tmp_path / "first.zip")
    fine, coarse = (open_labels(make("radio_galaxy_dataset", path, group_level=level)) for level in (8, 1))
    assert len(np.unique(fine.group)) == 40
    assert 1 < len(np.unique(coarse.group)) < 10
    assert coarse.group.max() < 12 * 4


def test_what_does_not_belong_is_named(make, tmp_path):
    extra = {
        "galaxy_data/readme.txt": b"hello",
        "galaxy_data/train/Odd/1_1_0_x.png": png(galaxy(90)),
        "galaxy_data/train/FRI/1_2_3_x.png": png(galaxy(91)),
        "galaxy_data/train/FRI/100_-5_0_Some_Tab1.png": png(galaxy(92)),
        "galaxy_data/test/FRI/100_-5_0_Some_Tab1.png": png(galaxy(92)),
        "galaxy_data/train/FRI/7_7_0_broken.png": png(galaxy(93))[:60],
    }
    path = tmp_path / "first.zip"
    with pytest.warns(UserWarning, match="Duplicate name"):
        first_zip(path, extra)
    with pytest.raises(InputError, match=r"7_7_0_broken.png: expected a whole PNG.*on_bad_image=skip"):
        make("radio_galaxy_dataset", path)
    made = make("radio_galaxy_dataset", path, on_bad_image="skip")
    found = dropped(made)
    assert {k: v for k, v in found.items() if k != "copy"} == {
        "other file": 1, "unknown class": 1, "contradicting label": 1, "repeated": 2, "unreadable": 1,
    }  # fmt: skip
    assert made.counts["read"] == made.counts["kept"] + sum(found.values())
    assert made.counts["dropped"]["unreadable"]["examples"] == ["7_7_0_broken"]
    split = dict(zip(made.table()["image"], made.table("labels.parquet")["split"], strict=True))
    assert split["100_-5_0_Some_Tab1"] == "test", "what is in train and test must not be trained on"
    assert len(made.table("dropped.parquet")) == sum(found.values())


def test_mirabest_brings_its_batches_as_folds(make, tmp_path):
    made = make("mirabest", mirabest_npz(tmp_path / "m.npz"))
    labels = open_labels(made)
    assert labels.classes == ["FRI", "FRII"]
    assert sorted(labels.fold.tolist()) == [-1] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert (labels.split[labels.fold == -1] == "test").all()
    assert made.table()["ra_deg"].sort().to_list() == [10.5 + i for i in range(16)]
    assert made.notes["constant_images"]["names"] == ["200_15.5_+000.000"]
    by_name = dict(zip(made.table()["image"], labels.label, strict=True))
    assert all((name[0] == "2") == bool(label) for name, label in by_name.items())


def test_damaged_mirabest(make, tmp_path):
    path = mirabest_npz(tmp_path / "m.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="expected a whole npz"):
        make("mirabest", path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(InputError, match=r"expected the arrays data, labels.*only x"):
        make("mirabest", path)
    with pytest.raises(InputError, match=r"labels from 0 to 7 for 2 label_names"):
        make("mirabest", mirabest_npz(path, labels=np.arange(16) % 8))


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_from_local_files(make, tmp_path, zipped):
    made = make("mnist", mnist_folder(tmp_path / "MNIST" / "raw", zipped=zipped).parents[1])
    labels = open_labels(made)
    assert labels.classes == [str(i) for i in range(10)]
    assert made.notes["splits"] == {"test": 10, "train": 30}
    assert read(made).shape == (40, 28, 28)
    assert made.table()["ra_deg"].null_count() == 40
    assert labels.label[:12].tolist() == [*range(10), 0, 1]


def test_mnist_that_is_cut_short_or_absent(make, tmp_path):
    with pytest.raises(InputError, match="read from local files only"):
        make("mnist", tmp_path)
    folder = mnist_folder(tmp_path / "m")
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-5])
    with pytest.raises(InputError, match="train-images-idx3-ubyte: expected a whole idx file"):
        make("mnist", folder)


def test_a_folder_per_class(make, tmp_path):
    folder = class_folders(tmp_path / "in")
    (folder / "ring" / "notes.txt").write_text("x")
    np.save(folder / "spiral" / "n.npy", galaxy(60).astype("f4"))
    Image.fromarray((galaxy(61).astype("u2")) * 100).save(folder / "spiral" / "deep.png")
    (folder / "lost.png").write_bytes(png(galaxy(62)))
    write_fits(folder / "ring" / "f.fits", galaxy(63).astype("f4"), CRVAL1=30.0, CRVAL2=10.0)
    made = make("image_folder", folder, set_name="mine")
    assert made.notes["classes"] == {"ring": 4, "spiral": 5}
    assert dropped(made) == {"other file": 1, "no class": 1}
    table = made.table()
    assert set(table["survey"]) == {"mine"}
    assert table.filter(image="spiral/deep.png")["peak"].item() == 25500.0
    placed = table.filter(pl.col("ra_deg").is_not_null())
    assert placed["image"].to_list() == ["ring/f.fits"]
    assert placed["ra_deg"].item() == pytest.approx(30.0, abs=0.05)


def test_folders_of_parts(make, tmp_path):
    made = make("image_folder", class_folders(tmp_path / "in", parts=("train", "valid")))
    assert made.notes["splits"] == {"train": 6, "val": 6}
    assert made.notes["classes"] == {"ring": 6, "spiral": 6}


def test_colour_is_refused_or_turned_grey(make, tmp_path):
    folder = class_folders(tmp_path / "in")
    grey = galaxy(70)
    (folder / "ring" / "c.png").write_bytes(png(np.stack([grey] * 3, -1)))
    (folder / "ring" / "a.png").write_bytes(png(np.stack([grey, grey, grey, np.where(grey, 255, 0)], -1).astype("u1")))
    with pytest.raises(InputError, match="colour picture, expected one channel; colour=grey"):
        make("image_folder", folder)
    assert dropped(make("image_folder", folder, on_bad_image="skip")) == {"colour picture": 2}
    made = make("image_folder", folder, colour="grey")
    assert made.counts["colour_turned_grey"] == 2
    names = made.table()["image"].to_list()
    assert np.allclose(read(made)[names.index("ring/c.png")], grey, atol=1e-3)
    assert np.array_equal(np.isnan(read(made)[names.index("ring/a.png")]), grey == 0), "transparent is blank"


def test_sizes_differ(make, tmp_path):
    folder = class_folders(tmp_path / "in")
    large = np.arange(40 * 30, dtype="u2").reshape(40, 30)
    np.save(folder / "ring" / "large.npy", large)
    with pytest.raises(ConfigError, match=r"large.npy has 40 x 30 px, expected squares of one size.*window_px"):
        make("image_folder", folder)
    made = make("image_folder", folder, window_px=30)
    names, pixels = made.table()["image"].to_list(), read(made)
    assert np.array_equal(pixels[names.index("ring/large.npy")], large[5:35])
    small = pixels[names.index("ring/0.png")]
    assert np.array_equal(small[3:27, 3:27], galaxy(0))
    assert made.table()["nan_frac"].max() == pytest.approx(1 - 24**2 / 30**2)
    assert np.isnan(small).sum() == 30**2 - 24**2


def test_equal_pixels_share_a_group_but_blank_ones_do_not(make, tmp_path):
    folder = class_folders(tmp_path / "in")
    shutil.copy(folder / "ring" / "0.png", folder / "spiral" / "same.png")
    for i in range(2):
        (folder / "ring" / f"blank{i}.png").write_bytes(png(galaxy(0) * 0))
    made = make("image_folder", folder)
    group = dict(zip(made.table()["image"], open_labels(made).group, strict=True))
    assert group["ring/0.png"] == group["spiral/same.png"]
    assert len(set(group.values())) == len(group) - 1
    assert made.notes["same_pixels"]["names"] == [["ring/0.png", "spiral/same.png"]]
    assert made.notes["constant_images"]["number"] == 2


def test_chosen_classes(make, tmp_path):
    path = first_zip(tmp_path / "first.zip")
    made = make("radio_galaxy_dataset", path, classes=["FRI", "FRII"])
    assert open_labels(made).classes == ["FRI", "FRII"]
    assert dropped(made)["other class"] == 20
    with pytest.raises(InputError, match="no image of class FR3; there are Bent, Compact, FRI, FRII"):
        make("radio_galaxy_dataset", path, classes=["FRI", "FR3"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "mirabset"}, "format=mirabset is not known; choose one of: .*Did you mean 'mirabest'"),
        ({"files": "nowhere"}, "no such file or folder"),
        ({"format": "mirabest"}, "expected a whole npz"),
        ({"format": "table"}, "give cutouts=ID"),
        ({"format": "image_folder"}, "expected a folder with a folder per class"),
        ({"format": "radio_galaxy_dataset"}, "expected the zip file"),
    ],
)
def test_bad_requests(make, tmp_path, options, message):
    (tmp_path / "file").write_text("no")
    with pytest.raises(SkyloomError, match=message) as error:
        make(**{"format": "mirabest", "files": tmp_path / "file", **options})
    assert "\n" not in str(error.value)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(make, tmp_path, monkeypatch):
    import skyloom.step.labelled.images as module

    monkeypatch.setattr(module, "BATCH", 8)
    path = first_zip(tmp_path / "first.zip")
    whole, real_write, calls = make("radio_galaxy_dataset", path), module.write_shard, []

    def stop_at_third(folder, pixels, **options):
        calls.append(options["start"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        real_write(folder, pixels, **options)

    monkeypatch.setattr(module, "write_shard", stop_at_third)
    request = {"format": "radio_galaxy_dataset", "files": path, "store": tmp_path / "other"}
    with pytest.raises(KeyboardInterrupt):
        skyloom.curate("labelled", **request)
    again = skyloom.curate("labelled", **request)
    assert calls == [0, 8, 16, 16, 24, 32]
    assert (again.path / "manifest.json").read_bytes() == (whole.path / "manifest.json").read_bytes()
    assert np.array_equal(read(again), read(whole))


def test_pictures_that_are_nearly_all_zero_make_useful_inputs(make, tmp_path):
    made = make("mnist", mnist_folder(tmp_path / "m"))
    assert (made.table()["rms"] == 0).all(), "there is no noise to scale by"
    scaled = Preprocess(image_size_px=32)(torch.from_numpy(read(made)).unsqueeze(1))
    assert scaled.isfinite().all()
    assert (scaled.flatten(1).std(1) > 0.01).all()


def test_features_are_extracted_like_those_of_any_cutouts(make, tmp_path):
    import h5py

    made = make("mirabest", mirabest_npz(tmp_path / "m.npz"))
    options = {"backbone": "resnet18", "backbone.model": "test_resnet", "backbone.image_size_px": 32}
    features = skyloom.extract("features", cutouts=made, **options, store=tmp_path / "store")
    with h5py.File(features.file("features.h5")) as file:
        assert file["cutout_id"][:].tolist() == made.table()["cutout_id"].to_list()
        values = file["features"][:]
    assert np.isfinite(values).all()
    assert len(np.unique(values.round(6), axis=0)) == 16


# --- format=table ---------------------------------------------------------------------------------------------------


@pytest.fixture
def sky(tmp_path):
    """16 windows in a 4 x 4 grid of 6.4' steps."""
    return index(tmp_path / "store", grid(1024, 256, 256), length_px=1024)


def catalogue(path, sky, rows, **columns):
    """Positions and ids of some rows of the cutouts, and columns of labels."""
    table = sky.table()[rows]
    frame = pl.DataFrame({"cutout_id": table["cutout_id"], "ra": table["ra_deg"], "dec": table["dec_deg"], **columns})
    frame.write_parquet(path)
    return frame


def test_labels_by_id(make, tmp_path, sky):
    path = tmp_path / "t.parquet"
    catalogue(path, sky, [5, 2, 9], kind=["b", "a", "b"], part=["train", "valid", ""], k=[0, 1, None])
    made = make("table", path, cutouts=sky,
                sources={"labels": "kind", "id": "cutout_id", "split": "part", "fold": "k"})  # fmt: skip
    assert made.kind == "labels"
    labels = open_labels(made)
    assert labels.cutouts.id == sky.id
    assert labels.cutout_id.tolist() == sky.table()["cutout_id"].gather([2, 5, 9]).to_list()
    assert labels.label.tolist() == [0, 1, 1]
    assert labels.split.tolist() == ["val", "train", None]
    assert labels.fold.tolist() == [1, 0, -1]
    assert made.counts["cutouts_without_label"] == 13


@pytest.mark.parametrize("suffix", ["parquet", "csv", "fits", "vot"])
def test_labels_by_position_from_any_catalogue(make, tmp_path, sky, suffix):
    path = tmp_path / f"t.{suffix}"
    frame = catalogue(tmp_path / "t.parquet", sky, [0, 1, 2], kind=["x", "y", "-"])
    frame = frame.with_columns(dec=pl.col("dec") + 3 / 3600)
    far = pl.DataFrame({"cutout_id": [7], "ra": [10.0], "dec": [80.0], "kind": ["x"]})
    frame = pl.concat([frame, far.cast(frame.schema)])
    if suffix == "parquet":
        frame.write_parquet(path)
    elif suffix == "csv":
        frame.write_csv(path)
    else:
        from astropy.table import Table

        table = Table({name: frame[name].to_numpy() for name in ("ra", "dec")} | {"kind": frame["kind"].to_list()})
        table.write(path, format="votable" if suffix == "vot" else "fits")
    made = make("table", path, cutouts=sky, sources={"labels": "kind"})
    assert open_labels(made).cutout_id.tolist() == sky.table()["cutout_id"][:2].to_list()
    assert dropped(made) == {"no label": 1, "no cutout": 1}
    with pytest.raises(InputError, match=r"none of 4 rows labels any of the 16 cutouts .*nearest pair is 3 arcsec"):
        make("table", path, cutouts=sky, sources={"labels": "kind", "radius_arcsec": 1.0})


def test_the_nearest_row_wins_and_contradictions_lose(make, tmp_path, sky):
    path = tmp_path / "t.parquet"
    frame = catalogue(path, sky, [0, 0, 4, 4, 8, 8], kind=["far", "near", "p", "q", "r", "r"])
    frame.with_columns(dec=pl.col("dec") + pl.Series([2, 1, 0, 0, 0, 0]) / 3600).write_parquet(path)
    made = make("table", path, cutouts=sky, sources={"labels": "kind"})
    labels = open_labels(made)
    assert labels.cutout_id.tolist() == sky.table()["cutout_id"].gather([0, 8]).to_list()
    assert [labels.classes[i] for i in labels.label] == ["near", "r"]
    assert dropped(made) == {"contradicting": 2, "repeated": 1, "another is nearer": 1}
    assert made.counts["read"] == 6


def test_several_labels(make, tmp_path, sky):
    path = tmp_path / "t.parquet"
    catalogue(path, sky, [0, 1, 2], tags=["a|b", "b", ""], bent=[1, 0, 0], core=[1.0, None, 1.0])
    by_text = open_labels(make("table", path, cutouts=sky, sources={"labels": "tags", "separator": "|"}))
    assert by_text.multi_label
    assert by_text.targets.tolist() == [[True, True], [False, True]]
    options = {"labels": ["bent", "core"], "columns_are": "classes"}
    by_column = open_labels(make("table", path, cutouts=sky, sources=options))
    assert by_column.classes == ["bent", "core"]
    assert by_column.targets.tolist() == [[True, True], [False, False], [False, True]]
    with pytest.raises(InputError, match=r"column 'tags' holds 'a\|b', expected 0 or 1"):
        make("table", path, cutouts=sky, sources={"labels": "tags", "columns_are": "classes"})


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"labels": "knid"}, "sources.labels=knid is not a column; it has .*did you mean 'kind'"),
        ({}, "needs sources.labels=COLUMN"),
        ({"labels": "kind", "id": "other"}, "none of 2 rows labels any.*2 no cutout.*compare sources.id"),
        ({"labels": "kind", "id": "dec"}, "in which ids lose digits"),
        ({"labels": "kind", "id": "other", "key": "nope"}, "sources.key=nope is no column of the cutouts"),
        ({"labels": "kind", "split": "kind"}, "row 0 has the part 'x', expected one of train"),
        ({"labels": "kind", "fold": "kind"}, "row 0 has the fold 'x'"),
        ({"labels": "kind", "lables": 1}, "sources: option=lables is not known; .*Did you mean 'labels'"),
    ],
)
def test_bad_tables(make, tmp_path, sky, sources, message):
    path = tmp_path / "t.parquet"
    catalogue(path, sky, [0, 1], kind=["x", "y"], other=[1, 2])
    with pytest.raises(SkyloomError, match=message) as error:
        make("table", path, cutouts=sky, sources=sources)
    assert "\n" not in str(error.value)


# --- real data ------------------------------------------------------------------------------------------------------


@real
def test_the_real_first_zip(make):
    made = make("radio_galaxy_dataset", Path(REAL) / "morphology" / "radio_galaxy_dataset_first_png.zip")
    assert len(made.table()) == 2158
    assert made.notes["classes"] == {"FRI": 495, "FRII": 924, "Compact": 391, "Bent": 348}
    assert made.notes["splits"] == {"train": 1758, "val": 200, "test": 200}
    labels = open_labels(made)
    for part in ("val", "test"):
        assert labels.targets[labels.split == part].sum(0).tolist() == [50] * 4
    assert made.table()["ra_deg"].null_count() == 0


@real
def test_the_real_mirabest(make):
    made = make("mirabest", Path(REAL) / "morphology" / "mirabest_confident_792x150x150_u8.npz")
    assert made.notes["classes"] == {"FRI": 351, "FRII": 441}
    assert made.notes["splits"] == {"train": 704, "test": 88}
    assert made.notes["constant_images"]["number"] == 6
    assert np.unique(open_labels(made).fold).tolist() == [-1, *range(1, 9)]
