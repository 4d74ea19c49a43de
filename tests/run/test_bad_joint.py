"""Bad input at each step of the Roman and Rubin chain, through the scripts: one line, exit code 2, nothing left."""

import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.table import Table, vstack

from make.forked_script import call, running
from make.joint_files import GRID, write_joint
from skyloom.store import Store

ROMAN = ["curate.py", "step=cutouts", "survey=roman", "images=in/roman", *(f"{key}={n}" for key, n in GRID.items())]


@pytest.fixture
def joint(tmp_path):
    return write_joint(tmp_path / "in")


def script(tmp_path, *words):
    places = [f"paths.store={tmp_path / 'store'}", f"paths.runs={tmp_path / 'runs'}"]
    return call(running(), *words, *places, cwd=tmp_path)


def made(tmp_path, *words):
    done = script(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    return Store(tmp_path / "store").open(done.stdout.strip())


def refused(tmp_path, *words, says):
    """The command ends with 2 and one line that says all of these; no artifact is there that was not."""
    before = [artifact.id for artifact in Store(tmp_path / "store")]
    done = script(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == errors[0]
    for text in says:
        assert text in errors[0], f"{text!r} is not in: {errors[0]}"
    assert [artifact.id for artifact in Store(tmp_path / "store")] == before


def lsst(roman):
    return ["curate.py", "step=cutouts", "survey=lsst", "images=in/lsst", f"match={roman.id}"]


def annotate(cutouts):
    return ["curate.py", "step=annotate", "survey=lsst", f"cutouts={cutouts.id}"]


def changed(path, change):
    """Write a Parquet table again, changed."""
    change(pl.read_parquet(path)).write_parquet(path)


def one_file(folder, pattern):
    (path,) = folder.rglob(pattern)
    return path


def test_a_missing_band_file(tmp_path, joint):
    roman = made(tmp_path, *ROMAN)
    one_file(joint.roman, "dc2_J129_*").unlink()
    one_file(joint.lsst, "*patch1_0_bandz*").unlink()
    says = [f"tile {joint.tiles[0]}: band J129 is missing", "dc2_J129_", "on_missing=skip"]
    refused(tmp_path, *ROMAN, says=says)
    refused(tmp_path, *lsst(roman), says=["patch1_0: band z is missing", "1 of 4 tiles", "on_missing=skip"])


def test_bands_of_different_shapes(tmp_path, joint):
    roman = made(tmp_path, *ROMAN)
    for path, number in ((one_file(joint.roman, "dc2_H158_*"), 1), (one_file(joint.lsst, "*patch0_1_bandi*"), 1)):
        with fits.open(path) as hdus:
            hdus[number].data = hdus[number].data[:-3]
            hdus.writeto(path, overwrite=True)
    refused(tmp_path, *ROMAN, says=["dc2_H158_", "197 x 200 px", "200 x 200 px"])
    refused(tmp_path, *lsst(roman), says=["patch0_1_bandi", "all bands must have the same pixels"])


def test_tiles_of_different_shapes_have_grids_of_their_own(tmp_path):
    joint = write_joint(tmp_path / "in", tiles=2)
    for path in joint.roman.rglob(f"dc2_[YJH]*_{joint.tiles[0]}.fits"):
        with fits.open(path) as hdus:
            for hdu in hdus[1:]:
                hdu.data = hdu.data[:150]
            hdus.writeto(path, overwrite=True)
    found = dict(made(tmp_path, *ROMAN).table().group_by("tile").len().iter_rows())
    assert found == {joint.tiles[0]: 6, joint.tiles[1]: 9}


def test_a_wcs_that_does_not_overlap_or_is_none(tmp_path, joint):
    roman = made(tmp_path, *ROMAN)
    for path in joint.lsst.glob("*.fits"):
        with fits.open(path, mode="update") as hdus:
            for hdu in hdus[1:]:
                hdu.header["CRVAL1"] += 5.0
    refused(tmp_path, *lsst(roman), says=[f"none of the 9 cutouts of {roman.id} lies on the images of survey lsst"])
    for path in joint.lsst.glob("*patch0_0*.fits"):
        with fits.open(path, mode="update") as hdus:
            for hdu in hdus[1:]:
                del hdu.header["CTYPE1"], hdu.header["CTYPE2"]
    refused(tmp_path, *lsst(roman), says=["patch0_0_bandu", "has no celestial WCS"])


def test_a_truth_table_without_a_needed_column(tmp_path, joint):
    roman = made(tmp_path, *ROMAN)
    path = one_file(joint.roman, "dc2_index_*")
    table = Table.read(path)
    table.remove_column("gal_star")
    table.write(path, overwrite=True)
    refused(tmp_path, *ROMAN, says=["dc2_index_", "found no gal_star among", "survey.truth.columns"])
    truth = one_file(joint.lsst, "*truth*")
    changed(truth, lambda table: table.drop("size_disk_true"))
    cutouts = made(tmp_path, *lsst(roman))  # does not need sizes
    refused(tmp_path, *annotate(cutouts), says=["no column size_disk_true", "size_disk_arcsec", "survey.truth.columns"])
    changed(truth, lambda table: table.drop("truth_type"))
    refused(tmp_path, *lsst(roman), says=["dc2_truth_summary.parquet", "truth_type is not among"])


def test_sizes_that_are_negative_or_missing_and_ids_that_are_repeated_are_counted(tmp_path, joint):
    roman = made(tmp_path, *ROMAN)
    truth = one_file(joint.lsst, "*truth*")
    before = made(tmp_path, *annotate(made(tmp_path, *lsst(roman)))).counts
    galaxy = pl.col("truth_type") == 1
    names = pl.read_parquet(truth).filter(galaxy, pl.col("mag_i") < 25)["id"].to_list()
    size = {name: value for name, value in zip(names, (-1.0, float("nan"), None, 0.0), strict=False)}

    def change(table):
        sizes = [size.get(name, value) for name, value in table.select("id", "size_disk_true").iter_rows()]
        table = table.with_columns(size_disk_true=pl.Series(sizes, dtype=pl.Float64))
        return pl.concat([table, table.filter(pl.col("id").is_in(names[4:7]))])

    changed(truth, change)
    cutouts = made(tmp_path, *lsst(roman))
    assert cutouts.counts["dropped"]["true object repeated"]["number"] > 0
    counts = made(tmp_path, *annotate(cutouts)).counts
    assert counts["read"] == before["read"]
    assert counts["dropped"]["bad_shape"]["number"] > 0
    assert "expected major >= minor > 0" in counts["dropped"]["bad_shape"]["examples"][0]
    assert counts["read"] == counts["kept"] + sum(entry["number"] for entry in counts["dropped"].values())
    index = one_file(joint.roman, "dc2_index_*")
    table = Table.read(index)
    vstack([table, table[:40]]).write(index, overwrite=True)
    again = made(tmp_path, *ROMAN)
    assert again.counts["truth_kept"] == roman.counts["truth_kept"]
    assert again.counts["dropped"]["true object repeated"]["number"] == roman.counts["truth_kept"] + _other(roman)


def _other(roman):
    counts = roman.counts["dropped"]
    return counts.get("true object of other class", {"number": 0})["number"]


def test_artifacts_that_do_not_belong_together(tmp_path, joint):
    roman = made(tmp_path, *ROMAN)
    cutouts = made(tmp_path, *lsst(roman))
    words = ["curate.py", "step=annotate", "survey=roman", f"cutouts={cutouts.id}"]
    refused(tmp_path, *words, says=[f"cutouts {cutouts.id} are of survey lsst", "give survey=lsst"])
    other = made(tmp_path, *[word.replace("window_px=64", "window_px=60") for word in ROMAN])
    report = made(tmp_path, "curate.py", "step=integrity", f"cutouts={other.id}")
    found = made(tmp_path, *annotate(cutouts))
    words = ["curate.py", "step=assemble", f"annotations={found.id}", "by=cutout"]
    refused(tmp_path, *words, f"integrity=[{report.id}]", says=[report.id, other.id])


def test_an_image_that_was_replaced_after_cutting(tmp_path, joint):
    cutouts = made(tmp_path, *lsst(made(tmp_path, *ROMAN)))
    path = one_file(joint.lsst, "*patch0_0_bandi*")
    with fits.open(path) as hdus:
        hdus[1].data = hdus[1].data + np.float32(1)
        hdus.writeto(path, overwrite=True)
    refused(tmp_path, *annotate(cutouts), says=["patch0_0_bandi", "content has changed"])


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root on Linux to mount a small tmpfs")
def test_a_disk_that_is_full(tmp_path, joint):
    (tmp_path / "store").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    mounted = subprocess.run([*mount, "size=10m", "none", str(tmp_path / "store")], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        cutouts = made(tmp_path, *lsst(made(tmp_path, *ROMAN)))
        before = [artifact.id for artifact in Store(tmp_path / "store")]
        free = os.statvfs(tmp_path / "store")
        filler = tmp_path / "store" / "filler"
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 8192))
        done = script(tmp_path, *annotate(cutouts))
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: the disk is full while writing annotations")
        assert [artifact.id for artifact in Store(tmp_path / "store")] == before
        filler.unlink()
        assert made(tmp_path, *annotate(cutouts)).verify() == []
    finally:
        subprocess.run(["umount", str(tmp_path / "store")], check=True)


def test_a_survey_that_cannot_be_simulated(tmp_path):
    words = ["curate.py", "step=simulate", "survey=roman_lsst", "tile_px=200"]
    refused(tmp_path, *words, "overlap_px=200", says=["overlap_px=200", "expected less than a tile's side"])
    refused(tmp_path, *words, "dec_deg=-100", says=["dec_deg", "-90"])


def test_parts_without_an_image_and_subsets_that_are_too_large(tmp_path, joint):
    found = made(tmp_path, *annotate(made(tmp_path, *lsst(made(tmp_path, *ROMAN)))))
    words = ["curate.py", "step=assemble", f"annotations={found.id}", "by=cutout"]
    refused(tmp_path, *words, says=["no image of 9 is left for val", "seed"])
    whole = "fractions={train:1,val:0,test:0}"
    refused(
        tmp_path,
        *words,
        whole,
        "subsets=[{name:many,part:train,number:30000}]",
        says=["many wants 30000 images of part"],
    )
    refused(tmp_path, *words, "fractions={train:0.7,val:0.1,test:0.1}", says=["fractions"])
    refused(tmp_path, *words, "cutouts=nothing", says=["nothing"])
