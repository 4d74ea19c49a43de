"""step=deduplicate: no shared pixels within an image, no shared places between images, and a reason for each loss."""

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

import skyloom
from make.windows import grid, index
from skyloom.errors import ConfigError


def deduplicate(store, cutouts, **options):
    return skyloom.curate("deduplicate", cutouts=cutouts.id, **options, store=store)


def positions(table):
    return SkyCoord(table["ra_deg"].to_numpy() * u.deg, table["dec_deg"].to_numpy() * u.deg)


@pytest.fixture(params=[(123.0, 45.0), (0.0, 60.0), (200.0, 89.99)], ids=["plain", "ra0", "pole"])
def overlapping(request, tmp_path):
    """Two mosaics half a side apart, and far away a third one."""
    ra, dec = request.param
    step = 0.2 / np.cos(np.radians(dec)) if dec < 89 else 0.0
    tables = [
        grid(1000, 100, 50, image="a", ra=ra, dec=dec, seed=1),
        grid(1000, 100, 50, image="b", ra=(ra + step) % 360, dec=dec, seed=2),
        grid(1000, 100, 50, image="c", ra=ra + 90, dec=dec - 10, seed=3),
    ]
    return index(tmp_path, *tables)


def test_nothing_near_is_left_and_everything_lost_has_a_better_one_near(tmp_path, overlapping):
    done = deduplicate(tmp_path, overlapping, within=None)
    before, after = overlapping.table(), done.table()
    place = positions(after)
    apart = place[:, None].separation(place[None, :]).arcsec
    different = after["image"].to_numpy()[:, None] != after["image"].to_numpy()
    limit = 0.5 * 100 * 1.5
    assert apart[different].min() >= limit
    dropped = done.table("dropped.parquet")
    assert len(dropped) > 50
    assert len(before) == len(after) + len(dropped)
    assert set(dropped["reason"]) == {"sky"}
    assert set(dropped["duplicate_of"]) <= set(after["cutout_id"])
    rows = {name: before.rows_by_key("cutout_id", named=True, unique=True) for name in ("x",)}["x"]
    for id, _, other, distance, _ in dropped.rows():
        lost, kept = rows[id], rows[other]
        assert kept["rms"] < lost["rms"]
        assert kept["image"] != lost["image"]
        one, two = (SkyCoord(x["ra_deg"], x["dec_deg"], unit="deg") for x in (lost, kept))
        assert one.separation(two).arcsec == pytest.approx(distance, abs=1e-4)
        assert distance < limit
    assert "c" not in set(dropped["image"])


def test_within_keeps_windows_that_share_no_pixel(tmp_path, overlapping):
    done = deduplicate(tmp_path, overlapping, across=None)
    for _, table in done.table().group_by("image"):
        pixels = np.zeros((1000, 1000), int)
        for row, col in table.select("row0", "col0").rows():
            pixels[row : row + 100, col : col + 100] += 1
        assert pixels.max() == 1
        assert pixels.all()  # 10 x 10 windows of 100 px
    assert set(done.table("dropped.parquet")["reason"]) == {"overlap"}


def test_both_together_and_the_counts(tmp_path, overlapping):
    done = deduplicate(tmp_path, overlapping)
    counts = done.counts
    lost = {name: entry["number"] for name, entry in counts["dropped"].items()}
    assert counts["kept"] == counts["read"] - sum(lost.values()) == len(done.table())
    assert lost == {
        f"{reason} duplicate": n for reason, n in done.table("dropped.parquet")["reason"].value_counts().rows()
    }
    assert counts["without_sky_position"] == 0
    again = deduplicate(tmp_path, done)
    assert again.counts["kept"] == counts["kept"]


def test_the_order_of_the_rows_has_no_influence(tmp_path, overlapping):
    table = overlapping.table()
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = deduplicate(tmp_path, index(tmp_path, table, order=order))
    plain = deduplicate(tmp_path, overlapping)
    assert set(shuffled.table()["cutout_id"]) == set(plain.table()["cutout_id"])
    assert shuffled.table("dropped.parquet").equals(plain.table("dropped.parquet"))
    kept = set(shuffled.table()["cutout_id"])
    assert shuffled.table()["cutout_id"].to_list() == [i for i in table["cutout_id"][order] if i in kept]


def test_ties_are_decided_by_blank_pixels_then_the_edge_then_the_id(tmp_path):
    a, b = (grid(400, 100, 100, image=name).with_columns(rms=pl.lit(1.0, pl.Float32)) for name in "ab")
    done = deduplicate(tmp_path, index(tmp_path, a, b), within=None)
    best = {min(x, y) for x, y in zip(a["cutout_id"], b["cutout_id"], strict=True)}
    assert set(done.table()["cutout_id"]) == best
    wide = index(tmp_path, a, b, length_px=400, facts={"b": {"height_px": 900, "width_px": 900}})
    inner = deduplicate(tmp_path, wide, within=None).table().filter(pl.min_horizontal("row0", "col0") > 0)
    far = inner.filter(pl.max_horizontal("row0", "col0") == 300)  # at the edge of a, well inside b
    assert len(far) == 5
    assert set(far["image"]) == {"b"}
    blank = index(tmp_path, a, b.with_columns(nan_frac=pl.lit(0.1, pl.Float32)))
    assert set(deduplicate(tmp_path, blank, within=None).table()["image"]) == {"a"}


def test_rows_without_a_position_or_rms_are_kept_or_lose(tmp_path):
    a, b = grid(400, 100, 100, image="a"), grid(400, 100, 100, image="b")
    lost = b.with_columns(ra_deg=pl.lit(None, pl.Float64), dec_deg=pl.lit(None, pl.Float64))
    done = deduplicate(tmp_path, index(tmp_path, a, lost))
    assert done.counts["kept"] == 32
    assert done.counts["without_sky_position"] == 16
    noisy = b.with_columns(rms=pl.lit(float("nan"), pl.Float32))
    assert set(deduplicate(tmp_path, index(tmp_path, a, noisy)).table()["image"]) == {"a"}


def test_the_separation_is_in_windows(tmp_path):
    a = grid(400, 100, 100, image="a")
    b = grid(400, 100, 100, image="b", dec=45.0 + 30 * 1.5 / 3600)  # 30 px apart
    both = index(tmp_path, a, b)
    assert deduplicate(tmp_path, both, min_separation=0.31).counts["kept"] < 32
    assert deduplicate(tmp_path, both, min_separation=0.29).counts["kept"] == 32


def test_nothing_to_do_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="within and across are both null"):
        deduplicate(tmp_path, index(tmp_path, grid(400, 100, 100)), within=None, across=None)
    with pytest.raises(ConfigError, match="min_separation=0"):
        deduplicate(tmp_path, index(tmp_path, grid(400, 100, 100)), min_separation=0)
