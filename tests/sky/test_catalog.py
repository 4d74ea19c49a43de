"""Catalogues of every format give the same positions; columns are found, or the message lists them."""

import gzip

import astropy.units as u
import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from skyloom.errors import ConfigError, InputError
from skyloom.sky.catalog import read_catalog

RA, DEC, SIZE = [123.0, 123.25, 359.5], [45.0, 45.5, -12.0], [6.0, 30.5, 120.0]
NAMES = ["ILTJ081200.00+450000.0", "B", "C"]
FORMATS = ["c.fits", "c.fits.gz", "c.vot", "c.xml", "c.parquet", "c.csv", "c.ecsv"]


def write(path, columns, units=None):
    """Write columns in the format that the name asks for."""
    if path.suffix == ".parquet":
        pl.DataFrame(columns).write_parquet(path)
    elif path.suffix == ".csv":
        pl.DataFrame(columns).write_csv(path)
    else:
        table = Table(columns)
        for name, unit in (units or {}).items():
            table[name].unit = unit
        if path.suffix == ".gz":
            table.write(path.with_suffix(""), format="fits")
            path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
        else:
            table.write(path, format={".fits": "fits", ".ecsv": "ascii.ecsv"}.get(path.suffix, "votable"))
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same(tmp_path, name):
    path = write(tmp_path / name, {"Source_Name": NAMES, "RA": RA, "DEC": DEC, "Maj": SIZE})
    catalog = read_catalog(path, size="Maj", size_unit="arcsec")
    assert catalog.source_id.to_list() == NAMES
    np.testing.assert_array_equal(catalog.ra_deg, RA)
    np.testing.assert_array_equal(catalog.dec_deg, DEC)
    np.testing.assert_array_equal(catalog.size, SIZE)
    assert catalog.ra_deg.dtype.isnative
    assert not catalog.size_in_px
    assert catalog.columns == {"ra": "RA", "dec": "DEC", "id": "Source_Name", "size": "Maj"}


@pytest.mark.parametrize("name", ["c.fits", "c.vot", "c.ecsv"])
def test_units_of_the_file_are_honoured(tmp_path, name):
    columns = {"ra": np.deg2rad(RA), "dec": np.array(DEC) * 60, "size": np.array(SIZE) / 60}
    path = write(tmp_path / name, columns, {"ra": "rad", "dec": "arcmin", "size": "arcmin"})
    catalog = read_catalog(path, size="size")
    np.testing.assert_allclose(catalog.ra_deg, RA)
    np.testing.assert_allclose(catalog.dec_deg, DEC)
    np.testing.assert_allclose(catalog.size, SIZE)


@pytest.mark.parametrize("name", FORMATS)
def test_missing_and_impossible_positions_are_nan(tmp_path, name):
    ra, dec = [10.0, None, 30.0, 40.0], [1.0, 2.0, 91.0, float("nan")]
    if name.endswith((".parquet", ".csv")):
        path = write(tmp_path / name, {"ra": ra, "dec": dec})
    else:
        masked = MaskedColumn([v or 0.0 for v in ra], mask=[v is None for v in ra])
        path = write(tmp_path / name, {"ra": masked, "dec": dec})
    catalog = read_catalog(path)
    np.testing.assert_array_equal(np.isnan(catalog.ra_deg), [False, True, True, True])
    np.testing.assert_array_equal(np.isnan(catalog.dec_deg), np.isnan(catalog.ra_deg))
    assert catalog.source_id.to_list() == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "pair",
    [
        ("ra", "dec"),
        ("RAJ2000", "DEJ2000"),
        ("_RAJ2000", "_DEJ2000"),
        ("ALPHA_J2000", "DELTA_J2000"),
        ("ra_deg", "dec_deg"),
    ],
)
def test_usual_names_are_found(tmp_path, pair):
    path = write(tmp_path / "c.csv", {"id": [7, 8, 9], pair[0]: RA, pair[1]: DEC})
    catalog = read_catalog(path)
    np.testing.assert_array_equal(catalog.ra_deg, RA)
    assert catalog.source_id.to_list() == ["7", "8", "9"]


def test_columns_of_two_frames_are_not_mixed(tmp_path):
    path = write(tmp_path / "c.csv", {"ra": [1.0], "DEJ2000": [2.0], "RAJ2000": [3.0]})
    assert read_catalog(path).columns["ra"] == "RAJ2000"


def test_columns_by_name(tmp_path):
    path = write(tmp_path / "c.csv", {"ra": [0.0] * 3, "dec": [0.0] * 3, "host_ra": RA, "host_dec": DEC, "who": NAMES})
    catalog = read_catalog(path, ra="host_ra", dec="HOST_DEC", id="who")
    np.testing.assert_array_equal(catalog.ra_deg, RA)
    np.testing.assert_array_equal(catalog.dec_deg, DEC)
    assert catalog.source_id.to_list() == NAMES


def test_comments_of_a_csv_are_skipped(tmp_path):
    (tmp_path / "c.csv").write_text("# made by hand\nra,dec\n1,2\n")
    assert read_catalog(tmp_path / "c.csv").dec_deg.tolist() == [2.0]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"x": RA, "y": DEC},
            {},
            r"c\.csv: no columns of a position found; give sources.ra=… and sources.dec=…, two of x, y",
        ),
        (
            {"ra": RA, "dec": DEC},
            {"ra": "raa", "dec": "dec"},
            r"sources.ra=raa is not a column; it has ra, dec. Did you mean 'ra'",
        ),
        ({"ra": ["08:12:00"], "dec": ["45:00:00"]}, {}, r"column 'ra' holds text such as '08:12:00'.*sexagesimal"),
        ({"ra": RA, "dec": DEC}, {"size": "maj"}, r"sources.size=maj is not a column"),
        ({"ra": RA, "dec": DEC}, {"id": "who"}, r"sources.id=who is not a column"),
    ],
)
def test_bad_columns(tmp_path, columns, options, message):
    with pytest.raises(InputError, match=message) as error:
        read_catalog(write(tmp_path / "c.csv", columns), **options)
    assert "\n" not in str(error.value)


def test_options_that_are_not_enough(tmp_path):
    path = write(tmp_path / "c.csv", {"ra": RA, "dec": DEC, "maj": SIZE})
    with pytest.raises(ConfigError, match=r"sources.ra=ra, sources.dec=None: give both"):
        read_catalog(path, ra="ra")
    with pytest.raises(ConfigError, match=r"column 'maj' has no unit; say which with sources.size_unit"):
        read_catalog(path, size="maj")
    assert read_catalog(path, size="maj", size_unit="px").size_in_px
    np.testing.assert_allclose(read_catalog(path, size="maj", size_unit="arcmin").size, np.array(SIZE) * 60)


def test_a_size_that_is_no_angle(tmp_path):
    path = write(tmp_path / "c.fits", {"ra": RA, "dec": DEC, "maj": SIZE * u.Jy})
    with pytest.raises(InputError, match=r"column 'maj' has the unit 'Jy', expected an angle"):
        read_catalog(path, size="maj")


@pytest.mark.parametrize("name", [*FORMATS, "c.txt"])
def test_files_that_are_no_catalogue(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(InputError, match=r"no such file|expected a catalogue that ends in") as error:
        read_catalog(path)
    path.write_bytes(b"\x00\x01 nothing of the kind \xff\n" * 40)
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as error:
        read_catalog(path)
    assert "\n" not in str(error.value)


def test_a_fits_image_is_no_catalogue(tmp_path):
    fits.PrimaryHDU(np.zeros((5, 5))).writeto(tmp_path / "i.fits")
    with pytest.raises(InputError, match=r"i\.fits: expected a FITS file with a table, found only images"):
        read_catalog(tmp_path / "i.fits")
