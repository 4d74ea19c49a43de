"""Pixels of band cutouts: joined from pieces, by band, from files that have not changed."""

import pickle

import numpy as np
import polars as pl
import pytest

from make.band_cutouts import band_cutouts
from make.curated import fake_cutouts, fake_images
from make.joint_files import tangent_wcs
from skyloom.datamodule.band_index import BandIndex, detections_of, truth_of
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.errors import ConfigError, InputError
from skyloom.sky.geometry.wcs_cards import cards_of
from skyloom.step.cutouts.tiles.columns import BAND_COLUMNS, BAND_IMAGE_COLUMNS, PIECE_COLUMNS
from skyloom.store import builds, fingerprint


@pytest.fixture
def joined(tmp_path):
    """One cutout of 6 x 10 px from two overlapping patches that leave its last two columns empty."""
    grid = np.arange(20 * 30, dtype=np.float32).reshape(20, 30)
    wcs = tangent_wcs(50.0, -40.0, 0.2, grid.shape)
    starts = {"left": 0, "right": 12}
    facts = []
    for name, col0 in starts.items():
        for channel, band in enumerate("gr"):
            path = tmp_path / f"{name}_{band}.npy"
            np.save(path, grid[:, col0 : col0 + 16] + 1000 * channel)
            facts.append(
                {"image": name, "band": band, "artifact": None, "path": str(path), "fingerprint": fingerprint(path),
                 "height_px": 20, "width_px": 16, "dtype": "<f4", "unit": "AB27", "pixel_scale_arcsec": 0.2,
                 "zero_point_mag": 27.0, "fits_header": cards_of(wcs[:, col0 : col0 + 16])}
            )  # fmt: skip
    row = {"cutout_id": 5, "survey": "lsst", "image": "left", "row0": 3, "col0": 10, "size_px": 10, "height_px": 6,
           "width_px": 10, "tile": "t", "number": 0, "file_name": "c0_t.npy"}  # fmt: skip
    pieces = [(5, "left", 3, 10, 6, 6, 0, 0), (5, "right", 3, 4, 6, 2, 0, 6)]

    @builds("cutouts", version=1)
    def cutouts(build, *, seed: int):
        tables = {
            "cutouts": pl.DataFrame([dict.fromkeys(BAND_COLUMNS) | row], schema=BAND_COLUMNS),
            "images": pl.DataFrame(facts, schema=BAND_IMAGE_COLUMNS),
            "pieces": pl.DataFrame(pieces, schema=PIECE_COLUMNS, orient="row"),
        }
        for name, table in tables.items():
            with build.write(f"{name}.parquet") as path:
                table.write_parquet(path)
        build.table = "cutouts.parquet"
        build.note(bands=["g", "r"], unit="AB27", zero_point_mag={"g": 27.0, "r": 27.0}, pixel_scale_arcsec=0.2)

    return cutouts(seed=0, store=tmp_path / "store"), grid, wcs


def test_pieces_fill_a_cutout_and_the_rest_is_nan(joined):
    artifact, grid, _ = joined
    pixels = BandIndex(artifact).read(0)
    assert pixels.shape == (2, 6, 10)
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels[0, :, :8], grid[3:9, 10:18])
    assert np.array_equal(pixels[1, :, :8], grid[3:9, 10:18] + 1000)
    assert np.isnan(pixels[:, :, 8:]).all()


def test_the_wcs_of_a_joined_cutout_is_that_of_the_tract(joined):
    artifact, _, wcs = joined
    index = BandIndex(artifact)
    assert index.shape(0) == (6, 10)
    assert index.wcs(0).pixel_shape == (10, 6)
    there = wcs.pixel_to_world(10 + 7.25, 3 + 2.5)
    assert index.wcs(0).pixel_to_world(7.25, 2.5).separation(there).arcsec < 1e-6


def test_bands_come_in_the_order_that_is_asked_for(tmp_path):
    index = BandIndex(band_cutouts(tmp_path, n=3))
    whole = index.read(2)
    assert whole.shape == (6, 32, 32)
    assert np.array_equal(index.read(2, ["y", "g"]), whole[[5, 1]])
    with pytest.raises(ConfigError, match="band=H158 is not known; choose one of: g, i, r, u, y, z"):
        index.read(0, ["H158"])


def test_a_pickled_index_reads_the_same(tmp_path):
    index = BandIndex(band_cutouts(tmp_path))
    before = index.read(1)
    assert np.array_equal(pickle.loads(pickle.dumps(index)).read(1), before)


def test_rows_are_found_by_id_and_unknown_ids_refused(tmp_path):
    index = BandIndex(band_cutouts(tmp_path))
    assert index.rows_of(index.cutout_id[[2, 0]]).tolist() == [2, 0]
    with pytest.raises(InputError, match="1 of 1 cutout ids"):
        index.rows_of(np.array([12345]))


def test_both_surveys_of_the_fixture_share_ids_and_sky(tmp_path):
    lsst, roman = BandIndex(band_cutouts(tmp_path)), BandIndex(band_cutouts(tmp_path, bands=3, size=111))
    assert np.array_equal(lsst.cutout_id, roman.cutout_id)
    assert roman.bands == ("Y106", "J129", "H158")
    one, other = (i.wcs(1).pixel_to_world(*(side / 2 - 0.5 for side in i.shape(1)[::-1])) for i in (lsst, roman))
    assert one.separation(other).arcsec < 1e-6


def test_objects_of_a_tile(tmp_path):
    artifact = band_cutouts(tmp_path, n=2, objects=4)
    tile = artifact.table()["tile"][0]
    index = BandIndex(artifact)
    truth = truth_of(artifact, tile)
    assert len(truth) == len(detections_of(artifact, tile)) == 8
    for id, ra, dec, x, y in truth.select("cutout_id", "ra_deg", "dec_deg", "x_px", "y_px").iter_rows():
        row = int(index.rows_of(np.array([id]))[0])
        assert index.wcs(row).world_to_pixel_values(ra, dec) == pytest.approx((x, y), abs=1e-5)


def test_a_file_that_has_changed_is_refused_by_name(joined, tmp_path):
    artifact, grid, _ = joined
    np.save(tmp_path / "right_g.npy", grid[:, 12:28] * 2)
    with pytest.raises(InputError, match=r"right_g\.npy is not the file that cutouts .* were indexed from"):
        BandIndex(artifact).read(0)


def test_files_that_have_moved_are_found_below_a_root(joined, tmp_path):
    artifact, grid, _ = joined
    (tmp_path / "new").mkdir()
    for path in tmp_path.glob("*.npy"):
        path.rename(tmp_path / "new" / path.name)
    with pytest.raises(InputError, match=r"paths\.images=FOLDER"):
        BandIndex(artifact).read(0)
    assert np.array_equal(BandIndex(artifact, image_roots=[str(tmp_path / "new")]).read(0)[0, :, :8], grid[3:9, 10:18])


def test_each_reader_refuses_the_other_kind_of_cutouts(tmp_path):
    with pytest.raises(InputError, match=r"have several bands .* expected cutouts of one image each"):
        CutoutIndex(band_cutouts(tmp_path))
    images = fake_images(cutouts=10, seed=1, store=tmp_path)
    with pytest.raises(InputError, match="expected cutouts of a survey with bands"):
        BandIndex(fake_cutouts(images=images, cutouts=10, sky=True, spread_deg=1.0, store=tmp_path))
