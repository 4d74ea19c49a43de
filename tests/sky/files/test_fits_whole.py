"""A FITS file is whole when it holds what its headers promise, in every HDU."""

import numpy as np
import pytest
from astropy.io import fits

from skyloom.errors import InputError
from skyloom.sky.files.fits_whole import check_whole, is_fits


@pytest.fixture
def path(tmp_path):
    hdus = [fits.PrimaryHDU(np.ones((40, 50))), fits.ImageHDU(np.zeros((60, 70), "f4"))]
    fits.HDUList(hdus).writeto(tmp_path / "two.fits")
    return tmp_path / "two.fits"


def test_whole_files_pass(path, tmp_path):
    check_whole(path)
    packed = fits.CompImageHDU(np.random.default_rng(0).normal(size=(64, 64)).astype("f4"))
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "c.fits.fz")
    check_whole(tmp_path / "c.fits.fz")


@pytest.mark.parametrize("missing", [2881, 5000, 17280])
def test_a_cut_in_a_later_hdu_is_seen(path, missing):
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match=r"two\.fits: cut short, its headers promise"):
        check_whole(path)


def test_only_padding_may_be_missing(path):
    pad = -(60 * 70 * 4) % 2880
    path.write_bytes(path.read_bytes()[:-pad])
    check_whole(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="cut short"):
        check_whole(path)


def test_names(tmp_path):
    assert [is_fits(tmp_path / n) for n in ("a.fits", "a.FITS.gz", "a.png", "fits_headers.tar")] == [1, 1, 0, 0]


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_a_table_is_whole_or_cut_short(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    fits.BinTableHDU.from_columns([fits.Column("ra", "D", array=np.random.default_rng(0).normal(size=9000))]).writeto(
        path
    )
    check_whole(path)
    content = path.read_bytes()
    for part in (0.02, 0.5, 0.9):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(InputError):
            check_whole(path)


def test_a_file_without_image_and_table_is_refused(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(InputError, match=r"empty\.fits"):
        check_whole(tmp_path / "empty.fits")
