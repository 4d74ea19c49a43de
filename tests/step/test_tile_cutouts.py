"""step=cutouts of a survey with bands: windows, tables by the true footprint, counts that add up, clear refusals."""

import pickle

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.table import Table
from omegaconf import OmegaConf

import skyloom
from make.curated import fake_cutouts, fake_images
from make.joint_files import GRID, TILE_PX, write_joint
from skyloom.datamodule.band_index import BandIndex, detections_of, truth_of
from skyloom.datamodule.image_files import tile_file
from skyloom.errors import ConfigError, InputError
from skyloom.run.notebook import compose
from skyloom.sky.survey.facts import Survey
from skyloom.step.cutouts.tiles import step as tile_cutouts
from skyloom.step.cutouts.tiles.pieces import TileTask, cut_tile
from skyloom.step.tiles import open_tiles
from skyloom.store import Store


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    return write_joint(tmp_path_factory.mktemp("joint"), tiles=2)


def cut(store, images, **options):
    return skyloom.curate("cutouts", **{"survey": "roman", "images": images, **GRID, **options}, store=store)


@pytest.fixture(scope="module")
def made(joint, tmp_path_factory):
    return cut(tmp_path_factory.mktemp("store"), joint.roman)


def band_file(joint, band, tile):
    return next(joint.roman.rglob(f"dc2_{band}_{tile}.fits"))


def test_every_window_of_the_grid_is_a_row_with_the_pixels_of_all_bands(joint, made):
    table = made.table()
    assert len(table) == made.counts["kept"] == 2 * 9
    assert table["number"].to_list() == list(range(9)) * 2
    assert table["cutout_id"].n_unique() == 18
    index = BandIndex(made)
    assert index.bands == ("Y106", "J129", "H158")
    for row in (0, 13):
        tile, row0, col0 = table.select("tile", "row0", "col0").row(row)
        pixels = index.read(row)
        for channel, band in enumerate(index.bands):
            whole = fits.getdata(band_file(joint, band, tile), 1)
            assert np.array_equal(pixels[channel], whole[row0 : row0 + 64, col0 : col0 + 64])
    assert table["file_name"][10] == f"c1_{joint.tiles[1]}.npy"


def test_centres_are_where_the_wcs_puts_them(made):
    index = BandIndex(made)
    for row in range(len(index)):
        ra, dec = index.table.select("ra_deg", "dec_deg").row(row)
        x, y = index.wcs(row).world_to_pixel_values(ra, dec)
        assert (x, y) == (pytest.approx(31.5, abs=1e-6), pytest.approx(31.5, abs=1e-6))


@pytest.mark.parametrize(("ra_deg", "dec_deg"), [(50.94, -39.9), (0.0005, 12.0), (200.0, 89.9995), (0.0, -89.999)])
def test_objects_are_in_the_cutout_whose_footprint_holds_them(tmp_path, ra_deg, dec_deg):
    joint = write_joint(tmp_path / "in", ra_deg=ra_deg, dec_deg=dec_deg)
    artifact = cut(tmp_path / "store", joint.roman)
    index = BandIndex(artifact)
    truth = truth_of(artifact, joint.tiles[0])
    seen = []
    sources = joint.sources.filter(pl.col("kind") < 2)
    for row in range(len(index)):
        x, y = index.wcs(row).world_to_pixel_values(sources["ra"].to_numpy(), sources["dec"].to_numpy())
        inside = (x >= -0.5) & (x < 63.5) & (y >= -0.5) & (y < 63.5)
        expected = {
            str(n): (a, b) for n, a, b in zip(sources["number"].to_numpy()[inside], x[inside], y[inside], strict=True)
        }
        own = truth.filter(pl.col("cutout_id") == index.cutout_id[row])
        assert set(own["object_id"]) == set(expected)
        for object_id, a, b in own.select("object_id", "x_px", "y_px").iter_rows():
            assert (a, b) == pytest.approx(expected[object_id], abs=1e-5)
        seen += expected
    assert len(seen) > 20


def test_truth_carries_the_columns_of_the_file_and_the_category(joint, made):
    truth = truth_of(made, joint.tiles[0])
    assert truth.columns[:7] == ["cutout_id", "object_id", "category_id", "ra_deg", "dec_deg", "x_px", "y_px"]
    assert {"ind", "mag_H158", "dered_Y106", "gal_star"} <= set(truth.columns)
    assert (truth["category_id"] == truth["gal_star"]).all()
    assert (truth["object_id"] == truth["ind"].cast(pl.String)).all()
    kinds = dict(joint.sources.select("number", "kind").iter_rows())
    assert all(kinds[int(i)] == c for i, c in truth.select("object_id", "category_id").iter_rows())


def test_detection_ids_are_the_numbers_of_the_segmentation_map(joint, made):
    segments = fits.getdata(tile_file(made, joint.tiles[0], "segmentation"))
    corner = {row["cutout_id"]: (row["row0"], row["col0"]) for row in made.table().to_dicts()}
    found = detections_of(made, joint.tiles[0])
    hits = 0
    for id, number, x, y in found.select("cutout_id", "detection_id", "x_px", "y_px").iter_rows():
        row0, col0 = corner[id]
        hits += segments[int(np.rint(row0 + y)), int(np.rint(col0 + x))] == number
    assert hits >= 0.8 * len(found)  # a neighbour may outshine an object at its own centre


def test_counts_reconcile(joint, made):
    counts = made.counts
    dropped = {reason: entry["number"] for reason, entry in counts["dropped"].items()}
    for table, word in (("truth", "true object"), ("detections", "detection")):
        left_out = sum(number for reason, number in dropped.items() if reason.startswith(word))
        assert counts[f"{table}_read"] == counts[f"{table}_kept"] + left_out
    assert counts["truth_read"] == len(joint.sources)
    assert counts["truth_kept"] == sum(len(truth_of(made, tile)) for tile in joint.tiles)
    parts = [counts[f"detections_{part}"] for part in ("matched", "beaten", "unmatched")]
    assert sum(parts) == counts["detections_kept"]
    assert dropped["true object of other class"] > 0


def same_tables(one, other):
    for name in one.manifest["files"]:
        if name not in ("images.parquet", "files.parquet"):  # these hold the paths
            assert one.file(name).read_bytes() == other.file(name).read_bytes(), name


def test_the_same_files_elsewhere_give_the_same_id_and_tables(joint, made, tmp_path):
    moved = tmp_path / "moved"
    moved.symlink_to(joint.roman)
    again = cut(tmp_path / "store", moved)
    assert again.id == made.id
    same_tables(made, again)


def test_a_piece_can_be_made_in_another_process(joint, tmp_path):
    survey = Survey.from_mapping(OmegaConf.to_container(compose("curate", ["step=cutouts", "survey=roman"]).survey))
    tiles = open_tiles(joint.roman, {"survey": survey}, Store(tmp_path))
    task = TileTask.of(tiles, tiles.tiles[1], survey, "id", 64, 4, 1.0, False)
    cut_tile(tmp_path / "piece", pickle.loads(pickle.dumps(task)))
    assert pl.read_parquet(tmp_path / "piece" / "cutouts.parquet")["tile"].unique().to_list() == [joint.tiles[1]]


def test_an_interrupted_index_goes_on_after_the_finished_tiles(joint, made, tmp_path, monkeypatch):
    called = []

    def killed(folder, task):
        called.append(task.name)
        if len(called) == 2:
            raise KeyboardInterrupt
        cut_tile(folder, task)

    monkeypatch.setattr(tile_cutouts, "cut_tile", killed)
    with pytest.raises(KeyboardInterrupt):
        cut(tmp_path / "store", joint.roman)
    again = cut(tmp_path / "store", joint.roman)
    assert called == [joint.tiles[0], joint.tiles[1], joint.tiles[1]]
    assert again.id == made.id
    same_tables(made, again)


def test_a_band_on_other_pixels_is_refused(tmp_path):
    joint = write_joint(tmp_path / "in")
    with fits.open(band_file(joint, "J129", joint.tiles[0]), mode="update") as hdus:
        hdus[1].header["CRPIX1"] += 0.5
    with pytest.raises(InputError, match=r"dc2_J129_.*WCS of band J129 of tile .* than that of band Y106"):
        cut(tmp_path / "store", joint.roman)


def test_a_band_of_another_shape_is_refused_or_skipped_and_counted(tmp_path):
    joint = write_joint(tmp_path / "in", tiles=2)
    path = band_file(joint, "H158", joint.tiles[0])
    with fits.open(path) as hdus:
        hdus[1].data = hdus[1].data[:-7]
        hdus.writeto(path, overwrite=True)
    with pytest.raises(InputError, match=rf"H158 of tile {joint.tiles[0]} has 193 x 200 px, band Y106 200 x 200"):
        cut(tmp_path / "store", joint.roman)
    artifact = cut(tmp_path / "store", joint.roman, on_bad_image="skip")
    assert artifact.table()["tile"].unique().to_list() == [joint.tiles[1]]
    assert artifact.counts["dropped"]["bad tile"]["number"] == 1
    assert joint.tiles[0] in artifact.counts["dropped"]["bad tile"]["examples"][0]


def test_a_missing_band_file_is_refused_or_skipped_and_counted(tmp_path):
    joint = write_joint(tmp_path / "in", tiles=2)
    band_file(joint, "J129", joint.tiles[1]).unlink()
    with pytest.raises(InputError, match=rf"tile {joint.tiles[1]}: band J129 is missing"):
        cut(tmp_path / "store", joint.roman)
    artifact = cut(tmp_path / "store", joint.roman, on_missing="skip")
    assert artifact.counts["dropped"]["incomplete tile"]["number"] == 1
    assert artifact.counts["tiles"] == 2
    assert artifact.counts["kept"] == 9


def test_a_missing_truth_table_is_refused_unless_the_survey_has_none(tmp_path):
    joint = write_joint(tmp_path / "in")
    next(joint.roman.rglob("dc2_index_*")).unlink()
    with pytest.raises(InputError, match=r"expected its truth as .*dc2_index_.* survey\.tiles\.truth=null"):
        cut(tmp_path / "store", joint.roman)
    artifact = cut(tmp_path / "store", joint.roman, **{"survey.tiles.truth": None})
    assert len(artifact.table()) == 9
    assert not any(name.startswith(("truth/", "matches/")) for name in artifact.manifest["files"])


def test_a_truth_table_without_a_needed_column_is_refused_by_name(tmp_path):
    joint = write_joint(tmp_path / "in")
    path = next(joint.roman.rglob("dc2_index_*"))
    table = Table.read(path)
    table.remove_columns(["mag_J129", "gal_star"])
    table.write(path, overwrite=True)
    with pytest.raises(InputError, match=r"dc2_index_.*found no gal_star, mag_J129 among ind"):
        cut(tmp_path / "store", joint.roman)


def test_repeated_ids_and_impossible_positions_are_counted(tmp_path):
    joint = write_joint(tmp_path / "in")
    path = next(joint.roman.rglob("dc2_index_*"))
    before = cut(tmp_path / "store", joint.roman)
    inside = truth_of(before, joint.tiles[0])["ind"].to_list()
    table = Table.read(path)
    at = {number: i for i, number in enumerate(table["ind"])}
    table["ind"][at[inside[1]]] = inside[0]
    table["ra"][at[inside[2]]] = np.nan
    table["dec"][at[inside[3]]] = -200.0
    table.write(path, overwrite=True)
    after = cut(tmp_path / "store", joint.roman)
    dropped = after.counts["dropped"]
    assert dropped["true object repeated"]["number"] == 1
    assert dropped["true object without position"]["number"] == 2
    assert after.counts["truth_kept"] == before.counts["truth_kept"] - 3
    assert truth_of(after, joint.tiles[0])["object_id"].is_unique().all()


def test_a_tile_smaller_than_a_window_and_its_border_is_refused(tmp_path):
    joint = write_joint(tmp_path / "in")
    with pytest.raises(InputError, match=rf"at least 301 x 301 px .* found {TILE_PX} x {TILE_PX} px"):
        cut(tmp_path / "store", joint.roman, window_px=101, border_px=100)


def test_each_tile_has_the_grid_of_its_own_shape(tmp_path):
    small = write_joint(tmp_path / "in")
    large = write_joint(tmp_path / "in", ra_deg=51.5, tile_px=270)
    artifact = cut(tmp_path / "store", small.roman)
    number = dict(artifact.table()["tile"].value_counts().iter_rows())
    assert number == {small.tiles[0]: 9, large.tiles[0]: 16}


def test_tables_of_the_whole_survey_serve_every_tile(joint, tmp_path):
    artifact = cut(tmp_path / "store", joint.lsst, survey="lsst", window_px=18, border_px=1)
    index = BandIndex(artifact)
    assert index.bands == tuple("ugrizy")
    assert artifact.counts["truth_read"] == len(joint.sources) * len(joint.patches)
    truth = truth_of(artifact, joint.patches[0])
    assert truth.schema["cosmodc2_id"] == pl.Int64
    assert truth["mag_true_i"].null_count() == truth.filter(pl.col("category_id") == 1).height > 0
    for id, ra, dec, x, y in truth.select("cutout_id", "ra_deg", "dec_deg", "x_px", "y_px").iter_rows():
        row = int(index.rows_of(np.array([id]))[0])
        assert index.wcs(row).world_to_pixel_values(ra, dec) == pytest.approx((x, y), abs=1e-5)


def test_match_with_cutouts_of_a_survey_without_bands_is_refused(tmp_path, joint):
    images = fake_images(cutouts=10, seed=1, store=tmp_path / "store")
    radio = fake_cutouts(images=images, cutouts=10, sky=True, spread_deg=1.0, store=tmp_path / "store")
    with pytest.raises(ConfigError, match="expected cutouts of a survey with bands"):
        cut(tmp_path / "store", joint.roman, match=radio.id)


@pytest.mark.parametrize(("step", "options"), [("merge", {}), ("deduplicate", {"across": None})])
def test_steps_that_would_lose_the_objects_refuse_the_cutouts(made, step, options):
    given = [made, made] if step == "merge" else made
    with pytest.raises(InputError, match=rf"step={step}: cutouts {made.id} are of a survey with bands"):
        skyloom.curate(step, cutouts=given, **options, store=made.path.parents[1])
