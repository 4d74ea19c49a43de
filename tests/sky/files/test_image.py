"""The reader gives the same pixels whatever the layout, and refuses damaged or unfit files in one line."""

import multiprocessing
import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning

from make.fits import (
    cut_file,
    gzip_file,
    radio_header,
    radio_pixels,
    write_compressed,
    write_fits,
    write_scaled,
    write_zarr,
)
from skyloom.errors import InputError
from skyloom.sky.files.image import Image, open_image
from skyloom.sky.survey.units import normalised_unit


def whole(image: Image) -> np.ndarray:
    return image.strip(0, image.shape[0])


@pytest.mark.parametrize("axes", [2, 3, 4])
@pytest.mark.parametrize("dtype", [">f4", ">f8"])
def test_float_fits_of_any_depth_reads_as_native_float32(tmp_path: Path, dtype: str, axes: int) -> None:
    pixels = write_fits(tmp_path / "a.fits", dtype=dtype, axes=axes)
    with open_image(tmp_path / "a.fits") as image:
        out = whole(image)
        assert image.shape == pixels.shape
        assert image.dtype == np.dtype(dtype)
    assert out.dtype == np.dtype("=f4")
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, pixels.astype(np.float32))


def test_window_is_the_named_part_and_can_be_changed(tmp_path: Path) -> None:
    pixels = write_fits(tmp_path / "a.fits").astype(np.float32)
    image = open_image(tmp_path / "a.fits")
    out = image.read(7, 11, 20, 30)
    np.testing.assert_array_equal(out, pixels[7:27, 11:41])
    assert out.flags.c_contiguous
    assert out.flags.writeable
    out[:] = 0
    np.testing.assert_array_equal(image.strip(7, 2), pixels[7:9])


def test_scaled_integers_and_blank(tmp_path: Path) -> None:
    raw = np.arange(-30, 30, dtype=np.int16).reshape(6, 10)
    write_scaled(tmp_path / "a.fits", raw, scale=0.5, zero=100.0, blank=-7)
    expected = (raw * 0.5 + 100.0).astype(np.float32)
    expected[raw == -7] = np.nan
    image = open_image(tmp_path / "a.fits")
    np.testing.assert_array_equal(whole(image), expected)
    np.testing.assert_array_equal(image.read(2, 3, 2, 4), expected[2:4, 3:7])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32"])
def test_plain_and_unsigned_integers(tmp_path: Path, dtype: str) -> None:
    raw = np.arange(24, dtype=dtype).reshape(4, 6)
    fits.PrimaryHDU(raw).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.fits")), raw.astype(np.float32))


def test_float_with_bscale_and_meaningless_blank(tmp_path: Path) -> None:
    raw = np.array([[1.0, -1.0], [np.nan, 4.0]], ">f4")
    write_scaled(tmp_path / "a.fits", raw, scale=2.0, zero=1.0, blank=-1)
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.fits")), [[3, -1], [np.nan, 9]])


def test_float64_beyond_float32_becomes_inf_without_a_warning(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.array([[1e300, 1.0]])).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.fits")), [[np.inf, 1.0]])


def test_gzip(tmp_path: Path) -> None:
    pixels = write_fits(tmp_path / "a.fits", axes=4)
    image = open_image(gzip_file(tmp_path / "a.fits"))
    np.testing.assert_array_equal(image.read(3, 4, 10, 12), pixels[3:13, 4:16].astype(np.float32))
    assert image.unit == "Jy/beam"


@pytest.mark.parametrize(("axes", "tile"), [(2, None), (2, (16, 20)), (4, (1, 1, 16, 20))])
def test_tile_compressed_floats(tmp_path: Path, axes: int, tile: tuple[int, ...] | None) -> None:
    pixels = radio_pixels().astype(np.float32)
    write_compressed(tmp_path / "a.fits.fz", pixels, tile=tile, axes=axes)
    image = open_image(tmp_path / "a.fits.fz")
    np.testing.assert_array_equal(image.read(10, 3, 25, 60), pixels[10:35, 3:63])
    np.testing.assert_array_equal(whole(image), pixels)
    assert image.pixel_scale_arcsec == pytest.approx(1.5)
    assert image.block_rows == (1 if tile is None else 16)


def test_tile_compressed_integers(tmp_path: Path) -> None:
    raw = np.arange(2400, dtype=np.int16).reshape(40, 60)
    write_compressed(tmp_path / "a.fits.fz", raw, method="RICE_1")
    np.testing.assert_array_equal(open_image(tmp_path / "a.fits.fz").read(5, 5, 9, 8), raw[5:14, 5:13])


def test_tile_compressed_integers_with_blank_and_scale(tmp_path: Path) -> None:
    raw = np.arange(2400, dtype=np.int16).reshape(40, 60)
    write_compressed(tmp_path / "a.fits.fz", raw, method="RICE_1", BLANK=310, BSCALE=0.5, BZERO=3.0)
    expected = (raw * 0.5 + 3.0).astype(np.float32)
    expected[raw == 310] = np.nan
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.fits.fz")), expected)


def test_npy_and_zarr(tmp_path: Path) -> None:
    pixels = radio_pixels()
    np.save(tmp_path / "a.npy", pixels[None])
    write_zarr(tmp_path / "a.zarr", pixels, chunks=(32, 32), header=radio_header(pixels.shape))
    for name in ("a.npy", "a.zarr"):
        image = open_image(tmp_path / name)
        np.testing.assert_array_equal(image.read(9, 8, 40, 50), pixels[9:49, 8:58].astype(np.float32))
        np.testing.assert_array_equal(whole(image), pixels.astype(np.float32))
    packed = open_image(tmp_path / "a.zarr")
    assert packed.unit == "Jy/beam"
    assert packed.pixel_scale_arcsec == pytest.approx(1.5)
    assert open_image(tmp_path / "a.npy").wcs is None


@pytest.mark.parametrize("axes", [2, 4])
def test_wcs_unit_scale_and_beam(tmp_path: Path, axes: int) -> None:
    write_fits(tmp_path / "a.fits", axes=axes)
    image = open_image(tmp_path / "a.fits")
    assert image.wcs is not None
    assert image.wcs.naxis == 2
    ra_deg, dec_deg = image.wcs.all_pix2world(39.5, 29.5, 0)
    assert (float(ra_deg), float(dec_deg)) == pytest.approx((123.0, 45.0))
    assert image.pixel_scale_arcsec == pytest.approx(1.5)
    assert image.beam_arcsec == pytest.approx((6.0, 6.0))
    assert image.unit == "Jy/beam"


def test_no_celestial_wcs(tmp_path: Path) -> None:
    write_fits(tmp_path / "a.fits", wcs=False)
    image = open_image(tmp_path / "a.fits")
    assert image.wcs is None
    assert image.pixel_scale_arcsec is None


def test_invalid_wcs_names_the_file(tmp_path: Path) -> None:
    write_fits(tmp_path / "a.fits", CDELT1=0.0)
    with pytest.raises(InputError, match=r"a\.fits: the WCS in the header is not valid"):
        _ = open_image(tmp_path / "a.fits").wcs


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("JY/BEAM ", "Jy/beam"),
        ("jy/beam", "Jy/beam"),
        ("mJy/beam", "mJy/beam"),
        ("MJY/BEAM", "MJY/BEAM"),  # milli or mega: not guessed
        ("erg/s", "erg/s"),
        ("  ", None),
        (None, None),
    ],
)
def test_units(found: str | None, expected: str | None) -> None:
    assert normalised_unit(found) == expected


def test_image_in_an_extension_is_found_behind_a_cube(tmp_path: Path) -> None:
    pixels = radio_pixels()
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 3, 4))), fits.ImageHDU(pixels)]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.fits")), pixels.astype(np.float32))


@pytest.mark.parametrize("window", [(-1, 0, 2, 2), (0, 79, 2, 2), (59, 0, 2, 2), (0, 0, 0, 2)])
def test_window_outside_is_refused(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    write_fits(tmp_path / "a.fits")
    with pytest.raises(InputError, match=r"a\.fits: the window .* does not lie inside the image of 60 x 80 px"):
        open_image(tmp_path / "a.fits").read(*window)


def test_closed_image_is_refused(tmp_path: Path) -> None:
    write_fits(tmp_path / "a.fits")
    with open_image(tmp_path / "a.fits") as image:
        pass
    with pytest.raises(InputError, match="was closed"):
        image.read(0, 0, 1, 1)


def write_text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>\n" * 200)


def write_truncated(path: Path) -> None:
    write_fits(path)
    cut_file(path, 2880 * 4)


def write_truncated_header(path: Path) -> None:
    write_fits(path)
    cut_file(path, 1000)


def write_truncated_fz(path: Path) -> None:
    write_compressed(path, radio_pixels((200, 200)))
    cut_file(path, path.stat().st_size // 2880 // 2 * 2880)


def write_truncated_gz(path: Path) -> None:
    write_fits(path)
    cut_file(path, path.stat().st_size // 2)


def write_table(path: Path) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("ra", "D", array=np.zeros(3))])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)


def write_strings(path: Path) -> None:
    np.save(path, np.array([["a", "b"]]))


REFUSED = {
    "text.fits": (write_text, "expected a FITS file"),
    "empty.fits": (Path.touch, "empty file"),
    "truncated.fits": (write_truncated, "truncated, expected .* bytes"),
    "header.fits": (write_truncated_header, "expected a FITS file"),
    "truncated.fits.fz": (write_truncated_fz, "truncated, expected .* bytes"),
    "truncated.fits.gz": (write_truncated_gz, "gzip stream is damaged or cut short"),
    "table.fits": (write_table, "found no image at all"),
    "cube.fits": (lambda path: fits.PrimaryHDU(np.zeros((3, 4, 5))).writeto(path), r"HDU 0 has shape \(3, 4, 5\)"),
    "spectrum.fits": (lambda path: fits.PrimaryHDU(np.zeros(5)).writeto(path), r"HDU 0 has shape \(5,\)"),
    "missing.fits": (lambda path: None, "no such file"),
    "folder.fits": (Path.mkdir, "found a folder"),
    "picture.png": (Path.touch, r"ends in one of \.fits"),
    "text.npy": (write_text, "expected a whole npy file"),
    "strings.npy": (write_strings, "expected real numbers"),
    "cube.npy": (lambda path: np.save(path, np.zeros((3, 4, 5))), r"found shape \(3, 4, 5\)"),
    "empty.zarr": (Path.mkdir, "expected one readable Zarr array"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unfit_file_is_refused_in_one_line_with_its_name(tmp_path: Path, name: str) -> None:
    write, message = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as refusal:
        open_image(tmp_path / name)
    assert str(tmp_path / name) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_missing_padding_at_the_end_is_accepted(tmp_path: Path) -> None:
    pixels = write_fits(tmp_path / "a.fits")
    size = (tmp_path / "a.fits").stat().st_size
    cut_file(tmp_path / "a.fits", size - (-pixels.size * 8) % 2880)
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.fits")), pixels.astype(np.float32))


def make_any(folder: Path, name: str) -> Path:
    path = folder / name
    if name.endswith(".fz"):
        write_compressed(path, radio_pixels(), tile=(7, 11))
    elif name.endswith(".zarr"):
        write_zarr(path, radio_pixels(), chunks=(16, 16))
    else:
        write_fits(path)
    return path


ANY = ["a.fits", "a.fits.gz", "a.fits.fz", "a.zarr"]


@pytest.mark.parametrize("name", ANY)
def test_pickle_opens_again(tmp_path: Path, name: str) -> None:
    image = open_image(make_any(tmp_path, name))
    copy = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(whole(copy), whole(image))
    assert copy.path == image.path


@pytest.mark.parametrize("name", ANY)
def test_threads_read_the_same(tmp_path: Path, name: str) -> None:
    image = open_image(make_any(tmp_path, name))
    expected = radio_pixels().astype(np.float32)
    with ThreadPoolExecutor(4) as pool:
        strips = list(pool.map(lambda row: image.strip(row, 3), [*range(0, 60, 3)] * 3))
    np.testing.assert_array_equal(np.concatenate(strips), np.concatenate([expected] * 3))


def _check_in_child(image: Image, first: np.ndarray) -> None:
    same = all(np.array_equal(image.strip(row, 5), first[row : row + 5], equal_nan=True) for row in range(0, 60, 5))
    os._exit(0 if same else 1)


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.fits.fz"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # forking is what is tested
def test_forked_processes_read_the_same_at_the_same_time(tmp_path: Path, name: str) -> None:
    image = open_image(make_any(tmp_path, name))
    first = whole(image)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_check_in_child, args=(image, first)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0]


REAL = {
    # name: shape, pixel scale, beam
    "aegean_1904-66_sin.fits": ((192, 192), 240.0, (864.0, 864.0)),
    "first_fields_7x7.fits": ((2100, 2100), 1.8, None),
    "no_wcs_galaxy0002.fits": ((132, 132), None, (6.4, 5.4)),
    "scorpio_faint_snr.fits": ((1000, 1000), 1.5, (6.5, 6.5)),
    "scorpio_s17.fits": ((1000, 1000), 1.5, (6.5, 6.5)),
    "sdc1_560mhz_1000h_crop.fits": ((957, 1041), 0.604, (1.5, 1.5)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_radio_images(name: str) -> None:
    if "SKYLOOM_REAL_DATA" not in os.environ:
        pytest.skip("SKYLOOM_REAL_DATA is not set")
    path = Path(os.environ["SKYLOOM_REAL_DATA"]) / "radio" / name
    shape, scale_arcsec, beam_arcsec = REAL[name]
    image = open_image(path)
    assert image.shape == shape
    assert image.unit == "Jy/beam"
    assert (image.wcs is None) == (scale_arcsec is None)
    assert image.pixel_scale_arcsec == (None if scale_arcsec is None else pytest.approx(scale_arcsec, rel=1e-3))
    assert image.beam_arcsec == (None if beam_arcsec is None else pytest.approx(beam_arcsec, rel=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerifyWarning)  # the yardstick is astropy, which tells of BLANK on floats
        expected = np.squeeze(fits.getdata(path)).astype(np.float32)
    np.testing.assert_array_equal(whole(image), expected)


def test_real_image_with_blank_edges() -> None:
    if "SKYLOOM_REAL_DATA" not in os.environ:
        pytest.skip("SKYLOOM_REAL_DATA is not set")
    image = open_image(Path(os.environ["SKYLOOM_REAL_DATA"]) / "radio" / "aegean_1904-66_sin.fits")
    assert np.isnan(whole(image)).mean() == pytest.approx(0.4025, abs=5e-5)
