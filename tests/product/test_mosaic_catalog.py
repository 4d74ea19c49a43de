"""From a mosaic to a catalogue: tiles give what one large image gives; without a WCS there is no sky."""

import numpy as np
import polars as pl
import pytest
import yaml
from astropy.table import Table
from regions import Regions

import skyloom
from make import mosaics
from make.detectors import CONF
from skyloom.errors import ConfigError

pytest.importorskip("skyloom.detector.sep")
SEP = yaml.safe_load((CONF / "sep.yaml").read_text()) | {"threshold_sigma": 5.0}


def noisy(seed=0):
    pixels = mosaics.sky(200, 260, spacing_px=20.0, seed=seed)
    return pixels + np.random.default_rng(seed).normal(0, 1.0, pixels.shape).astype("f4")


def catalogue(tmp_path, images, tile_px=512, **options):
    mosaic = {"tile_px": tile_px, "overlap_px": 40, "zero_point_mag": None, "pixel_scale_arcsec": None}
    return skyloom.extract(
        "catalog", detector=SEP, images=images, mosaic=mosaic, score=0.0, least_score=0.0, nms=1.0,
        store=tmp_path / "store", **options,
    )  # fmt: skip


def test_tiles_give_the_catalogue_of_one_large_image(tmp_path):
    path = str(mosaics.write(tmp_path / "a.fits", noisy()))
    psf = {"image": {"model": "gaussian", "fwhm_arcsec": 1.6 * 2.3548 * 0.2}}
    photometry = {"enabled": True, "overlap": "split", "psf_size_arcsec": 5.0, "refine": True, "psf": psf}
    photometry |= {"background_arcsec": None}
    whole, tiles = (
        catalogue(tmp_path, path, tile, photometry=photometry).table("catalog.parquet") for tile in (512, 120)
    )
    places = [table.select("x_px", "y_px").to_numpy() for table in (whole, tiles)]
    apart = np.hypot(*(places[0][:, None] - places[1][None]).transpose(2, 0, 1))
    nearest = apart.argmin(axis=1)
    assert len(whole) > 100
    # Stated margin: sep measures background and noise in each tile, which moves positions by hundredths of a pixel, and
    # lets objects at the threshold come and go.
    assert abs(len(tiles) - len(whole)) <= 2
    assert (apart.min(axis=1) < 0.2).mean() > 0.98
    assert len(np.unique(nearest)) >= len(whole) - 2, "one detection per object"
    same = apart.min(axis=1) < 0.2
    flux = [t["flux_psf_image_njy"].to_numpy() for t in (whole, tiles)]
    assert flux[1][nearest[same]] == pytest.approx(flux[0][same], rel=0.03, abs=3.0)


def test_without_a_wcs_the_catalogue_has_pixels_and_no_sky(tmp_path, capsys):
    path = str(mosaics.write(tmp_path / "a.fits", noisy(), wcs=False))
    made = catalogue(tmp_path, path, 150)
    table = made.table("catalog.parquet")
    assert capsys.readouterr().err.count("no WCS") >= 1
    assert table["ra_deg"].is_null().all()
    assert len(table) > 100
    circles = Regions.read(made.file("regions.reg"), format="ds9")
    assert circles[0].center.x == pytest.approx(table["x_px"][0], abs=1e-6)
    assert len(Table.read(made.file("catalog.fits"))) == len(table)


def test_a_blank_mosaic_gives_an_empty_catalogue(tmp_path):
    path = str(mosaics.write(tmp_path / "a.fits", np.full((60, 60), np.nan, "f4")))
    table = catalogue(tmp_path, path).table("catalog.parquet")
    assert table.is_empty()
    assert table.schema["ra_deg"] == pl.Float64


def test_a_ring_around_each_source_takes_a_background_off(tmp_path):
    psf = {"image": {"model": "gaussian", "fwhm_arcsec": 1.6 * 2.3548 * 0.2}}
    ring, tables = {"overlap": "split", "psf_size_arcsec": 5.0, "psf": psf, "enabled": True}, []
    for name, level, radii in (("flat", 0.0, None), ("raised", 40.0, [2.4, 4.0]), ("left", 40.0, None)):
        path = str(mosaics.write(tmp_path / f"{name}.fits", noisy() + np.float32(level)))
        made = catalogue(tmp_path, path, photometry={**ring, "background_arcsec": radii})
        tables.append(made.table("catalog.parquet"))
    flat, raised, left = (table["flux_psf_image_njy"].to_numpy() for table in tables)
    assert len(flat) == len(raised) == len(left) > 100, "sep looks for sources above a background of its own"
    assert np.median(raised - flat) == pytest.approx(0.0, abs=5.0)
    assert np.median(left - flat) > 1000.0
    mask = [table["flux_mask_image_njy"] / table["area_px"] for table in tables]
    assert (mask[1] - mask[0]).median() == pytest.approx(0.0, abs=1.0)
    assert (mask[2] - mask[0]).median() == pytest.approx(40.0, abs=1.0)
    for radii in ([4.0, 2.4], [2.4]):
        with pytest.raises(ConfigError, match="background_arcsec") as caught:
            catalogue(tmp_path, str(tmp_path / "flat.fits"), photometry={**ring, "background_arcsec": radii})
        assert "\n" not in str(caught.value)
