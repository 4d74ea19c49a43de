"""step=annotate: every object is annotated or rejected with a reason, whatever the workers and interruptions."""

import json

import numpy as np
import polars as pl
import pytest

import skyloom
from make.artifacts import changed_table
from make.band_cutouts import band_cutouts
from skyloom.datamodule.band_index import BandIndex, truth_of
from skyloom.datamodule.table_input import OUTSIDE
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.sky.mask import rle
from skyloom.step.annotate import truth as annotate_truth
from skyloom.store import Store

SIZE = 48


@pytest.fixture
def cutouts(tmp_path):
    return band_cutouts(tmp_path / "store", bands=6, n=3, size=SIZE, tiles=2)


def annotate(cutouts, **options):
    return skyloom.curate(
        "annotate", **{"cutouts": cutouts, "survey": "lsst", "store": cutouts.path.parents[1]} | options
    )


def all_bytes(artifact):
    """Content of every table, by name."""
    return {str(p.relative_to(artifact.path)): p.read_bytes() for p in sorted(artifact.path.rglob("*.parquet"))}


def annotations(artifact):
    return pl.concat([pl.read_parquet(path) for path in sorted((artifact.path / "annotations").iterdir())])


def rejected(artifact):
    return pl.concat([pl.read_parquet(path) for path in sorted((artifact.path / "rejected").iterdir())])


def with_truth(cutouts, change):
    """The same cutouts with another truth table in the first tile."""
    path = sorted((cutouts.path / "truth").iterdir())[0]
    return changed_table(cutouts, f"truth/{path.name}", change)


def test_tables_join_by_cutout_and_agree_with_their_masks(cutouts):
    found = annotate(cutouts)
    table, truth = annotations(found), pl.concat([truth_of(cutouts, f"{51 + t - 0.06:.2f}_-39.9") for t in range(2)])
    assert found.counts["read"] == len(truth) == found.counts["kept"] + len(rejected(found))
    joined = table.join(truth, on=["cutout_id", "object_id"], suffix="_truth")
    assert len(joined) == len(table) >= 25
    assert joined["keypoint_x_px"].equals(joined["x_px"], null_equal=True)
    assert (joined["category_id"] == joined["category_id_truth"]).all()
    np.testing.assert_allclose(table["flux_i_njy"], 10 ** ((31.4 - table["mag_i"].to_numpy()) / 2.5))
    assert {"redshift", "size_disk_true", "mag_true_u"} <= set(table.columns)
    for row in table.iter_rows(named=True):
        mask = rle.decode(row["rle"], (SIZE, SIZE))
        assert rle.box(row["rle"], (SIZE, SIZE)) == tuple(row[f"bbox_{name}_px"] for name in "xywh")
        assert mask.sum() == row["area_px"] >= 12
        assert mask[round(row["keypoint_y_px"]), round(row["keypoint_x_px"])]
        edge = np.ones_like(mask)
        edge[1:-1, 1:-1] = False
        assert (mask & edge).any() or not row["clipped"]
    assert table["clipped"].any()
    images = found.table("images.parquet")
    assert images["cutout_id"].to_list() == BandIndex(cutouts).table["cutout_id"].to_list()
    assert images["annotations"].sum() == len(table)
    assert json.loads(found.file("categories.json").read_text()) == [
        {"id": 0, "name": "galaxy"}, {"id": 1, "name": "star"}
    ]  # fmt: skip
    assert found.notes["cutouts"] == cutouts.id


def test_noise_is_that_of_the_sky_or_as_given(cutouts):
    noise = annotate(cutouts).table("images.parquet")["noise_r"]
    assert ((noise > 0.045) & (noise < 0.09)).all()  # 0.05 was drawn; faint wings of the sources add to it
    given = annotate(cutouts, noise=dict.fromkeys("ugrizy", 0.5))
    assert given.table("images.parquet")["noise_r"].to_list() == [0.5] * 6
    assert annotations(given)["area_px"].sum() < annotations(annotate(cutouts))["area_px"].sum()
    with pytest.raises(ConfigError, match=r"noise has no value for g, r, i, z, y"):
        annotate(cutouts, noise={"u": 1.0})


def test_every_rejection_has_its_reason(cutouts):
    def change(truth):
        n = pl.int_range(pl.len())
        galaxies = truth.filter(pl.col("category_id") == 0)["object_id"].to_list()
        bad, dark, faint = galaxies[:3]
        truth = truth.with_columns(
            size_disk_true=pl.when(pl.col("object_id") == bad).then(-1.0).otherwise("size_disk_true"),
            **{
                f"mag_true_{b}": pl.when(pl.col("object_id") == dark).then(None)
                .when(pl.col("object_id") == faint).then(31.0).otherwise(f"mag_true_{b}")
                for b in "ugrizy"
            },
        )  # fmt: skip
        return pl.concat([truth, truth.filter(n == len(truth) - 1)])

    found = annotate(with_truth(cutouts, change), min_area_px=200)
    reasons = dict(rejected(found).group_by("reason").len().iter_rows())
    others = {reason: number for reason, number in reasons.items() if reason != "small_mask"}
    assert others == {"bad_shape": 1, "no_flux": 1, "empty_mask": 1, "duplicate_id": 1}
    assert reasons["small_mask"] > 0
    assert annotations(found)["area_px"].min() >= 200
    counts = found.counts
    assert {name: entry["number"] for name, entry in counts["dropped"].items()} == reasons
    assert counts["read"] == counts["kept"] + sum(reasons.values()) == 31
    assert "-1.0" in counts["dropped"]["bad_shape"]["examples"][0]


def test_blank_and_constant_bands_are_left_out_and_a_blank_cutout_says_so(tmp_path):
    pixels = np.random.default_rng(0).normal(0, 0.05, (2, 6, SIZE, SIZE))
    pixels[0, 2], pixels[0, 3], pixels[1] = np.nan, 0.0, np.nan
    pixels[0, 4, :9] = np.nan
    cutouts = band_cutouts(tmp_path / "store", bands=6, n=2, size=SIZE, pixels=pixels)
    found = annotate(cutouts)
    first, second = found.table("images.parquet").to_dicts()
    assert first["noise_r"] is None
    assert first["noise_i"] is None
    assert first["noise_z"] == pytest.approx(0.05, rel=0.05)
    assert first["annotations"] == 5
    assert second["annotations"] == 0
    assert rejected(found)["reason"].to_list() == ["no_noise"] * 5
    assert found.counts["cutouts_without"] == 1


def test_workers_and_interruptions_do_not_matter(cutouts, monkeypatch):
    first = annotate(cutouts)
    content = all_bytes(first)
    store = Store(cutouts.path.parents[1])
    store.remove(first)
    real, calls = annotate_truth.band_noise, []

    def stop_in_the_second_tile(index, row, task):
        calls.append(task.tile)
        if len(set(calls)) == 2:
            raise KeyboardInterrupt
        return real(index, row, task)

    monkeypatch.setattr(annotate_truth, "band_noise", stop_in_the_second_tile)
    with pytest.raises(KeyboardInterrupt):
        annotate(cutouts)
    monkeypatch.setattr(annotate_truth, "band_noise", real)
    again = annotate(cutouts)
    assert again.id == first.id
    assert all_bytes(again) == content
    store.remove(again)
    assert all_bytes(annotate(cutouts, workers=2)) == content


def test_deepdisc_choices(tmp_path):
    cutouts = band_cutouts(tmp_path / "store", bands=6, n=2, size=SIZE)
    right, theirs = (annotations(annotate(cutouts, compat=compat)) for compat in (None, "deepdisc"))
    both = right.join(theirs, on=["cutout_id", "object_id"], suffix="_d")
    assert len(both) >= 8
    overlap = []
    for row in both.iter_rows(named=True):
        a, b = (rle.decode(row[name], (SIZE, SIZE)) for name in ("rle", "rle_d"))
        overlap.append((a & b).sum() / (a | b).sum())
    assert 0.8 < np.median(overlap) < 0.99  # the same objects, but shifted and rounder
    assert (theirs["bbox_x_px"] < 0).any()
    assert (right["bbox_x_px"] >= 0).all()
    with pytest.raises(ConfigError, match="deepdisc"):
        annotate(cutouts, compat="deepdisk")


def test_what_does_not_fit_is_one_line(cutouts, tmp_path):
    with pytest.raises(ConfigError, match=r"are of survey lsst with bands u, .*, not of roman .*; give survey=lsst"):
        annotate(cutouts, survey="roman")
    with pytest.raises(StoreError, match=r"have no matches/50\.94_-39\.9\.parquet"):
        annotate(cutouts, source="segmentation")
    with pytest.raises(ConfigError, match="snr=0"):
        annotate(cutouts, snr=0)
    with pytest.raises(
        InputError, match=r"truth/50\.94.*has no column bulge_to_total_ratio_z.*bulge_fraction of band z"
    ):
        annotate(with_truth(cutouts, lambda truth: truth.drop("bulge_to_total_ratio_z")))


def test_an_object_beside_the_cutout_is_annotated_where_it_reaches_in(cutouts):
    first = sorted((cutouts.path / "truth").iterdir())[0].stem
    whole = annotations(annotate(cutouts, noise=dict.fromkeys("ugrizy", 0.05)))
    moved_px = 30

    def change(truth):
        x = pl.col("x_px") - moved_px
        return truth.with_columns(x_px=x, **{OUTSIDE: x < -0.5})

    changed = with_truth(cutouts, change)
    annotate_truth._open.cache_clear()  # this process has read the old table
    found = annotate(changed, noise=dict.fromkeys("ugrizy", 0.05), snr=5.001)
    names = [name for name in found.manifest["files"] if name.startswith("annotations/") and first in name]
    table = found.table(names[0])
    truth = changed.table(f"truth/{first}.parquet")
    known_px = SIZE - moved_px  # columns that the unmoved image shows, too
    expected = {
        (row["cutout_id"], row["object_id"]): rle.decode(row["rle"], (SIZE, SIZE))[:, moved_px:]
        for row in whole.join(truth, on=["cutout_id", "object_id"]).iter_rows(named=True)
    }
    found_masks = {
        row[:2]: rle.decode(row[2], (SIZE, SIZE)) for row in table.select("cutout_id", "object_id", "rle").rows()
    }
    assert {key for key, mask in expected.items() if mask.sum() >= 12} <= set(found_masks)
    for key, mask in found_masks.items():
        assert (mask[:, :known_px] ^ expected[key]).sum() <= 2  # snr differs by 0.02 %
        assert expected[key].sum() >= 12 or mask[:, known_px:].any()
    assert table[OUTSIDE].any()
    assert table.filter(OUTSIDE)["clipped"].all()
    reasons = set(rejected(found).join(truth.filter(OUTSIDE), on=["cutout_id", "object_id"])["reason"])
    assert reasons == {"not_reaching"}
