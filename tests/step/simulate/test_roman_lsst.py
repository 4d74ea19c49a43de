"""step=simulate survey=roman_lsst: the true layout, one sky in both surveys, the same bytes after an interruption."""

import pickle

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from make.simulated import FEW, joint_facts, joint_survey, simulated
from skyloom.errors import ConfigError
from skyloom.sky.files.tile_files import find_tiles
from skyloom.sky.simulated.joint_layout import lay_tiles
from skyloom.step.simulate import roman_lsst as step
from skyloom.step.tiles import open_tiles
from skyloom.store import Store

PAIR = joint_survey(FEW).surveys


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("store"))


def planes(path, extension):
    with fits.open(path) as hdus:
        return hdus[extension].data.copy(), WCS(hdus[extension].header)


def tables(made):
    tile = find_tiles([made.path], PAIR["roman"]).tiles[0]
    lsst = find_tiles([made.path], PAIR["lsst"])
    return Table.read(tile.truth), Table.read(tile.detections), pl.read_parquet(lsst.survey_truth), pl.read_parquet(
        lsst.survey_detections
    )  # fmt: skip


def test_both_surveys_are_found_by_their_own_files(made):
    for name, count in (("roman", 1), ("lsst", 4)):
        survey = PAIR[name]
        found = open_tiles(made, {"survey": survey}, Store(made.path.parents[1]))
        assert len(found.tiles) == count
        assert found.artifact.id == made.id
        assert all(list(tile.images) == [band.name for band in survey.bands] for tile in found.tiles)
    assert found.survey_truth is not None
    assert found.survey_detections is not None


def test_images_have_the_true_form(made):
    tile = find_tiles([made.path], PAIR["roman"]).tiles[0]
    pixels, wcs = planes(tile.images["H158"], 1)
    assert (pixels.shape, pixels.dtype.kind, pixels.dtype.itemsize) == ((200, 200), "f", 4)
    assert wcs.pixel_scale_matrix[1, 1] * 3600 == pytest.approx(0.0575)
    assert planes(tile.segmentation, 0)[0].shape == (200, 200)
    patch = find_tiles([made.path], PAIR["lsst"]).tiles[0]
    with fits.open(patch.images["i"]) as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ["IMAGE", "MASK", "VARIANCE"]
        assert hdus["IMAGE"].data.shape == (61, 61)


def test_tables_have_every_column_that_the_surveys_name(made):
    roman_truth, roman_found, lsst_truth, lsst_found = tables(made)
    for table, survey, facts in (
        (roman_truth, PAIR["roman"], PAIR["roman"].truth), (roman_found, PAIR["roman"], PAIR["roman"].detections),
        (lsst_truth, PAIR["lsst"], PAIR["lsst"].truth), (lsst_found, PAIR["lsst"], PAIR["lsst"].detections),
    ):  # fmt: skip
        for column in facts.columns.values():
            wanted = [column.replace("{band}", band.name) for band in survey.bands]
            assert set(wanted) <= set(getattr(table, "colnames", None) or table.columns)
    assert {"mag_F184", "dered_Y106", "x", "y"} <= set(roman_truth.colnames)
    assert {"cosmodc2_id", "size_true", "ellipticity_1_true"} <= set(lsst_truth.columns)
    assert {"extendedness", "mag_i_cModel", "snr_i_cModel", "clean", "blendedness", "patch"} <= set(lsst_found.columns)
    assert lsst_truth.schema["id"] == pl.String


def test_an_object_is_the_same_in_both_truth_tables(made):
    roman_truth, _, lsst_truth, _ = tables(made)
    roman = pl.DataFrame({"id": [str(i) for i in roman_truth["ind"]], "there": np.array(roman_truth["ra"], float),
                          "gal_star": np.array(roman_truth["gal_star"], int)})  # fmt: skip
    both = roman.join(lsst_truth, on="id", how="left")
    assert both["ra"].null_count() == 0
    assert (both["ra"] - both["there"]).abs().max() < 1e-9
    assert (both["truth_type"] == both["gal_star"] + 1).all()
    assert set(both["truth_type"]) >= {1, 2}
    assert lsst_truth.filter(pl.col("truth_type") == 3).height > 0
    galaxies = lsst_truth.filter(pl.col("truth_type") == 1)
    assert (galaxies["mag_true_i"] - galaxies["mag_i"]).abs().max() < 1e-9  # without dust
    assert lsst_truth.filter(pl.col("truth_type") == 2)["mag_true_i"].null_count() > 0


def test_stars_are_where_the_catalogues_say_in_both_surveys(tmp_path):
    alone = {"crowding": 0.0, "supernovae": 0, "stars_per_arcmin2": 90.0, "faintest_mag": 20.0, "seed": 3}
    made = simulated(tmp_path, blemishes=False, **alone)
    stars = pl.read_parquet(made.file("sources.parquet"))
    seen = set()
    for name, extension, band in (("roman", 1, "H158"), ("lsst", 1, "i")):
        for tile in find_tiles([made.path], PAIR[name]).tiles:
            pixels, wcs = planes(tile.images[band], extension)
            x, y = wcs.all_world2pix(stars["ra_deg"].to_numpy(), stars["dec_deg"].to_numpy(), 0)
            for k in np.flatnonzero((x > 8) & (y > 8) & (x < pixels.shape[1] - 9) & (y < pixels.shape[0] - 9)):
                if np.sort(np.hypot(x - x[k], y - y[k]))[1] < 14:
                    continue
                col, row = round(x[k]), round(y[k])
                cut = pixels[row - 7 : row + 8, col - 7 : col + 8].astype(float)
                grid = np.arange(-7, 8)
                centre = ((cut.sum(0) * grid).sum() / cut.sum() + col, (cut.sum(1) * grid).sum() / cut.sum() + row)
                assert centre == pytest.approx((x[k], y[k]), abs=0.15)
                zero = PAIR[name].band(band).zero_point_mag
                assert zero - 2.5 * np.log10(cut.sum()) == pytest.approx(stars[f"mag_{band}"][int(k)], abs=0.03)
                seen.add(name)
    assert seen == {"roman", "lsst"}
    assert _lost(made) == (0, 0.0, 0)


def test_detections_stand_for_true_objects(made):
    roman_truth, found, _, objects = tables(made)
    tile = find_tiles([made.path], PAIR["roman"]).tiles[0]
    segments, wcs = planes(tile.segmentation, 0)
    assert len(found) == segments.max() >= 3
    x, y = wcs.all_world2pix(found["alphawin_j2000"], found["deltawin_j2000"], 0)
    assert x == pytest.approx(found["xwin_image"] - 1, abs=1e-6)
    inside = (x > 0) & (y > 0) & (x < 199) & (y < 199)
    tx, ty = wcs.all_world2pix(roman_truth["ra"], roman_truth["dec"], 0)
    nearest = np.hypot(x[inside, None] - tx, y[inside, None] - ty).min(axis=1)
    assert np.median(nearest) < 1.0  # a Roman pixel, the radius of the match
    assert len(objects) >= 3
    assert objects["objectId"].is_unique().all()


def _lost(made):
    tile = find_tiles([made.path], PAIR["roman"]).tiles[0]
    images = {band: planes(path, 1)[0] for band, path in tile.images.items()}
    lsst = find_tiles([made.path], PAIR["lsst"]).tiles
    holes = sum(int(np.isnan(planes(patch.images["u"], 1)[0]).sum()) for patch in lsst)
    return np.isnan(images["Y106"]).sum(), (images["J129"][132:196, 132:196] == 0).mean(), holes


def test_blemishes_are_there_when_wanted(made):
    nan, empty, holes = _lost(made)
    assert nan > 0
    assert empty == 1.0
    assert holes > 0


def test_patches_show_the_same_pixels_where_they_overlap(made):
    lsst = {tile.name: tile for tile in find_tiles([made.path], PAIR["lsst"]).tiles}
    one, _ = planes(lsst["tract3256_patch0_0"].images["i"], "IMAGE")
    other, _ = planes(lsst["tract3256_patch1_0"].images["i"], "IMAGE")
    assert other[:, :24] == pytest.approx(one[:, 37:], abs=0.02)  # a fifth of the noise: what stamps leave out


def test_another_seed_is_another_sky(made, tmp_path):
    other = simulated(tmp_path, seed=1, crowding=0.5)
    assert made.id != other.id
    assert other.manifest["files"]["sources.parquet"] != made.manifest["files"]["sources.parquet"]


def test_a_task_can_be_sent_to_another_process(made):
    task = step.SceneTask(lay(), PAIR["roman"], made.file("sources.parquet"), {"Y106": 26.0}, 0, True, (1.0, 2.0, 3.0))
    again = pickle.loads(pickle.dumps((task, step.draw_field)))[0]
    assert again.field == task.field
    assert again.survey == task.survey


def lay():
    return lay_tiles(PAIR["roman"], 1, 200, overlap_px=0, ra_deg=52.9, dec_deg=-40.0)[0]


def test_an_interrupted_run_goes_on_with_the_next_image(made, tmp_path, monkeypatch):
    drawn = []
    draw = step.draw_field

    def killed(folder, task):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(task.field.name)
        draw(folder, task)

    monkeypatch.setattr(step, "draw_field", killed)
    with pytest.raises(KeyboardInterrupt):
        simulated(tmp_path)
    monkeypatch.setattr(step, "draw_field", lambda folder, task: (drawn.append(task.field.name), draw(folder, task)))
    assert simulated(tmp_path).manifest["files"] == made.manifest["files"]
    assert len(drawn) == len(set(drawn)) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth_mag": {"Y106": 26.0}}, "depth_mag has nothing for band J129"),
        ({"overlap_px": 200}, "overlap_px=200: expected less than a tile's side"),
        ({"survey": {"name": "half", "roman": joint_facts()["roman"]}}, "expected a survey with bands under 'lsst'"),
    ],
)
def test_what_cannot_be_simulated_is_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        simulated(tmp_path, **options)
