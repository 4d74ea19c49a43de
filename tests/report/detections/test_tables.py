"""Tables of any form as sources: columns, classes, magnitudes from fluxes, objects of several cutouts, masks."""

import numpy as np
import polars as pl
import pytest
from astropy.table import Table

from make.artifacts import changed_table
from make.band_cutouts import band_cutouts
from skyloom.datamodule.table_input import open_table_input
from skyloom.errors import InputError
from skyloom.report.detections.columns import Columns
from skyloom.report.detections.match import Matching, densities, match_sources, neighbour_separations
from skyloom.report.detections.numbers import mask_numbers
from skyloom.report.detections.tables import read_sources
from skyloom.sky.geometry.sphere import ARCSEC
from skyloom.sky.mask.rle import encode
from skyloom.store import Store

KINDS = ("cutouts", "catalog")


def read(value, store, *, name="truth", role="truth", mag=True, bad="error", **columns):
    given = open_table_input(value, Store(store), KINDS)
    return read_sources(
        given, name=name, role=role, columns=Columns(**columns), on_bad_position=bad, need_mag=mag
    )  # fmt: skip


@pytest.mark.parametrize("file", ["a.fits", "a.vot", "a.parquet", "a.csv", "a.ecsv"])
def test_every_format_gives_the_same_sources(tmp_path, file):
    table = pl.DataFrame(
        {"RA": [1.0, 2.0, 3.0], "DEC": [-5.0, 6.0, 7.0], "MAG_I": [20.0, np.nan, 22.0], "NAME": ["x", "y", "z"],
         "extendedness": [0, 1, 7]}
    )  # fmt: skip
    path = tmp_path / file
    if file.endswith("parquet"):
        table.write_parquet(path)
    elif file.endswith(".csv"):
        table.with_columns(pl.col("MAG_I").fill_nan(None)).write_csv(path)
    else:
        form = {"a.fits": "fits", "a.vot": "votable", "a.ecsv": "ascii.ecsv"}[file]
        Table(table.to_dict(as_series=False)).write(path, format=form)
    got = read(path, tmp_path)
    assert got.frame["id"].to_list() == ["x", "y", "z"]
    assert got.values("mag") == pytest.approx([20, np.nan, 22], nan_ok=True)
    assert got.frame["category"].to_list() == ["star", "galaxy", None]
    assert got.has == {"mag", "category"}
    assert got.points.shape == (3, 3)


def test_fluxes_colours_and_words(tmp_path):
    pl.DataFrame(
        {"ra": [1.0, 2.0, 3.0], "dec": [0.0, 0.0, 0.0], "f": [100.0, -1.0, 1.0], "g": [21.0, 22.0, 23.0],
         "i": [20.0, 20.0, np.inf], "class": ["STAR", "galaxy", "artefact"]}
    ).write_parquet(tmp_path / "a.parquet")  # fmt: skip
    got = read(tmp_path / "a.parquet", tmp_path, flux="f", zero_point_mag=25.0, colour=("g", "i"))
    assert got.values("mag") == pytest.approx([20, np.nan, 25], nan_ok=True)
    assert got.values("colour") == pytest.approx([1, 2, np.nan], nan_ok=True)
    assert got.frame["category"].to_list() == ["star", "galaxy", None]
    with pytest.raises(InputError, match=r"truth .*a\.parquet.* has no magnitude column"):
        read(tmp_path / "a.parquet", tmp_path, flux="f")
    with pytest.raises(ValueError, match="expected the values of galaxy and star"):
        Columns(classes={"quasar": [1]})


def test_an_object_of_several_cutouts_is_one(tmp_path):
    cutouts = band_cutouts(tmp_path, n=2, bands=3, objects=4, size=24)
    path = next(cutouts.path.glob("truth/*.parquet"))
    table = pl.read_parquet(path)
    ids = table["cutout_id"].unique(maintain_order=True)
    again = table.head(2).with_columns(cutout_id=pl.lit(ids[1]))
    name = f"truth/{path.name}"
    changed_table(
        cutouts, name, lambda table: pl.concat([table, again])
    )  # two objects of the first stand in the second
    got = read(cutouts.id, tmp_path, mag=False)
    assert (got.counts["read"], got.counts["repeated"], got.counts["kept"]) == (10, 2, 8)
    changed_table(cutouts, name, lambda _: again.with_columns(ra_deg=pl.col("ra_deg") + 1e-5).vstack(table))
    with pytest.raises(InputError, match="stands 2 times, and 1 other ids repeat"):
        read(cutouts.id, tmp_path, mag=False)


def test_masks_meet_on_their_cutout(tmp_path):
    square, half, other = (np.zeros((10, 12), bool) for _ in range(3))
    square[2:6, 2:6], half[2:6, 4:6], other[8:, 8:] = True, True, True
    common = {"ra": [1.0, 1.001], "dec": [0.0, 0.0], "height_px": [10, 10], "width_px": [12, 12]}
    pl.DataFrame({**common, "cutout_id": [7, 7], "rle": [encode(square), encode(other)]}).write_parquet(
        tmp_path / "t.parquet"
    )
    pl.DataFrame({**common, "cutout_id": [7, 8], "rle": [encode(half), encode(other)]}).write_parquet(
        tmp_path / "d.parquet"
    )
    sides = [read(tmp_path / f"{n}.parquet", tmp_path, name=n, mag=False) for n in "td"]
    numbers, table = mask_numbers(match_sources(*sides, Matching(0.5, "assign", "separation", 1.0, 1.0)))
    assert numbers["masks"]["pairs"] == 1
    assert numbers["masks"]["pairs_without_common_cutout"] == 1
    assert table["iou"].to_list() == [0.5]
    assert numbers["masks"]["all"]["above_half"] == 1


def test_neighbours_and_density(tmp_path):
    step = 1 / 3600
    pl.DataFrame({"ra": [0.0, 2 * step, 5 * step], "dec": [0.0] * 3}).write_parquet(tmp_path / "t.parquet")
    pl.DataFrame({"ra": [0.0, 4 * step], "dec": [0.0] * 2}).write_parquet(tmp_path / "d.parquet")
    truth, found = (read(tmp_path / f"{n}.parquet", tmp_path, name=n, mag=False) for n in "td")
    matched = match_sources(truth, found, Matching(0.5, "assign", "separation", 1.0, 1.0))
    of_truth, of_found = neighbour_separations(matched)
    assert of_truth == pytest.approx([2, 2, 3])
    assert of_found == pytest.approx([2, 1])  # the first is matched to the truth at 0, the second to none
    cap = 2 * np.pi * (1 - np.cos(2.5 * ARCSEC)) / (60 * ARCSEC) ** 2
    assert densities(truth, truth.points, 2.5) == pytest.approx(np.array([2, 2, 1]) / cap)
