"""step=merge: all rows, each once, with their source; whatever does not fit is refused by name."""

import numpy as np
import polars as pl
import pytest

import skyloom
from make.survey import sky, write_image
from make.windows import grid, index
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.step.cutouts.table import COLUMNS


def merge(store, *artifacts, **options):
    return skyloom.curate("merge", cutouts=[a.id for a in artifacts], **options, store=store)


def test_rows_are_all_there_and_say_where_they_come_from(tmp_path):
    a, b = index(tmp_path, grid(200, 50, 25, image="a")), index(tmp_path, grid(200, 50, 50, image="b"))
    merged = merge(tmp_path, a, b)
    table = merged.table()
    assert table.columns == list(COLUMNS)
    expected = pl.concat([a.table(), b.table()]).sort("image", "row0", "col0")
    assert table.equals(expected)
    assert dict(table.group_by("source").len().rows()) == {a.id: 49, b.id: 16}
    assert merged.notes["rows_per_artifact"] == {a.id: 49, b.id: 16}
    assert merged.counts["kept"] == 65
    assert {x.id for x in merged.inputs.values()} == {a.id, b.id}


def test_the_order_of_the_list_and_repeats_do_not_matter(tmp_path):
    a, b = index(tmp_path, grid(200, 50, 25, image="a")), index(tmp_path, grid(200, 50, 50, image="b"))
    one = merge(tmp_path, a, b)
    assert merge(tmp_path, b, a).id == one.id
    assert merge(tmp_path, b, a, b).id == one.id


def test_the_same_window_in_two_indexes_appears_once_and_is_counted(tmp_path):
    a, b = index(tmp_path, grid(200, 50, 25)), index(tmp_path, grid(200, 50, 50))
    merged = merge(tmp_path, a, b)
    assert merged.counts["kept"] == merged.table()["cutout_id"].n_unique() == 49
    assert merged.counts["dropped"]["repeated window"]["number"] == 16
    dropped = merged.table("dropped.parquet")
    assert set(dropped["cutout_id"]) == set(b.table()["cutout_id"])
    first, second = sorted([a.id, b.id])
    assert set(dropped["source"]) == {second}
    assert set(dropped["kept_source"]) == {first}
    assert len(merged.table("images.parquet")) == 1


def test_a_merge_of_merges_keeps_the_first_source(tmp_path):
    parts = [index(tmp_path, grid(100, 50, 50, image=name)) for name in "abc"]
    merged = merge(tmp_path, merge(tmp_path, *parts[:2]), parts[2])
    assert set(merged.table()["source"]) == {p.id for p in parts}


def test_pixels_can_be_read_through_the_merged_index(tmp_path):
    store = tmp_path / "store"
    for i, name in enumerate("ab"):
        write_image(tmp_path / name / f"{name}.fits", sky(64, 64, seed=i))
    one, two = (skyloom.curate("cutouts", images=tmp_path / n, window_px=32, threads=1, store=store) for n in "ab")
    merged = CutoutIndex(merge(store, one, two))
    for single in (one, two):
        own = CutoutIndex(single)
        rows = merged.rows_of(own.cutout_id)
        np.testing.assert_array_equal(merged.read(rows), own.read(np.arange(len(own))))


def test_one_name_for_two_images_is_refused_naming_both(tmp_path):
    a = index(tmp_path, grid(100, 50, 50))
    b = index(tmp_path, grid(100, 50, 50), facts={"a": {"fingerprint": "other", "path": "/elsewhere/a.fits"}})
    with pytest.raises(InputError, match="image a has different content") as error:
        merge(tmp_path, a, b)
    assert all(word in str(error.value) for word in ("/nowhere/a.fits", "/elsewhere/a.fits", a.id, b.id))


def test_different_units_are_refused(tmp_path):
    a, b = index(tmp_path, grid(100, 50, 50)), index(tmp_path, grid(100, 50, 50, image="b"), unit="nJy")
    with pytest.raises(InputError, match=r"different units: .*(Jy/beam|nJy) \(image"):
        merge(tmp_path, a, b)


def test_different_sizes_are_refused_unless_allowed(tmp_path):
    a, b = index(tmp_path, grid(100, 50, 50)), index(tmp_path, grid(100, 25, 25, image="b"))
    with pytest.raises(InputError, match=r"different window sizes.*allow_mixed_sizes=true"):
        merge(tmp_path, a, b)
    merged = merge(tmp_path, a, b, allow_mixed_sizes=True)
    assert merged.counts["kept"] == 4 + 16
    assert merged.notes["window_px"] is None


def test_different_surveys_are_allowed_and_recorded(tmp_path):
    a = index(tmp_path, grid(100, 50, 50))
    b = index(tmp_path, grid(100, 50, 50, image="b").with_columns(survey=pl.lit("lotss")))
    assert merge(tmp_path, a, b).notes["surveys"] == ["fake", "lotss"]
    assert merge(tmp_path, a, b).notes["survey"] is None


def test_a_fill_value_travels_and_must_be_one(tmp_path):
    filled = [index(tmp_path, grid(100, 50, 50, image=name), notes={"fill_value": "median"}) for name in "ab"]
    assert merge(tmp_path, *filled).notes["fill_value"] == "median"
    assert deduplicated(tmp_path, filled[0]).notes["fill_value"] == "median"
    with pytest.raises(InputError, match=r"fill blank pixels differently .*median.*null"):
        merge(tmp_path, filled[0], index(tmp_path, grid(100, 50, 50, image="c")))


def deduplicated(store, artifact):
    return skyloom.curate("deduplicate", cutouts=artifact.id, store=store)


def test_a_fact_that_one_index_lacks_comes_from_the_other(tmp_path):
    a, b = index(tmp_path, grid(100, 50, 50)), index(tmp_path, grid(100, 50, 25), unit=None)
    assert merge(tmp_path, a, b).table("images.parquet")["unit"].to_list() == ["Jy/beam"]


def test_columns_that_only_one_index_has_stay(tmp_path):
    plain, rich = index(tmp_path, grid(100, 50, 50)), grid(100, 50, 50, image="b").with_columns(island=pl.lit(7))
    merged = merge(tmp_path, plain, index(tmp_path, rich)).table()
    assert merged["island"].to_list() == [None] * 4 + [7] * 4


@pytest.mark.parametrize("damage", ["short", "gone", "changed"])
def test_a_damaged_input_is_an_error_and_leaves_nothing(tmp_path, damage):
    a, b = index(tmp_path, grid(100, 50, 50)), index(tmp_path, grid(100, 50, 50, image="b"))
    path = b.path / "cutouts.parquet"
    path.chmod(0o644)
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        b.table()[:2].write_parquet(path)
    with pytest.raises(InputError, match=f"cutouts {b.id} are damaged"):
        merge(tmp_path, a, b)
    assert {p.name for p in (tmp_path / "cutouts").iterdir()} == {a.id, b.id}


@pytest.mark.parametrize("value", [[], None, "abc"])
def test_something_else_than_a_list(tmp_path, value):
    with pytest.raises(ConfigError, match="expected a list of cutouts"):
        skyloom.curate("merge", cutouts=value, store=tmp_path)


def test_an_unknown_id_is_an_error(tmp_path):
    a = index(tmp_path, grid(100, 50, 50))
    with pytest.raises(StoreError, match="zzzz"):
        skyloom.curate("merge", cutouts=[a.id, "zzzz"], store=tmp_path)
