"""Detectors over whole real images: catalogues that astropy reads. SKYLOOM_REAL_DATA names their folder."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table

import skyloom
from make import detectors
from skyloom.sky.mask.rle import decode

REAL = os.environ.get("SKYLOOM_REAL_DATA")
pytestmark = [
    pytest.mark.skipif(not REAL, reason="SKYLOOM_REAL_DATA is not set; it names the folder of real images"),
    # One real file has such a card; this is astropy reading it in the tests, skyloom keeps quiet about it.
    pytest.mark.filterwarnings("ignore:Invalid 'BLANK' keyword"),
    # Another tells its date in two ways; the tests read its WCS by astropy to compare.
    pytest.mark.filterwarnings("ignore:'datfix' made the change"),
]
DECAM = {band: f"{REAL}/optical/img_{band}.fits" for band in "grz"}
RADIO = f"{REAL}/radio/sdc1_560mhz_1000h_crop.fits"


def tiny_model(store, monkeypatch, survey, bands):
    """A detector with random weights, which finds much that is not there."""
    monkeypatch.setitem(detectors.BANDS, survey, bands)
    return detectors.detector_artifact(SimpleNamespace(store=store), surveys=[survey], score_floor=0.0)


def check(artifact, shape):
    """What every catalogue of a whole image must be; returns it."""
    table = artifact.table("catalog.parquet")
    assert len(table) > 0
    for name, form in (("catalog.fits", "fits"), ("catalog.vot", "votable")):
        read = Table.read(artifact.file(name), format=form)
        assert len(read) == len(table)
        assert np.array_equal(np.asarray(read["x_px"]), table["x_px"].to_numpy())
    assert table["x_box_px"].is_between(-0.5, shape[1]).all()
    assert table["y_box_px"].is_between(-0.5, shape[0]).all()
    row = table.filter(pl.col("area_px") > 0).row(0, named=True)
    mask = decode(row["rle"], (row["rle_height_px"], row["rle_width_px"]))
    assert mask.sum() == row["area_px"]
    return table


def test_a_tiny_model_over_three_real_bands(tmp_path, monkeypatch):
    model = tiny_model(tmp_path, monkeypatch, "decam", ("g", "r", "z"))
    psf = {"r": {"model": "gaussian", "fwhm_arcsec": 1.0}}
    found = skyloom.extract(
        "catalog", model=model.id, images=DECAM, score=0.0, least_score=0.0, store=tmp_path,
        mosaic={"tile_px": 300, "overlap_px": 64, "zero_point_mag": 25.0, "pixel_scale_arcsec": None},
        photometry={"enabled": True, "overlap": "split", "psf_size_arcsec": 5.0, "refine": True,
                    "background_arcsec": None, "psf": psf},
    )  # fmt: skip
    table = check(found, (512, 512))
    assert table["image"].unique().to_list() == ["img"]
    with fits.open(DECAM["r"]) as hdus:
        from astropy.wcs import WCS

        sky = WCS(hdus[0].header).pixel_to_world(table["x_px"], table["y_px"])
    assert np.abs(sky.ra.deg - table["ra_deg"].to_numpy()).max() < 1e-6
    assert np.abs(sky.dec.deg - table["dec_deg"].to_numpy()).max() < 1e-6
    assert {f"flux_mask_{band}_njy" for band in "grz"} <= set(table.columns)
    assert table["flux_psf_r_njy"].is_not_null().any()
    assert table["flux_psf_g_njy"].is_null().all(), "nobody has said the PSF of this band"


def test_a_tiny_model_over_a_real_radio_map(tmp_path, monkeypatch):
    model = tiny_model(tmp_path, monkeypatch, "ska", ("560MHz",))
    found = skyloom.extract("catalog", model=model.id, images=RADIO, score=0.0, least_score=0.0, store=tmp_path)
    assert "flux_mask_560MHz_njy" in check(found, (957, 1041)).columns


def test_sep_over_tiles_of_a_real_image_is_sep_over_the_whole(tmp_path):
    options = yaml.safe_load((detectors.CONF / "sep.yaml").read_text()) | {"threshold_sigma": 5.0}
    tables = []
    for tile_px in (512, 320):
        found = skyloom.extract(
            "catalog", detector=options, images=DECAM, score=0.0, least_score=0.0, nms=1.0, store=tmp_path,
            mosaic={"tile_px": tile_px, "overlap_px": 96, "zero_point_mag": None, "pixel_scale_arcsec": None},
        )  # fmt: skip
        tables.append(check(found, (512, 512)))
    whole, tiles = (table.select("x_px", "y_px").to_numpy() for table in tables)
    apart = np.hypot(*(whole[:, None] - tiles[None]).transpose(2, 0, 1))
    # Background and noise are measured in each tile, so objects at the threshold come and go.
    assert (apart.min(axis=1) < 1).mean() > 0.9
    assert (apart.min(axis=0) < 1).mean() > 0.9
    assert {"flux_mask_g"} <= set(tables[0].columns), "counts, of which nobody said what they are"


def test_the_path_of_the_data_is_a_folder():
    assert (Path(REAL) / "optical").is_dir()
