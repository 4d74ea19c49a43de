"""Which true object a detection is: the nearest within a pixel, one detection each, never across cutouts."""

import polars as pl

from skyloom.step.cutouts.tiles.matches import match_tile

ARCSEC = 1 / 3600


def objects(rows, name):
    """Rows of (cutout, id, offset along RA in arcsec) on the equator, across RA 0."""
    return pl.DataFrame(
        [{"cutout_id": c, name: i, "ra_deg": (x * ARCSEC) % 360, "dec_deg": 0.0} for c, i, x in rows],
        schema={"cutout_id": pl.Int64, name: pl.Int64 if name == "detection_id" else pl.String, "ra_deg": pl.Float64,
                "dec_deg": pl.Float64},
    )  # fmt: skip


def match(detections, truth):
    return match_tile(
        objects(detections, "detection_id"), objects(truth, "object_id"), max_sep_arcsec=0.0575,
        pixel_scale_arcsec=0.0575,
    )  # fmt: skip


def test_the_nearest_object_is_taken_also_across_ra_0():
    table, counts = match([(1, 7, -0.01), (1, 8, 1.0)], [(1, "a", 0.01), (1, "b", -0.05), (1, "c", 1.06)])
    assert table.select("detection_id", "object_id").rows() == [(7, "a")]
    assert abs(table["sep_arcsec"][0] - 0.02) < 1e-6
    assert abs(table["sep_px"][0] - 0.02 / 0.0575) < 1e-5
    assert table["match_quality"][0] == "unique"
    assert not table["is_ambiguous"][0]
    assert counts == {"matched": 1, "beaten": 0, "unmatched": 1}


def test_of_several_claims_the_closest_wins_and_is_marked():
    table, counts = match([(1, 1, 0.03), (1, 2, -0.01), (1, 3, 0.05)], [(1, "a", 0.0)])
    row = table.row(0, named=True)
    assert (row["detection_id"], row["n_competing"], row["match_quality"]) == (2, 3, "closest_of_multiple")
    assert row["is_ambiguous"]
    assert counts == {"matched": 1, "beaten": 2, "unmatched": 0}


def test_one_pixel_is_the_limit_and_included():
    table, _ = match([(1, 1, 0.0575), (1, 2, 10.0576)], [(1, "a", 0.0), (1, "b", 10.0)])
    assert table["object_id"].to_list() == ["a"]


def test_an_object_of_the_neighbouring_cutout_is_not_taken():
    table, counts = match([(1, 1, 0.0)], [(2, "a", 0.0)])
    assert table.is_empty()
    assert counts["unmatched"] == 1


def test_without_objects_there_is_an_empty_table():
    table, _counts = match([(1, 1, 0.0)], [])
    assert table.is_empty()
    assert table.columns[:3] == ["cutout_id", "detection_id", "object_id"]
    assert match([], [(1, "a", 0.0)])[1] == {"matched": 0, "beaten": 0, "unmatched": 0}
