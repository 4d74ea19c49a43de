"""Bad input at each link after the index, through the scripts: one line that says what to do, and nothing left."""

import os
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import skyloom
from make.artifacts import features_artifact
from make.forked_script import call, running
from make.http import FileServer
from make.survey import sky, write_image
from skyloom.store import Store

SMALL = ["backbone.model=test_resnet", "backbone.image_size_px=32", "device=cpu"]
DOWNLOAD = ["curate.py", "step=download", "survey=lotss", "files=[mosaic-blanked.fits]", "retries=1", "retry_wait_s=0"]


def script(tmp_path, *words):
    places = [f"paths.store={tmp_path / 'store'}", f"paths.runs={tmp_path / 'runs'}"]
    return call(running(), *words, *places, cwd=tmp_path)


def refused(tmp_path, *words, says, leaves=()):
    """The command ends with 2 and one line that says all of these; the store is as it was."""
    store = tmp_path / "store"
    before = {path for path in store.rglob("*") if path.name != ".partial" and path.suffix != ".lock"}
    done = script(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == errors[0]
    for text in says:
        assert text in errors[0], f"{text!r} is not in: {errors[0]}"
    after = {path for path in store.rglob("*") if path.name != ".partial" and path.suffix != ".lock"}
    assert {path.name for path in after - before} == set(leaves)


def cutouts(tmp_path, **options):
    given = {"images": tmp_path / "in", "window_px": 32, "threads": 1, **options}
    return skyloom.curate("cutouts", store=tmp_path / "store", **given)


@pytest.fixture
def index(tmp_path):
    """18 windows of two images."""
    for name in "ab":
        write_image(tmp_path / "in" / f"{name}.fits", sky(64, 64, seed=ord(name)))
    return cutouts(tmp_path)


@pytest.fixture
def features(tmp_path, index):
    ids = index.table()["cutout_id"].to_numpy()
    return features_artifact(tmp_path / "store", np.random.default_rng(0).normal(size=(len(ids), 4)), ids)


def clusters(features, number=3):
    levels = [{"clusters": number, "sample_size": 2, "resamples": 1}]
    return skyloom.curate("cluster", features=features, levels=levels, store=features.path.parents[1])


READERS = {
    "features": ["extract.py", "product=features", *SMALL],
    "pack": ["curate.py", "step=pack", "workers=1"],
    "stats": ["curate.py", "step=stats"],
}


@pytest.mark.parametrize("reader", READERS)
def test_a_mosaic_that_was_replaced_after_indexing(tmp_path, index, reader):
    (tmp_path / "in" / "b.fits").unlink()
    write_image(tmp_path / "in" / "b.fits", sky(64, 64, seed=99))
    says = ["b.fits", index.id, "content has changed", "step=cutouts again"]
    refused(tmp_path, *READERS[reader], f"cutouts={index.id}", says=says)


@pytest.mark.parametrize("reader", READERS)
def test_a_mosaic_that_is_gone_from_disk(tmp_path, index, reader):
    (tmp_path / "in" / "b.fits").unlink()
    says = ["b.fits", index.id, "no longer at", "paths.images=FOLDER"]
    refused(tmp_path, *READERS[reader], f"cutouts={index.id}", says=says)


@pytest.mark.parametrize("reader", ["features", "stats"])
def test_a_shard_that_was_truncated(tmp_path, index, reader):
    packed = skyloom.curate("pack", cutouts=index, shard_rows=9, workers=1, store=tmp_path / "store")
    shard = packed.file("pixels.zarr") / "c.1.0.0"
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-100])
    says = ["c.1.0.0", "bytes, the manifest says", "pack again"]
    refused(tmp_path, *READERS[reader], f"cutouts={packed.id}", says=says)


def test_features_whose_cutouts_are_gone_from_the_store(tmp_path, index):
    found = skyloom.extract(
        "features", cutouts=index, store=tmp_path / "store",
        **{"backbone.model": "test_resnet", "backbone.image_size_px": 32, "device": "cpu"},
    )  # fmt: skip
    selection = skyloom.curate("subsample", clusters=clusters(found), target_size=6, store=tmp_path / "store")
    shutil.rmtree(index.path)
    refused(tmp_path, *READERS["features"], f"cutouts={index.id}", says=[index.id])
    refused(
        tmp_path,
        "analyze.py",
        "report=selection",
        f"selection={selection.id}",
        says=[index.id, found.id, "is not in the store"],
    )


def test_features_of_which_the_file_is_gone(tmp_path, features):
    features.file("features.h5").unlink()
    refused(
        tmp_path, "curate.py", "step=cluster", f"features={features.id}", says=["features.h5", features.id, "is gone"]
    )


@pytest.mark.parametrize("step", ["cluster", "neardup"])
def test_features_that_are_not_finite(tmp_path, step):
    x = np.random.default_rng(0).normal(size=(40, 4))
    x[17, 2] = np.nan
    bad = features_artifact(tmp_path / "store", x)
    options = ["levels=[{clusters: 3, sample_size: 2, resamples: 1}]"] if step == "cluster" else ["own_clusters=2"]
    refused(tmp_path, "curate.py", f"step={step}", f"features={bad.id}", *options, says=["finite", "17"])


def test_more_clusters_than_rows(tmp_path, features):
    says = ["19", "18"]
    refused(tmp_path, "curate.py", "step=cluster", f"features={features.id}",
            "levels=[{clusters: 19, sample_size: 2, resamples: 1}]", says=says)  # fmt: skip
    refused(tmp_path, "curate.py", "step=neardup", f"features={features.id}", "own_clusters=19", says=says)


@pytest.mark.parametrize(("target", "says"), [(0, ["target_size=0", "greater than 0"]), (19, ["target_size=19", "18"])])
def test_impossible_targets(tmp_path, features, target, says):
    made = clusters(features)
    refused(tmp_path, "curate.py", "step=subsample", f"clusters={made.id}", f"target_size={target}", says=says)


def test_a_catalogue_with_a_renamed_column(tmp_path, index):
    pl.DataFrame({"Source": ["x"], "RA_new": [123.0], "DEC": [45.0]}).write_csv(tmp_path / "positions.csv")
    words = ["curate.py", "step=cutouts", "images=in", "window_px=32", "strategy=catalog", "catalog=positions.csv"]
    refused(tmp_path, *words, says=["positions.csv", "sources.ra=", "Source, RA_new, DEC"])
    refused(tmp_path, *words, "sources.ra=RA", "sources.dec=DEC", says=["sources.ra=RA is not a column"])


def test_a_folder_without_mosaics(tmp_path):
    (tmp_path / "in" / "mosaics").mkdir(parents=True)
    words = ["curate.py", "step=cutouts", "images=in", "survey=lotss"]
    refused(tmp_path, *words, says=["in: no image", "mosaics/*/mosaic-blanked.fits", "Check the path"])


def test_a_mosaic_without_a_good_pixel(tmp_path):
    write_image(tmp_path / "in" / "mosaics" / "P000+23" / "mosaic-blanked.fits", sky(64, 64))
    write_image(tmp_path / "in" / "mosaics" / "P000+31" / "mosaic-blanked.fits", np.full((64, 64), np.nan))
    words = ["curate.py", "step=cutouts", "images=in", "survey=lotss", "window_px=32"]
    # The piece of the first mosaic waits for the next try.
    done = script(tmp_path, *words)
    assert done.returncode == 2
    assert "P000+31/mosaic-blanked.fits has only blank (NaN) pixels" in done.stderr
    assert "on_bad_image=skip" in done.stderr
    assert not list(Store(tmp_path / "store"))
    done = script(tmp_path, *words, "on_bad_image=skip")
    assert done.returncode == 0, done.stderr
    assert Store(tmp_path / "store").open(done.stdout.strip()).counts["dropped"]["bad image"]["number"] == 1


def test_two_mosaics_of_one_name(tmp_path):
    for part in "xy":
        write_image(tmp_path / part / "mosaics" / "P000+23" / "mosaic-blanked.fits", sky(64, 64, seed=ord(part)))
    says = ["'P000+23'", "/x/mosaics/P000+23/mosaic-blanked.fits", "/y/mosaics/P000+23/mosaic-blanked.fits"]
    refused(tmp_path, "curate.py", "step=cutouts", "images=[x,y]", "survey=lotss", "window_px=32", says=says)


def test_merge_of_windows_that_do_not_fit_together(tmp_path, index):
    other = cutouts(tmp_path, window_px=48)
    says = ["different window sizes", f"{index.id} 32 px", f"{other.id} 48 px", "allow_mixed_sizes=true"]
    refused(tmp_path, "curate.py", "step=merge", f"cutouts=[{index.id},{other.id}]", says=says)


def test_a_download_of_what_is_not_there_and_of_another_checksum(tmp_path):
    write_image(tmp_path / "remote" / "P000+23" / "mosaic-blanked.fits", sky(64, 64))
    (tmp_path / "sums").write_text(f"P000+23/mosaic-blanked.fits {'0' * 64}\n")
    with FileServer(tmp_path / "remote") as remote:
        words = [*DOWNLOAD, f"survey.base_url={remote.url}"]
        says = ["1 of 2 files are not on the server", "P000+31/mosaic-blanked.fits", "on_missing=skip"]
        refused(tmp_path, *words, "mosaics=[P000+23,P000+31]", says=says)
        says = ["has sha256", "sums says 0000", "has arrived, but cannot be used"]
        refused(tmp_path, *words, "mosaics=[P000+23]", "checksums=sums", says=says)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root on Linux to mount a small tmpfs")
def test_a_disk_that_is_full_at_pack(tmp_path):
    write_image(tmp_path / "in" / "a.fits", np.random.default_rng(0).normal(size=(512, 512)))
    (tmp_path / "store").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    mounted = subprocess.run([*mount, "size=1m", "none", str(tmp_path / "store")], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        made = cutouts(tmp_path)
        words = ["curate.py", "step=pack", f"cutouts={made.id}", "shard_rows=64", "workers=1"]
        done = script(tmp_path, *words)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: the disk is full while writing cutouts")
        assert [artifact.id for artifact in Store(tmp_path / "store")] == [made.id]
        subprocess.run([*mount, "remount,size=100m", "none", str(tmp_path / "store")], check=True)
        done = script(tmp_path, *words)
        assert done.returncode == 0, done.stderr
        assert Store(tmp_path / "store").open(done.stdout.strip()).verify() == []
    finally:
        subprocess.run(["umount", str(tmp_path / "store")], check=True)
