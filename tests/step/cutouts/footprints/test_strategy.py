"""step=cutouts match=ID: the same sky under the same ids, joined patches, tables by WCS, checks, clear refusals."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import skyloom
from make.joint_files import GRID, write_joint
from skyloom.datamodule.band_index import BandIndex, detections_of, truth_of
from skyloom.datamodule.table_input import OUTSIDE
from skyloom.errors import ConfigError, InputError
from skyloom.sky.geometry.footprint import outline
from skyloom.step.cutouts.footprints.check import empty_cutouts

BIG = {"window_px": 240, "border_px": 10}  # 4 cutouts of 70 LSST px on a tile of 500 px: room for lone stars


def cut(store, joint, *, grid=None, **options):
    roman = skyloom.curate("cutouts", survey="roman", images=joint.roman, **(grid or GRID), store=store)
    return roman, skyloom.curate("cutouts", survey="lsst", images=joint.lsst, match=roman, store=store, **options)


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    return write_joint(tmp_path_factory.mktemp("joint"), patch_overlap_px=6)  # too little for patches to hold all


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def pair(joint, store):
    return cut(store, joint)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return write_joint(tmp_path_factory.mktemp("large"), tile_px=500, seed=3)


def copied(joint, folder):
    """The same survey in a folder of its own, to spoil."""
    shutil.copytree(joint.roman, folder / "roman")
    shutil.copytree(joint.lsst, folder / "lsst")
    return type(joint)(folder / "roman", folder / "lsst", joint.tiles, joint.patches, joint.sources)


def tract_pixels(joint, band):
    """All patches of the tract pasted into one array by astropy, and its WCS."""
    hdus = {}
    for path in sorted(joint.lsst.glob(f"tract3256_*_band{band}.fits")):
        with fits.open(path) as file:
            hdus[path.name] = file[1].data.copy(), WCS(file[1].header)
    first = hdus[f"tract3256_patch0_0_band{band}.fits"][1]
    whole = np.full((200, 200), np.nan, np.float32)
    for data, wcs in hdus.values():
        col0, row0 = np.rint(first.wcs.crpix - wcs.wcs.crpix).astype(int)
        whole[row0 : row0 + data.shape[0], col0 : col0 + data.shape[1]] = data
    return whole, first


def test_each_cutout_has_the_name_of_the_one_it_was_matched_to(pair):
    roman, lsst = (one.table() for one in pair)
    keys = ["cutout_id", "tile", "number", "file_name"]
    assert lsst.select(keys).equals(roman.select(keys))
    assert set(lsst["survey"]) == {"lsst"}
    assert pair[1].notes["match"] == pair[0].id


def test_each_cutout_shows_the_whole_footprint_about_its_middle(pair):
    roman, lsst = (BandIndex(one) for one in pair)
    for row in range(len(roman)):
        height, width = roman.shape(row)
        x, y = outline(*(np.array([value]) for value in (0, 0, height, width)))
        px, py = lsst.wcs(row).world_to_pixel(roman.wcs(row).pixel_to_world(x, y))
        rows, cols = lsst.shape(row)
        assert px.min() >= -0.501
        assert py.min() >= -0.501
        assert px.max() <= cols - 0.499
        assert py.max() <= rows - 0.499
        assert px.mean() == pytest.approx((cols - 1) / 2, abs=1.01)
        centre = lsst.table.row(row, named=True)
        at = lsst.wcs(row).world_to_pixel_values(centre["ra_deg"], centre["dec_deg"])
        assert np.allclose(at, [(cols - 1) / 2, (rows - 1) / 2], atol=1e-6)


def test_all_have_one_shape_or_each_that_of_its_footprint(pair, joint, store):
    sides = pair[1].table().select("height_px", "width_px", "size_px").unique()
    assert sides.height == 1
    side = sides["height_px"][0]
    _, tight = cut(store, joint, shape="footprint")
    table = tight.table()
    assert table.select(pl.max_horizontal("height_px", "width_px").max()).item() == side
    assert table["height_px"].min() in (19, 20)  # 64 * 0.0575 / 0.2 = 18.4 px touch 19 or 20


def test_a_given_side_is_taken_when_footprints_fit_into_it(pair, joint, store):
    side = pair[1].table()["size_px"][0]
    assert cut(store, joint, side_px=30)[1].table()["size_px"].unique().to_list() == [30]
    with pytest.raises(ConfigError, match=rf"side_px=10: the longest side of a footprint is {side} px"):
        cut(store, joint, side_px=10)


def test_patches_are_joined_by_whole_pixels(pair, joint):
    lsst = BandIndex(pair[1])
    pieces = pair[1].table("pieces.parquet")
    joined = pieces.group_by("cutout_id").len().filter(pl.col("len") > 1)
    assert 0 < len(joined) == pair[1].counts["joined"] < 9
    check = json.loads(pair[1].file("check.json").read_text())
    assert len(check["joined_from_several_images"]) == len(joined)
    noise_px = 0
    for band in "uy":
        whole, first = tract_pixels(joint, band)
        for row in range(len(lsst)):
            x, y = np.rint(first.world_to_pixel(lsst.wcs(row).pixel_to_world(0, 0))).astype(int)
            found = lsst.read(row, [band])[0]
            truth = whole[y : y + found.shape[0], x : x + found.shape[1]]
            assert np.array_equal(found, truth)
            noise_px += found.size
    assert noise_px > 0


@pytest.mark.parametrize("place", [{"ra_deg": 359.9999}, {"ra_deg": 12.0, "dec_deg": -89.995}])
def test_objects_are_in_the_cutouts_that_show_them_also_at_ra_0_and_near_a_pole(tmp_path, place):
    joint = write_joint(tmp_path / "sky", **place)
    _, lsst = cut(tmp_path / "store", joint)
    index, tile = BandIndex(lsst), joint.tiles[0]
    truth, detections = truth_of(lsst, tile), detections_of(lsst, tile)
    good = joint.sources.filter(pl.col("kind") < 2)
    total = seen = 0
    for row, cutout_id in enumerate(index.cutout_id):
        height, width = index.shape(row)
        x, y = index.wcs(row).world_to_pixel_values(good["ra"], good["dec"])
        within = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        own = truth.filter(pl.col("cutout_id") == cutout_id)
        order = np.argsort([int(name.split("_")[-1]) for name in own["object_id"]])
        assert [int(own["object_id"][int(i)].split("_")[-1]) for i in order] == good["number"].to_numpy()[
            within
        ].tolist()
        assert np.allclose(own["x_px"].to_numpy()[order], x[within], atol=1e-6)
        assert np.allclose(own["y_px"].to_numpy()[order], y[within], atol=1e-6)
        total += int(within.sum())
        seen += detections.filter(pl.col("cutout_id") == cutout_id).height
    assert total == len(truth) > 20
    assert seen == len(detections) > 20
    assert truth["category_id"].unique().sort().to_list() == [0, 1]
    assert {"size_disk_true", "mag_true_i", "flux_y"} <= set(truth.columns)
    assert detections["detection_id"].equals(detections["objectId"].rename("detection_id"))


def test_every_row_of_the_tables_is_kept_or_left_out_for_one_reason(pair):
    counts = pair[1].counts
    dropped = {reason: entry["number"] for reason, entry in counts["dropped"].items()}
    for table, one in (("truth", "true object"), ("detections", "detection")):
        gone = sum(number for reason, number in dropped.items() if reason.startswith(one))
        assert counts[f"{table}_read"] == counts[f"{table}_kept"] + gone
        assert counts[f"{table}_in_cutouts"] >= counts[f"{table}_kept"] > 0
    assert counts["read"] == counts["kept"] == 9
    assert dropped["true object of other class"] >= 1 or "true object outside cutouts" in dropped


def test_an_object_listed_twice_is_taken_once(tmp_path, joint):
    own = copied(joint, tmp_path / "sky")
    path = own.lsst / "dc2_truth_summary.parquet"
    table = pl.read_parquet(path)
    pl.concat([table, table]).write_parquet(path)
    _, lsst = cut(tmp_path / "store", own)
    counts = lsst.counts
    assert counts["truth_read"] == 2 * len(table)
    assert counts["dropped"]["true object repeated"]["number"] == counts["truth_kept"]
    truth = truth_of(lsst, joint.tiles[0])
    assert truth.select("cutout_id", "object_id").is_unique().all()


def test_cutouts_that_no_patch_shows_are_dropped_and_named(tmp_path, joint):
    own = copied(joint, tmp_path / "sky")
    for path in own.lsst.glob("tract3256_patch1_?_band*.fits"):
        path.unlink()
    _, lsst = cut(tmp_path / "store", own)
    gone = {reason: lsst.counts["dropped"][reason]["number"] for reason in ("no image", "partly covered")}
    assert min(gone.values()) > 0
    assert sum(gone.values()) + lsst.counts["kept"] == lsst.counts["read"] == 9
    check = json.loads(lsst.file("check.json").read_text())
    assert {reason: len(names) for reason, names in check["missing"].items()} == gone
    assert np.isfinite(BandIndex(lsst).read(0)).all()
    _, more = cut(tmp_path / "store", own, min_coverage=0.05)
    assert more.counts["kept"] == 9 - gone["no image"]
    index, check = BandIndex(more), json.loads(more.file("check.json").read_text())
    for name, covered in check["partly_covered"].items():
        row = int(np.flatnonzero(more.table()["file_name"] == name)[0])
        assert np.isfinite(index.read(row, ["u"])).mean() == pytest.approx(covered)


def test_surveys_of_different_skies_are_refused(tmp_path, joint):
    other = write_joint(tmp_path / "sky", ra_deg=80.0)
    roman = skyloom.curate("cutouts", survey="roman", images=joint.roman, **GRID, store=tmp_path / "store")
    with pytest.raises(
        InputError, match=r"none of the 9 cutouts of \w+ lies on the images of survey lsst \(9 no image"
    ):
        skyloom.curate("cutouts", survey="lsst", images=other.lsst, match=roman, store=tmp_path / "store")


def test_a_table_without_a_needed_column_is_refused_by_name(tmp_path, joint):
    own = copied(joint, tmp_path / "sky")
    path = own.lsst / "dc2_object_dr6.parquet"
    pl.read_parquet(path).drop("mag_z").write_parquet(path)
    with pytest.raises(
        InputError, match=r"dc2_object_dr6.parquet: expected the columns .*, mag_z is not among"
    ) as error:
        cut(tmp_path / "store", own)
    assert "\n" not in str(error.value)


def test_bands_of_a_patch_on_different_pixels_are_refused_or_left_out(tmp_path, joint):
    own = copied(joint, tmp_path / "sky")
    path = own.lsst / "tract3256_patch1_1_bandr.fits"
    with fits.open(path) as hdus:
        fits.HDUList([hdus[0], fits.ImageHDU(hdus[1].data[:-2], hdus[1].header)]).writeto(path, overwrite=True)
    with pytest.raises(InputError, match=r"patch1_1_bandr.fits: band r of tile tract3256_patch1_1 has"):
        cut(tmp_path / "store", own)
    _, lsst = cut(tmp_path / "store", own, on_bad_image="skip")
    assert lsst.counts["dropped"]["bad tile"]["number"] == 1
    assert "tract3256_patch1_1" not in set(lsst.table("images.parquet")["image"])


def test_an_empty_band_is_reported_and_gates(tmp_path, joint, pair):
    assert json.loads(pair[1].file("check.json").read_text())["empty_bands"] == {}
    own = copied(joint, tmp_path / "sky")
    for band, value in (("u", 0.0), ("g", np.nan)):
        with fits.open(own.lsst / f"tract3256_patch0_0_band{band}.fits", mode="update") as hdus:
            hdus[1].data[:] = value
    _, lsst = cut(tmp_path / "store", own)
    bad = empty_cutouts(lsst)
    index, table = BandIndex(lsst), lsst.table()
    expected = []
    for row in range(len(index)):
        pixels = index.read(row, ["u", "g"])
        if not (np.isfinite(pixels) & (pixels != 0)).any(axis=(1, 2)).any():
            expected.append(int(index.cutout_id[row]))
    assert bad["cutout_id"].to_list() == expected
    assert set(bad["reason"]) == {"empty band u, g"}
    assert lsst.notes["empty_bands"]["number"] == len(bad) == 1
    assert table.filter(pl.col("cutout_id") == expected[0])["number"].item() == 0


def test_positions_of_bright_objects_agree_or_the_offset_is_measured(tmp_path, large):
    _, lsst = cut(tmp_path / "store", large, grid=BIG, max_offset_px=0.2)
    offsets = json.loads(lsst.file("check.json").read_text())["position_offsets"]
    assert offsets["all"]["objects"] >= 8
    assert np.hypot(offsets["all"]["median_x_px"], offsets["all"]["median_y_px"]) < 0.05
    assert lsst.notes["position_offsets"] == offsets["all"]
    own = copied(large, tmp_path / "sky")
    path = own.lsst / "dc2_truth_summary.parquet"
    pl.read_parquet(path).with_columns(pl.col("dec") + 0.2 / 3600).write_parquet(path)  # a pixel to the north
    _, lsst = cut(tmp_path / "store", own, grid=BIG)
    offsets = json.loads(lsst.file("check.json").read_text())["position_offsets"]
    assert offsets["tiles"][large.tiles[0]]["median_y_px"] == pytest.approx(-1.0, abs=0.05)
    assert offsets["all"]["median_x_px"] == pytest.approx(0.0, abs=0.05)
    with pytest.raises(InputError, match=r"bright objects lie 1\.\d\d px from where catalogue and WCS put them"):
        cut(tmp_path / "store", own, grid=BIG, max_offset_px=0.2)


def test_an_interrupted_run_goes_on_and_comes_to_the_same(tmp_path, joint, pair, monkeypatch):
    from skyloom.step.cutouts.footprints import strategy as footprints

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(footprints, "write_tables", stop)
        with pytest.raises(KeyboardInterrupt):
            cut(tmp_path / "store", joint)
    _, again = cut(tmp_path / "store", joint)
    assert again.id == pair[1].id
    assert again.history["attempts"] == 2
    assert again.manifest["files"] == pair[1].manifest["files"]


def test_a_margin_lists_the_true_objects_around_each_cutout(pair, joint, store):
    lsst, margin_px = pair[1], 10
    side = int(lsst.table()["size_px"][0])
    near = cut(store, joint, truth_margin_px=margin_px)[1]
    wide = cut(store, joint, side_px=side + 2 * margin_px, min_coverage=0)[1]
    assert cut(store, joint, truth_margin_px=0)[1].id == lsst.id != near.id
    ids = lsst.table()["cutout_id"].to_list()
    for tile in lsst.table()["tile"].unique():
        within, around = truth_of(lsst, tile), truth_of(near, tile)
        assert around.filter(~pl.col(OUTSIDE)).drop(OUTSIDE).equals(within)
        larger = truth_of(wide, tile).filter(pl.col("cutout_id").is_in(ids))
        assert around.select("cutout_id", "object_id").equals(larger.select("cutout_id", "object_id"))
        np.testing.assert_allclose(around["x_px"], larger["x_px"] - margin_px, atol=1e-6)
        assert around[OUTSIDE].any()
        assert detections_of(near, tile).equals(detections_of(lsst, tile))
    assert near.counts["truth_in_cutouts"] == lsst.counts["truth_in_cutouts"]
    assert near.counts["truth_beside_cutouts"] > 0
