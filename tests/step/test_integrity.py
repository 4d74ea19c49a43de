"""step=integrity: every problem is found where it was put, and nowhere else; the report has the predecessor's form."""

import json

import numpy as np
import polars as pl
import pytest

import skyloom
from make.artifacts import changed_table
from make.band_cutouts import band_cutouts
from make.survey import sky, write_image
from skyloom.datamodule.band_index import BandIndex
from skyloom.errors import ConfigError, InputError
from skyloom.step.integrity import pieces
from skyloom.step.integrity.gate import WHY, corrupt_cutouts

README = """\
Total cutouts checked:                 4
Corrupt cutouts found:                 2 (50.00%)
  - All zero cutouts:                  0
  - Cutouts with NaN values:           2
  - Cutouts with empty bands:          0

Per-band statistics:
  Y106 (band 0):
    - NaN count:                       1
    - Empty count:                     0
  J129 (band 1):
    - NaN count:                       2
    - Empty count:                     0
  H158 (band 2):
    - NaN count:                       0
    - Empty count:                     0
"""


def noise(n=4, bands=3, size=32, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (n, bands, size, size)).astype(np.float32)


def make(tmp_path, pixels):
    return band_cutouts(tmp_path / "store", bands=pixels.shape[1], n=len(pixels), size=pixels.shape[2], pixels=pixels)


def examine(cutouts, **options):
    artifact = skyloom.curate("integrity", cutouts=cutouts, **options, store=cutouts.path.parents[1])
    return artifact, artifact.table(), json.loads(artifact.file("report.json").read_text())


def image_file(cutouts, row, band):
    index = BandIndex(cutouts)
    return index.image_path(index.table["image"][row], band)


def overwrite(path, data):
    path.chmod(0o644)
    path.write_bytes(data)


def test_every_problem_is_found_where_it_was_put(tmp_path):
    pixels = noise(6)
    pixels[0, 1, 2, 3:7] = np.nan
    pixels[1] = 0
    pixels[2, 2] = 0
    pixels[3, 0, 0, 0] = np.inf
    pixels[3, 0, 0, 1] = -np.inf
    pixels[3, 2, 5, 5] = np.nan
    pixels[4, 0] = np.nan
    cutouts = make(tmp_path, pixels)
    artifact, table, report = examine(cutouts)
    ids = cutouts.table()["cutout_id"]
    assert artifact.kind == "integrity"
    assert len(table) == 18
    assert table["cutout_id"].to_list() == np.repeat(ids.to_numpy(), 3).tolist()
    nan = np.isnan(pixels).sum((2, 3))
    np.testing.assert_array_equal(table["nan_count"].to_numpy().reshape(6, 3), nan)
    np.testing.assert_array_equal(table["inf_count"].to_numpy().reshape(6, 3), np.isinf(pixels).sum((2, 3)))
    np.testing.assert_array_equal(table["all_zero"].to_numpy().reshape(6, 3), (pixels == 0).all((2, 3)))
    assert not table.select("unreadable", "wrong_shape", "wrong_dtype").to_numpy().any()
    found = corrupt_cutouts(artifact)
    assert found["cutout_id"].to_list() == ids[:5].to_list()
    assert found["reason"].to_list() == ["NaN pixels", "all zero", "empty band", "NaN pixels", "NaN pixels"]
    assert found["detail"][3] == "NaN pixels in H158; infinite pixels in Y106"
    assert set(found["reason"]) <= set(WHY)
    assert (artifact.counts["read"], artifact.counts["sound"], artifact.counts["corrupt"]) == (6, 1, 5)
    summary = report["summary"]
    assert (summary["total_cutouts"], summary["corrupt_cutouts"]) == (6, 5)
    assert (summary["cutouts_all_zero"], summary["cutouts_with_nans"]) == (1, 3)
    assert summary["cutouts_with_empty_bands"] == 2
    assert summary["band_nan_counts"] == {"Y106": 1, "J129": 1, "H158": 1}
    assert summary["band_empty_counts"] == {"Y106": 1, "J129": 1, "H158": 2}
    names = cutouts.table()["file_name"].to_list()
    assert list(report["corrupt_cutouts"]) == sorted(names[:5])
    entry = report["corrupt_cutouts"][names[3]]
    assert (entry["filename"], entry["shape"]) == (names[3], [3, 32, 32])
    assert (entry["nan_bands"], entry["inf_bands"]) == (["H158"], ["Y106"])
    assert report["corrupt_cutouts"][names[1]]["all_zero"] is True
    assert "error" not in entry


def test_the_summary_is_that_of_the_readme(tmp_path, capsys):
    pixels = noise()
    pixels[1, 0, 0, 0] = pixels[1, 1, 0, 0] = pixels[3, 1, 4, 4] = np.nan
    artifact, _, _ = examine(make(tmp_path, pixels))
    assert artifact.file("summary.txt").read_text() == README
    assert README in capsys.readouterr().err
    pixels[0, 2, 0, 0] = np.inf
    artifact, _, _ = examine(make(tmp_path, pixels))
    text = artifact.file("summary.txt").read_text()
    assert "  - Cutouts with infinite values:      1\n" in text
    assert "    - Infinite count:                  1\n" in text


@pytest.mark.parametrize("kind", ["sky", "large offset", "tiny variance", "wide range", "constant", "blanks"])
@pytest.mark.parametrize("size", [1, 100, 200_000])
def test_numbers_of_a_plane_are_those_of_numpy_in_float64(kind, size):
    rng = np.random.default_rng(1)
    x = {
        "sky": lambda: rng.normal(0.05, 1, size),
        "large offset": lambda: 1e6 + rng.normal(0, 1, size),
        "tiny variance": lambda: 1 + 1.2e-7 * rng.integers(0, 2, size),
        "wide range": lambda: rng.normal(0, 1, size) * 10.0 ** rng.integers(-12, 12, size),
        "constant": lambda: np.full(size, 7.3),
        "blanks": lambda: np.where(np.arange(size) % 3 == 1, [np.nan], 5 + rng.normal(0, 1, size)),
    }[kind]().astype(np.float32)
    found = pieces.plane_numbers(x)
    good = x[np.isfinite(x)].astype(np.float64)
    assert (found["count"], found["nan_count"]) == (len(good), np.isnan(x).sum())
    assert found["mean"] == pytest.approx(good.mean(), rel=1e-12, abs=1e-13 * np.abs(good).max())
    assert found["m2"] == pytest.approx(np.square(good - good.mean()).sum(), rel=1e-9, abs=1e-30)
    assert found["image_std"] == pytest.approx(good.std(), rel=1e-9, abs=1e-15)
    assert (found["low"], found["high"]) == (good.min(), good.max())


@pytest.mark.parametrize("options", [{"shard_rows": 2, "threads": 3}, {"shard_rows": 100, "threads": 1}])
def test_pieces_and_threads_change_nothing(tmp_path, options):
    pixels = noise(7)
    pixels[2, 1, 3, 3] = np.nan
    first, table, _ = examine(make(tmp_path / "a", pixels))
    second, again, _ = examine(make(tmp_path / "b", pixels), **options)
    assert table.equals(again, null_equal=True)
    assert first.id == second.id


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    cutouts = make(tmp_path, noise(6))
    real, calls = pieces.plane_numbers, []

    def stop_at_tenth(values):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return real(values)

    monkeypatch.setattr(pieces, "plane_numbers", stop_at_tenth)
    with pytest.raises(KeyboardInterrupt):
        examine(cutouts, shard_rows=2, threads=1)
    _, table, _ = examine(cutouts, shard_rows=2, threads=1)
    assert len(calls) == 10 + 12, "two of three pieces are made after the kill, one is kept"
    monkeypatch.undo()
    assert table["count"].to_list() == [1024] * 18


def test_an_image_that_is_gone_or_damaged_is_named_and_the_rest_goes_on(tmp_path):
    cutouts = make(tmp_path, noise())
    image_file(cutouts, 1, "J129").unlink()
    changed = image_file(cutouts, 3, "H158")
    overwrite(changed, changed.read_bytes()[:-100])
    artifact, table, report = examine(cutouts)
    bad = table.filter("unreadable")
    assert bad.select("cutout_id", "band").rows() == [
        (cutouts.table()["cutout_id"][1], "J129"), (cutouts.table()["cutout_id"][3], "H158"),
    ]  # fmt: skip
    assert bad["mean"].null_count() == 2
    assert table["count"].to_list() == [0 if i in (4, 11) else 1024 for i in range(12)]
    assert corrupt_cutouts(artifact)["reason"].to_list() == ["unreadable", "unreadable"]
    entry = report["corrupt_cutouts"][cutouts.table()["file_name"][1]]
    assert "is no longer at" in entry["error"]
    assert entry["unreadable_bands"] == ["J129"]
    assert report["summary"]["cutouts_unreadable"] == 2


def test_when_nothing_can_be_read_it_stops(tmp_path):
    cutouts = make(tmp_path, noise(2))
    for row in range(2):
        for band in ("Y106", "J129", "H158"):
            image_file(cutouts, row, band).unlink()
    with pytest.raises(InputError, match=r"none of 2 cutouts can be read; the first: image .* is no longer at"):
        examine(cutouts)


def test_sides_and_types_that_were_not_asked_for(tmp_path):
    cutouts = make(tmp_path, noise())
    _, table, _ = examine(cutouts, shape_px=32)
    assert not table["wrong_shape"].any()
    artifact, table, report = examine(cutouts, shape_px=512)
    assert table["wrong_shape"].all()
    assert corrupt_cutouts(artifact)["reason"].to_list() == ["wrong shape"] * 4
    assert report["summary"]["cutouts_with_wrong_shape"] == 4
    artifact, table, _ = examine(cutouts, dtypes=["float64"])
    assert table["wrong_dtype"].all()
    assert corrupt_cutouts(artifact)["reason"].to_list() == ["wrong dtype"] * 4


def test_bands_of_different_shapes_and_pieces_beyond_an_image(tmp_path):
    cutouts = make(tmp_path, noise())
    names = cutouts.table()["image"]
    odd = (pl.col("image") == names[2]) & (pl.col("band") == "H158")
    low = pl.col("image") == names[3]
    sizes = {
        "width_px": pl.when(odd).then(40).otherwise("width_px").cast(pl.Int32),
        "height_px": pl.when(low).then(31).otherwise("height_px").cast(pl.Int32),
    }
    cutouts = changed_table(cutouts, "images.parquet", lambda images: images.with_columns(**sizes))
    _, table, _ = examine(cutouts)
    wrong = table.filter("wrong_shape")
    ids = cutouts.table()["cutout_id"]
    assert wrong.select("cutout_id", "band").rows() == [
        (ids[2], "H158"), (ids[3], "Y106"), (ids[3], "J129"), (ids[3], "H158"),
    ]  # fmt: skip


def test_bad_input(tmp_path):
    cutouts = make(tmp_path, noise(2))
    with pytest.raises(ConfigError, match=r"dtypes=\['flot32'\] is not known.*Did you mean 'float32'"):
        examine(cutouts, dtypes=["flot32"])
    with pytest.raises(InputError, match=r"expected an artifact of kind integrity"):
        corrupt_cutouts(cutouts)
    doubled = changed_table(cutouts, "cutouts.parquet", lambda table: pl.concat([table, table]))
    with pytest.raises(InputError, match=r"cutout_id \d+ is there more than once"):
        examine(doubled)
    write_image(tmp_path / "in" / "a.fits", sky(96, 96))
    single = skyloom.curate("cutouts", images=tmp_path / "in", window_px=32, store=tmp_path / "store")
    with pytest.raises(InputError, match="expected cutouts of a survey with bands"):
        examine(single)
