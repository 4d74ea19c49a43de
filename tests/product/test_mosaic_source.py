"""Mosaics as tiles: every pixel belongs to one tile, files of bands are put together, and memory does not grow."""

import pickle
import tracemalloc

import numpy as np
import pytest
from astropy.io import fits

from make import mosaics
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.product.detection_source import IMAGE_COLUMNS
from skyloom.product.mosaic_channels import mosaic_options
from skyloom.product.mosaic_files import open_mosaics
from skyloom.product.mosaic_source import MosaicSource, tile_starts
from skyloom.sky.files.image import open_image
from skyloom.sky.geometry.wcs_cards import wcs_of
from skyloom.store import Store


def found(value, tmp_path):
    return open_mosaics(value, {}, Store(tmp_path / "store"))


@pytest.mark.parametrize(("length", "tile", "overlap"), [(100, 40, 10), (100, 40, 30), (100, 100, 20), (37, 64, 16)])
def test_tiles_cover_an_axis_and_their_own_parts_divide_it(length, tile, overlap):
    starts, borders = tile_starts(length, tile, overlap)
    size = min(tile, length)
    assert starts[0] == 0
    assert starts[-1] + size == length
    assert borders[0] == 0
    assert borders[-1] == length
    assert (np.diff(borders) > 0).all()
    assert (starts[1:] + overlap <= starts[:-1] + size).all(), "neighbours share at least the overlap"
    inner = borders[1:-1]
    assert (inner - starts[1:] >= overlap // 2).all(), "a tile sees beyond its own part"
    assert (starts[:-1] + size - inner >= overlap // 2).all()


def test_a_tile_has_the_pixels_and_the_sky_of_the_mosaic(tmp_path):
    pixels = mosaics.sky(90, 130)
    pixels[3, 4] = np.nan
    pixels[5, 6] = np.inf
    path = mosaics.write(tmp_path / "a.fits", pixels)
    source = MosaicSource(found(str(path), tmp_path), tile_px=50, overlap_px=16)
    assert source.images.schema == IMAGE_COLUMNS
    assert source.images["image_row"].to_list() == list(range(len(source.images)))
    whole = open_image(path).wcs
    seen = np.zeros(pixels.shape, int)
    for tile in source.images.iter_rows(named=True):
        image = source.read(tile["image_row"])
        assert image.dtype == np.float32
        assert image.shape == (1, tile["height_px"], tile["width_px"])
        window = np.s_[tile["row0"] : tile["row0"] + 50, tile["col0"] : tile["col0"] + 50]
        expected = np.where(np.isfinite(pixels[window]), pixels[window], np.nan)
        assert np.array_equal(image[0], expected, equal_nan=True)
        core = np.s_[tile["row0"] + tile["core_row0"] : tile["row0"] + tile["core_row1"],
                     tile["col0"] + tile["core_col0"] : tile["col0"] + tile["core_col1"]]  # fmt: skip
        seen[core] += 1
        here = wcs_of(tile["fits_header"]).pixel_to_world(7.0, 9.0)
        assert here.separation(whole.pixel_to_world(7.0 + tile["col0"], 9.0 + tile["row0"])).arcsec < 1e-6
    assert (seen == 1).all(), "each pixel is the own one of one tile"
    assert source.pixel_scale_arcsec == pytest.approx(0.2)
    assert (source.units, source.zero_point_mag) == (("nJy",), (31.4,))
    assert source.area_factor(0).tolist() == [1.0]


def test_a_small_image_is_one_tile(tmp_path):
    path = mosaics.write(tmp_path / "a.fits", mosaics.sky(30, 200))
    source = MosaicSource(found([str(path)], tmp_path), tile_px=64, overlap_px=16)
    assert source.images["height_px"].unique().to_list() == [30]
    assert source.images["core_row1"].unique().to_list() == [30]
    whole = MosaicSource(found(str(path), tmp_path), tile_px=512, overlap_px=64)
    assert whole.images.select("height_px", "width_px", "core_row1", "core_col1").row(0) == (30, 200, 30, 200)


def test_files_of_bands_become_channels_in_the_order_of_the_model(tmp_path):
    pixels = {band: mosaics.sky(40, 40, seed=seed) for seed, band in enumerate("grz")}
    files = {band: str(mosaics.write(tmp_path / f"img_{band}.fits", p)) for band, p in pixels.items()}
    given = found(files, tmp_path)
    assert [mosaic.name for mosaic in given.mosaics] == ["img"]
    source = MosaicSource(given, tile_px=64, overlap_px=8, bands=[("decam", "z"), ("decam", "g")])
    assert source.bands == (("decam", "z"), ("decam", "g"))
    assert np.array_equal(source.read(0), np.stack([pixels["z"], pixels["g"]]))
    own = MosaicSource(given, tile_px=64, overlap_px=8, zero_point_mag={"r": 25.0})
    assert own.bands == (("images", "g"), ("images", "r"), ("images", "z"))
    assert own.zero_point_mag == (31.4, 25.0, 31.4)
    with pytest.raises(ConfigError, match=r"sees the bands u, g, and images has g, r, z; add u: FILE"):
        MosaicSource(given, tile_px=64, overlap_px=8, bands=[("lsst", "u"), ("lsst", "g")])
    with pytest.raises(ConfigError, match="give files by band"):
        MosaicSource(found(files["g"], tmp_path), tile_px=64, overlap_px=8, bands=[("lsst", "u"), ("lsst", "g")])
    with pytest.raises(ConfigError, match="zero_point_mag: y"):
        MosaicSource(given, tile_px=64, overlap_px=8, zero_point_mag={"y": 25.0})


def test_bands_of_several_images_go_together_by_name(tmp_path):
    for number in (1, 2):
        for band in "gr":
            mosaics.write(tmp_path / f"field{number}_{band}.fits", np.full((20, 20), number * 10 + ord(band), "f4"))
    given = found({band: str(tmp_path / f"*_{band}.fits") for band in "gr"}, tmp_path)
    assert [mosaic.name for mosaic in given.mosaics] == ["field1", "field2"]
    source = MosaicSource(given, tile_px=32, overlap_px=8)
    assert source.images["name"].to_list() == ["field1", "field2"]
    assert source.read(1)[:, 0, 0].tolist() == [20 + ord("g"), 20 + ord("r")]
    (tmp_path / "field2_r.fits").unlink()
    with pytest.raises(InputError, match="2 of band g, 1 of band r"):
        found({band: str(tmp_path / f"*_{band}.fits") for band in "gr"}, tmp_path)


def test_bands_that_do_not_lie_on_one_grid_are_refused(tmp_path):
    mosaics.write(tmp_path / "a.fits", mosaics.sky(40, 40))
    mosaics.write(tmp_path / "smaller.fits", mosaics.sky(40, 39))
    mosaics.write(tmp_path / "moved.fits", mosaics.sky(40, 40), CRPIX1=21.0)
    with pytest.raises(InputError, match=r"smaller.fits: expected 40 x 40 px"):
        MosaicSource(
            found({"g": f"{tmp_path}/a.fits", "r": f"{tmp_path}/smaller.fits"}, tmp_path), tile_px=64, overlap_px=8
        )
    with pytest.raises(InputError, match="same pixels on the sky"):
        MosaicSource(
            found({"g": f"{tmp_path}/a.fits", "r": f"{tmp_path}/moved.fits"}, tmp_path), tile_px=64, overlap_px=8
        )
    mosaics.write(tmp_path / "coarse.fits", mosaics.sky(40, 40), scale_arcsec=0.4)
    with pytest.raises(InputError, match="pixel scale"):
        MosaicSource(found([f"{tmp_path}/a.fits", f"{tmp_path}/coarse.fits"], tmp_path), tile_px=64, overlap_px=8)
    with pytest.raises(ConfigError, match="larger than their overlap"):
        MosaicSource(found(f"{tmp_path}/a.fits", tmp_path), tile_px=64, overlap_px=64)


def test_without_a_wcs_there_are_tiles_and_one_word_about_it(tmp_path, capsys):
    mosaics.write(tmp_path / "a.fits", mosaics.sky(90, 90), wcs=False, unit=None)
    np.save(tmp_path / "b.npy", mosaics.sky(90, 90))
    source = MosaicSource(found(str(tmp_path), tmp_path), tile_px=50, overlap_px=8, pixel_scale_arcsec=0.3)
    assert source.images["fits_header"].null_count() == len(source.images) == 8
    assert capsys.readouterr().err.count("no WCS") == 1
    assert (source.pixel_scale_arcsec, source.units, source.zero_point_mag) == (0.3, (None,), (None,))
    assert np.isnan(MosaicSource(found(str(tmp_path), tmp_path), tile_px=50, overlap_px=8).pixel_scale_arcsec)


def test_a_radio_map_has_its_flux_in_beams(tmp_path):
    beam = 6.0
    cards = {"BMAJ": beam / 3600, "BMIN": beam / 3600}
    path = mosaics.write(tmp_path / "a.fits", mosaics.sky(60, 60), unit="JY/BEAM", scale_arcsec=1.5, **cards)
    source = MosaicSource(found(str(path), tmp_path), tile_px=64, overlap_px=8)
    y, x = np.mgrid[:60, :60]
    sigma = beam / 1.5 / np.sqrt(8 * np.log(2))
    point = 0.25 * np.exp(-((x - 30) ** 2 + (y - 30) ** 2) / (2 * sigma**2))  # a point source of 0.25 Jy
    assert point.sum() * 10 ** (0.4 * (8.9 - source.zero_point_mag[0])) == pytest.approx(0.25, rel=1e-4)


def test_the_identity_follows_the_pixels_and_not_the_place(tmp_path):
    first = mosaics.write(tmp_path / "one" / "a.fits", mosaics.sky(40, 40))
    second = mosaics.write(tmp_path / "two" / "a.fits", mosaics.sky(40, 40))
    other = mosaics.write(tmp_path / "three" / "a.fits", mosaics.sky(40, 40, seed=1))
    ids = [found(str(path), tmp_path).identity()["digest"] for path in (first, second, other)]
    assert ids[0] == ids[1] != ids[2]
    assert found({"g": str(first)}, tmp_path).identity() != found({"r": str(first)}, tmp_path).identity()
    assert found(None, tmp_path) is None


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("missing.fits", InputError, "no such file"),
        ("dr2-mosaics", StoreError, "dr2-mosaics"),
        ({}, ConfigError, "by the name of their band"),
        (7, ConfigError, "expected a file"),
    ],
)
def test_images_that_are_none(value, error, words, tmp_path):
    with pytest.raises(error, match=words) as told:
        found(value, tmp_path)
    assert "\n" not in str(told.value)


def test_a_source_travels_and_opens_its_files_again(tmp_path):
    path = mosaics.write(tmp_path / "a.fits", mosaics.sky(40, 40))
    source = MosaicSource(found(str(path), tmp_path), tile_px=64, overlap_px=8)
    first = source.read(0)
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(0), first)


def test_memory_follows_the_tile_and_not_the_mosaic(tmp_path):
    path = tmp_path / "large.fits"
    side = 12_000  # 576 MB, a hole in the file system
    header = fits.PrimaryHDU(np.zeros((1, 1), ">f4")).header
    header["NAXIS1"] = header["NAXIS2"] = side
    with path.open("wb") as file:
        file.write(header.tostring().encode())
        file.truncate(2880 * -(-(2880 + side * side * 4) // 2880))
    given = found(str(path), tmp_path)
    tracemalloc.start()
    source = MosaicSource(given, tile_px=512, overlap_px=64)
    for row in (0, len(source.images) // 2, len(source.images) - 1):
        assert source.read(row).shape == (1, 512, 512)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tile": 4}, "mosaic key=tile is not known"),
        ({"tile_px": "many"}, "mosaic.tile_px='many': expected a whole number"),
        ({"zero_point_mag": {"g": "faint"}}, "g='faint': expected a number"),
        ({"pixel_scale_arcsec": [1]}, "pixel_scale_arcsec"),
        (None, "zero_point_mag is missing"),
    ],
)
def test_options_that_cannot_be_used(change, words):
    options = {"tile_px": 64, "overlap_px": 8, "zero_point_mag": None, "pixel_scale_arcsec": None}
    assert mosaic_options(options) == options
    with pytest.raises(ConfigError, match=words):
        mosaic_options({"tile_px": 64, "overlap_px": 8} if change is None else options | change)
