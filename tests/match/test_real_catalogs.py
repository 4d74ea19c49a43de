"""Matching of real truth tables and detections: an exact key, and a field so dense that the nearest is often wrong."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from skyloom.match import assign, close_pairs, nearest, sky_points
from skyloom.match.assign import mixed_cost

FOLDER = os.environ.get("SKYLOOM_REAL_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="SKYLOOM_REAL_DATA does not name the folder of real images")
FLUX, FLUX_COLUMNS = 5, (2, 4, 6)  # truth: Jy; PyBDSF: RA, DEC, Total_flux


def catalogs():
    return Path(str(FOLDER)) / "catalogs"


def test_openuniverse_truth_tables_share_what_their_ids_say():
    one, two = (pl.read_parquet(path) for path in sorted(catalogs().glob("ou2024_Roman_TDS_index_*.parquet")))
    key = [table["object_id"].to_numpy() for table in (one, two)]
    shared = len(np.intersect1d(*key))
    assert shared == 18_286
    pairs = close_pairs(*(sky_points(t["ra_deg"].to_numpy(), t["dec_deg"].to_numpy()) for t in (one, two)), 0.5)
    found = assign(pairs)
    right = int((key[0][found.left] == key[1][found.right]).sum())
    loose = nearest(pairs)
    wrong = len(loose) - int((key[0][loose.left] == key[1][loose.right]).sum())
    print(f"one-to-one: precision {right / len(found):.4f}, recall {right / shared:.4f}; nearest: {wrong} wrong")
    assert right == len(found) == shared  # both tables give the same position, so nothing is left to be wrong
    assert wrong == 62  # sources of one table only, whose nearest neighbour in the other is another source


@pytest.fixture(scope="module")
def sdc1():
    truth = np.loadtxt(catalogs() / "sdc1_truth.cat")
    detected = np.loadtxt(catalogs() / "sdc1_pybdsf.srl", usecols=FLUX_COLUMNS)
    return truth, detected


def test_sdc1_detections_and_truth(sdc1):
    truth, detected = sdc1
    assert (len(truth), len(detected)) == (17_731, 1_963)
    pairs = close_pairs(sky_points(detected[:, 0], detected[:, 1]), sky_points(truth[:, 3], truth[:, 4]), 1.5)
    by_position = nearest(pairs)
    assert len(by_position) == 1_955
    mag = [-2.5 * np.log10(flux) for flux in (detected[:, 2], truth[:, FLUX])]
    cost = mixed_cost(pairs, sep_scale_arcsec=0.3, left_mag=mag[0], right_mag=mag[1], mag_scale=0.3)
    by_both = assign(pairs, cost)
    far = [int((np.abs(mag[0][m.left] - mag[1][m.right]) > 1).sum()) for m in (by_position, by_both)]
    print(f"SDC1, {len(by_both)} pairs, off by more than 1 mag: nearest {far[0]}, with fluxes {far[1]}")
    assert len(by_both) == 1_955
    assert far == [30, 12]


def test_fluxes_find_the_right_one_of_a_dense_field(sdc1):
    """The brightest truths seen with known errors: how often is the match the source that was seen?"""
    truth, detected = sdc1
    rng = np.random.default_rng(0)
    seen = np.argsort(-truth[:, FLUX])[: len(detected)]
    error_arcsec, error_mag = 0.35, 0.3
    dec = truth[seen, 4] + rng.normal(0, error_arcsec, len(seen)) / 3600
    ra = truth[seen, 3] + rng.normal(0, error_arcsec, len(seen)) / 3600 / np.cos(np.radians(dec))
    mag = -2.5 * np.log10(truth[:, FLUX])
    seen_mag = mag[seen] + rng.normal(0, error_mag, len(seen))
    pairs = close_pairs(sky_points(ra, dec), sky_points(truth[:, 3], truth[:, 4]), 1.5)
    cost = mixed_cost(pairs, sep_scale_arcsec=error_arcsec, left_mag=seen_mag, right_mag=mag, mag_scale=error_mag)
    matchings = {"nearest": nearest(pairs), "one-to-one": assign(pairs), "with fluxes": assign(pairs, cost)}
    right = {name: int((seen[m.left] == m.right).sum()) for name, m in matchings.items()}
    print(f"SDC1, {len(seen)} sources seen again, matched rightly: {right}")
    assert right["nearest"] < 0.97 * len(seen)
    assert right["with fluxes"] > 0.995 * len(seen)
