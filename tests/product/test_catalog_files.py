"""The files of a catalogue are read by the tools that astronomers use, with the same numbers in them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from astropy.io import fits, votable
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from regions import Regions

from skyloom.errors import ConfigError
from skyloom.product.catalog_files import ABOUT, write_catalogs
from skyloom.store.aside import written_aside


def catalogue(*, sky: bool = True, images: tuple[str, ...] = ("field/a",)) -> pl.DataFrame:
    number = 6
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "id": np.arange(number),
            "cutout_id": pl.Series([None, 2**40, *range(number - 2)], dtype=pl.Int64),
            "image": [images[i % len(images)] for i in range(number)],
            "ra_deg": rng.uniform(0, 360, number) if sky else pl.Series([None] * number, dtype=pl.Float64),
            "dec_deg": rng.uniform(-90, 90, number) if sky else pl.Series([None] * number, dtype=pl.Float64),
            "x_px": rng.uniform(0, 100, number),
            "y_px": rng.uniform(0, 100, number),
            "class": pl.Series([0, 1, 0, 0, 1, 0], dtype=pl.Int8),
            "class_name": ["galaxy", "star", "galaxy", "galaxy", "star", None],
            "score": pl.Series(rng.uniform(0, 1, number), dtype=pl.Float32),
            "area_px": pl.Series([0, 5, 10, 20, 40, 80], dtype=pl.Int32),
            "rle": ["abc"] * number,
            "flags": pl.Series([0] * number, dtype=pl.Int16),
            "flux_mask_i_njy": [1.5, -2.0, None, 4.0, 5.0, 6.0],
            "mag_mask_i": [31.0, None, None, 29.9, 29.7, 29.5],
            "flux_psf_y": [1.0] * number,
        }
    )


def written(folder, table, formats=("fits", "votable", "ds9"), scale: float | None = 0.2) -> Path:
    folder.mkdir(exist_ok=True)
    build = SimpleNamespace(write=lambda name: written_aside(folder / name))
    write_catalogs(build, table, list(formats), pixel_scale_arcsec=scale)
    return folder


@pytest.mark.parametrize(("name", "form"), [("catalog.fits", "fits"), ("catalog.vot", "votable")])
def test_astropy_reads_the_tables(name, form, tmp_path):
    table = catalogue()
    read = Table.read(written(tmp_path / "c", table) / name, format=form)
    assert read.colnames == [column for column in table.columns if column != "rle"]
    for column in ("id", "ra_deg", "dec_deg", "x_px", "area_px", "score", "class"):
        assert np.array_equal(np.asarray(read[column]), table[column].to_numpy()), column
    assert np.ma.getmaskarray(read["cutout_id"]).tolist() == [True] + [False] * 5
    assert read["cutout_id"][1] == 2**40
    assert [str(value) for value in read["class_name"][:3]] == ["galaxy", "star", "galaxy"]
    flux = np.ma.filled(np.ma.MaskedArray(read["flux_mask_i_njy"], dtype=float), np.nan)
    assert np.isnan(flux[2])
    assert flux[[0, 1]].tolist() == [1.5, -2.0]
    assert (str(read["ra_deg"].unit), str(read["flux_mask_i_njy"].unit)) == ("deg", "nJy")
    assert str(read["mag_mask_i"].unit) == "mag"
    assert read["flux_psf_y"].unit is None, "in the unit of the image, which nobody knows"
    assert "ICRS" in str(read["ra_deg"].description) or form == "fits"
    if form == "votable":
        assert read["ra_deg"].meta["ucd"] == "pos.eq.ra;meta.main"


def test_the_tables_name_the_system_of_their_positions(tmp_path):
    table = catalogue().with_columns(ra_box_deg=pl.col("ra_deg"), dec_box_deg=pl.col("dec_deg"))
    folder = written(tmp_path / "c", table)
    file = votable.parse(folder / "catalog.vot", verify="exception")
    (system,) = file.resources[0].coordinate_systems
    assert system.system == "ICRS"
    referring = {field.name for field in file.get_first_table().fields if field.ref == system.ID}
    assert referring == {"ra_deg", "dec_deg", "ra_box_deg", "dec_box_deg"}
    assert file.get_field_by_id_or_name("x_px").ref is None
    assert fits.getheader(folder / "catalog.fits", 1)["RADESYS"] == "ICRS"


@pytest.mark.parametrize("ucd", sorted({ucd for _, _, ucd, _ in ABOUT if ucd}))
def test_ucds_are_words_of_the_virtual_observatory(ucd):
    parse_ucd(ucd, check_controlled_vocabulary=True)


def test_regions_reads_circles_on_the_sky(tmp_path):
    table = catalogue()
    circles = Regions.read(written(tmp_path / "c", table) / "regions.reg", format="ds9")
    assert len(circles) == len(table)
    for circle, row in zip(circles, table.iter_rows(named=True), strict=True):
        assert circle.center.icrs.ra.deg == pytest.approx(row["ra_deg"], abs=1e-7)
        assert circle.center.icrs.dec.deg == pytest.approx(row["dec_deg"], abs=1e-7)
        radius = 0.2 * np.sqrt(max(row["area_px"], 1) / np.pi)
        assert circle.radius.to_value("arcsec") == pytest.approx(radius, abs=1e-4)
        assert circle.meta["text"] == f"{row['id']} {row['score']:.2f}"
        assert circle.visual["facecolor" if "facecolor" in circle.visual else "color"] in ("green", "cyan")


def test_without_a_wcs_regions_lie_in_pixels_of_each_image(tmp_path):
    table = catalogue(sky=False)
    circles = Regions.read(written(tmp_path / "one", table, scale=None) / "regions.reg", format="ds9")
    assert circles[3].center.x == pytest.approx(table["x_px"][3]), "regions counts from 0, DS9 from 1"
    folder = written(tmp_path / "two", catalogue(sky=False, images=("field/a", "b")), scale=float("nan"))
    assert sorted(path.name for path in (folder / "regions").iterdir()) == ["b.reg", "field_a.reg"]
    assert not (folder / "regions.reg").exists()
    assert len(Regions.read(folder / "regions" / "b.reg", format="ds9")) == 3


def test_an_empty_catalogue_is_a_file_too(tmp_path):
    folder = written(tmp_path / "c", catalogue()[:0])
    assert len(Table.read(folder / "catalog.fits")) == 0
    assert len(Table.read(folder / "catalog.vot", format="votable")) == 0
    assert len(Regions.read(folder / "regions.reg", format="ds9")) == 0


def test_only_what_is_asked_for_is_written(tmp_path):
    assert [path.name for path in written(tmp_path / "c", catalogue(), ["ds9"]).iterdir()] == ["regions.reg"]
    with pytest.raises(ConfigError, match="fit is not known"):
        written(tmp_path / "c", catalogue(), ["fit"])
