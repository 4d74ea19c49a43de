"""step=split: no position of the sky in two parts, and a cell's part depends on nothing but the cell."""

import astropy.units as u
import numpy as np
import polars as pl
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy_healpix import HEALPix

import skyloom
from make.survey import sky, write_image
from make.windows import grid, index
from skyloom.errors import ConfigError, InputError
from skyloom.sky.geometry.sphere import cell_of
from skyloom.step.split import part_of

HALF = {"train": 0.5, "val": 0.25, "test": 0.25}


def split(store, cutouts, **options):
    options = {"fractions": HALF, "level": 8, **options}
    return skyloom.curate("split", cutouts=cutouts.id, **options, store=store)


@pytest.fixture
def mosaics(tmp_path):
    """Images of 1.6 degrees in SIN projection with 40" pixels: two overlap across RA 0 at +60, one is near the pole."""
    folder = tmp_path / "in"
    for name, (ra, dec) in {"a": (359.5, 60.0), "b": (1.5, 60.4), "c": (100.0, 89.5)}.items():
        path = write_image(folder / f"{name}.fits", sky(144, 144, seed=ord(name)))
        with fits.open(path, mode="update") as file:
            file[0].header.update({"CRVAL1": ra, "CRVAL2": dec, "CDELT1": -40 / 3600, "CDELT2": 40 / 3600})
    return skyloom.curate("cutouts", images=folder, window_px=8, overlap=0.5, threads=1, store=tmp_path)


def footprint(path, row0, col0, size):
    """Sky positions of 5 x 5 points over each window, its corners included, (N, 25)."""
    step = np.linspace(-0.5, size - 0.5, 5)
    row, col = (a.ravel() for a in np.meshgrid(step, step, indexing="ij"))
    return WCS(fits.getheader(path)).pixel_to_world(col0[:, None] + col, row0[:, None] + row).icrs


def test_no_position_on_the_sky_is_in_two_parts(tmp_path, mosaics):
    done = split(tmp_path, mosaics)
    table = mosaics.table().join(done.table("split.parquet"), on="cutout_id")
    assert set(table["split"]) == set(HALF)
    seen = {name: set() for name in HALF}
    coarse = {name: set() for name in HALF}
    for (image, name), rows in table.group_by("image", "split"):
        place = footprint(tmp_path / "in" / f"{image}.fits", rows["row0"].to_numpy(), rows["col0"].to_numpy(), 8)
        for level, into in ((8, coarse), (14, seen)):  # cells of 13.7' and of 13"
            grid_ = HEALPix(nside=2**level, order="nested")
            into[name] |= set(grid_.lonlat_to_healpix(place.ra, place.dec).ravel().tolist())
    for one, two in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not coarse[one] & coarse[two]
        assert not seen[one] & seen[two]
    dropped = done.table("dropped.parquet")
    assert len(dropped) + len(table) == mosaics.counts["kept"]
    assert 0 < len(dropped) == done.counts["dropped"]["border cutout"]["number"]


def test_a_cutout_is_dropped_only_near_a_cell_of_another_part(tmp_path, mosaics):
    done = split(tmp_path, mosaics)
    rows = mosaics.table().join(done.table("dropped.parquet"), on="cutout_id")
    edges = np.cumsum(list(HALF.values()))
    reach = 40 * 8 / np.sqrt(2) * u.arcsec
    angle, share = (
        a.ravel() for a in np.meshgrid(np.arange(0, 360, 2), [0.5, 1.0, 1.3])
    )  # 1.3: spacing of border points
    centre = SkyCoord(rows["ra_deg"].to_numpy()[:, None] * u.deg, rows["dec_deg"].to_numpy()[:, None] * u.deg)
    around = centre.directional_offset_by(angle * u.deg, share * reach)
    parts = part_of(cell_of(around.ra.deg.ravel(), around.dec.deg.ravel(), 8), 8, edges, 0).reshape(around.shape)
    assert (parts.min(axis=1) < parts.max(axis=1)).all()


def test_the_part_of_a_cell_does_not_depend_on_the_cutouts(tmp_path, mosaics):
    done = split(tmp_path, mosaics)
    all_ = dict(done.table("split.parquet").select("cell", "split").unique().rows())
    assert len(all_) == done.table("split.parquet")["cell"].n_unique()  # one part per cell
    table = mosaics.table()
    images = {n: {"pixel_scale_arcsec": 40.0} for n in "abc"}
    few = index(tmp_path, table.filter(pl.int_range(pl.len()) % 3 == 0).select(table.columns[:14]), facts=images)
    other = split(tmp_path, few)
    assert all(all_.get(cell, name) == name for cell, name in other.table("split.parquet")["cell", "split"].rows())
    both = done.table("split.parquet").join(other.table("split.parquet"), on="cutout_id")
    assert (both["split"] == both["split_right"]).all()
    assert len(both) == len(other.table("split.parquet"))


def test_the_seed_decides_and_the_order_follows_the_index(tmp_path, mosaics):
    tables = [split(tmp_path, mosaics, seed=seed).table("split.parquet") for seed in (0, 1)]
    both = tables[0].join(tables[1], on="cutout_id")
    assert not (both["split"] == both["split_right"]).all()
    kept = set(tables[0]["cutout_id"])
    assert tables[0]["cutout_id"].to_list() == [i for i in mosaics.table()["cutout_id"] if i in kept]


def test_cells_are_shared_as_the_fractions_say():
    part = part_of(np.arange(40_000), 6, np.array([0.8, 0.9, 1.0]), 3)
    share = np.bincount(part) / len(part)
    np.testing.assert_allclose(share, [0.8, 0.1, 0.1], atol=0.007)
    assert abs(np.corrcoef(part[1:], part[:-1])[0, 1]) < 0.02  # neighbouring cells are independent
    np.testing.assert_array_equal(part[:9], part_of(np.arange(9), 6, np.array([0.8, 0.9, 1.0]), 3))


def test_cutouts_without_a_position(tmp_path):
    lost = [
        grid(200, 50, 25, image=f"i{n}").with_columns(ra_deg=pl.lit(None, pl.Float64), dec_deg=pl.lit(None, pl.Float64))
        for n in range(30)
    ]
    cutouts = index(tmp_path, *lost)
    with pytest.raises(InputError, match=r"1470 cutouts have no position on the sky .*image i0.*group_by_image"):
        split(tmp_path, cutouts)
    done = split(tmp_path, cutouts, without_sky="group_by_image")
    assert done.counts["without_sky_position"] == done.counts["kept"] == 1470
    table = done.table("split.parquet").join(cutouts.table(), on="cutout_id")
    assert (table.group_by("image").agg(pl.col("split").n_unique())["split"] == 1).all()
    assert table["cell"].null_count() == 1470


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fractions": {"train": 0.5, "val": 0.4, "test": 0.0}}, ConfigError, "fractions add up to 0.9; expected 1"),
        ({"fractions": {"train": 1.5, "val": -0.5, "test": 0.0}}, ConfigError, "fractions.val=-0.5"),
        ({"level": 12}, ConfigError, r"level=12: cells of 0.9' are too small for cutouts that reach .* lower level"),
        (
            {"fractions": {"train": 0.9998, "val": 0.0001, "test": 0.0001}},
            InputError,
            r"for val and test: .* cell\(s\); use a finer level",
        ),
        ({"level": 0}, ConfigError, "level=0"),
    ],
)
def test_what_cannot_be_done(tmp_path, mosaics, options, error, message):
    with pytest.raises(error, match=message):
        split(tmp_path, mosaics, **options)


def test_a_wrong_scale_in_the_header_is_noticed(tmp_path):
    """Pixels twice as long as wide: the recorded scale is their geometric mean."""
    table = grid(1000, 100, 50, ra=10.0, dec=20.0, scale_arcsec=6.0)
    right = split(tmp_path, index(tmp_path, table, scale_arcsec=6.0), level=7)
    small = split(tmp_path, index(tmp_path, table, scale_arcsec=1.0), level=7)
    assert right.counts["dropped"] == small.counts["dropped"]
