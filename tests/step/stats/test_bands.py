"""step=stats over bands: numbers of numpy in float64, from the pixels or from an integrity report alike."""

import json

import numpy as np
import polars as pl
import pytest

import skyloom
from make.band_cutouts import band_cutouts
from make.survey import sky, write_image
from skyloom.datamodule.band_index import BandIndex
from skyloom.errors import ConfigError, InputError
from skyloom.step.integrity.pieces import plane_numbers
from skyloom.step.stats.bands import pooled
from skyloom.store import builds


@pytest.fixture
def pixels():
    rng = np.random.default_rng(2)
    level = np.array([0.0, 5.0, 1e5])[None, :, None, None] + rng.normal(0, 3, (6, 3, 1, 1))
    x = (level + rng.normal(0, [[[[1]], [[2]], [[10]]]], (6, 3, 20, 20))).astype(np.float32)
    x[4, 1, :5] = np.nan
    x[4, 0, 0, 0] = np.inf
    return x


@pytest.fixture
def cutouts(tmp_path, pixels):
    return band_cutouts(tmp_path / "store", bands=3, n=6, size=20, pixels=pixels)


def measure(cutouts, **options):
    artifact = skyloom.curate("stats", cutouts=cutouts, **options, store=cutouts.path.parents[1])
    return artifact, json.loads(artifact.file("stats.json").read_text())


def examine(cutouts):
    return skyloom.curate("integrity", cutouts=cutouts, store=cutouts.path.parents[1])


def selection_of(cutouts, rows):
    @builds("selection", version=1)
    def choose(build, *, rows: list[int]):
        with build.write("selection.parquet") as path:
            cutouts.table()[rows].select("cutout_id").write_parquet(path)
        build.table = "selection.parquet"

    return choose(rows=rows, store=cutouts.path.parents[1])


def numbers_of(x):
    """Mean and population standard deviation of the finite pixels of each band."""
    good = np.where(np.isfinite(x), x, np.nan).astype(np.float64)
    return np.nanmean(good, (0, 2, 3)), np.nanstd(good, (0, 2, 3))


def test_pixels_and_report_give_the_numbers_of_numpy(cutouts, pixels, monkeypatch):
    mean, std = numbers_of(pixels)
    artifact, found = measure(cutouts, shard_rows=4)
    assert found["bands"] == ["Y106", "J129", "H158"]
    assert found["mean"] == pytest.approx(mean, rel=1e-12)
    assert found["std"] == pytest.approx(std, rel=1e-11)
    assert artifact.notes["mean"] == found["mean"] == found["pooled"]["mean"]
    assert artifact.notes["unit"] == found["unit"] == BandIndex(cutouts).unit
    assert [one["blank"] for one in found["raw"]] == [1, 100, 0]
    for channel, one in enumerate(found["raw"]):
        good = pixels[:, channel][np.isfinite(pixels[:, channel])]
        assert one["percentiles"]["50"] == pytest.approx(np.percentile(good, 50, method="lower"), rel=2e-3)
        assert (one["min"], one["max"]) == (good.min(), good.max())
    report = examine(cutouts)
    monkeypatch.setattr(BandIndex, "read", None)  # no pixel is read from here on
    _, merged = measure(cutouts, integrity=report, corrupt="keep")
    assert merged["mean"] == found["mean"]
    assert merged["std"] == found["std"]
    assert merged["raw"][0]["percentiles"] == {}
    assert [one["count"] for one in merged["raw"]] == [one["count"] for one in found["raw"]]


def test_corrupt_cutouts_are_left_out_and_counted(cutouts, pixels):
    artifact, found = measure(cutouts, integrity=examine(cutouts))
    mean, std = numbers_of(pixels[[0, 1, 2, 3, 5]])
    assert found["mean"] == pytest.approx(mean, rel=1e-12)
    assert found["std"] == pytest.approx(std, rel=1e-11)
    assert found["cutouts"] == artifact.counts["kept"] == 5
    assert artifact.counts["dropped"]["corrupt: NaN pixels"]["number"] == 1


def test_mean_of_means_is_that_of_the_predecessor(cutouts, pixels):
    _, found = measure(cutouts, method="mean_of_means", integrity=examine(cutouts))
    sound = pixels[[0, 1, 2, 3, 5]].astype(np.float64)
    assert found["mean"] == pytest.approx(sound.mean((2, 3)).mean(0), rel=1e-12)
    assert found["std"] == pytest.approx(sound.std((2, 3)).mean(0), rel=1e-12)
    assert found["std"] != found["pooled"]["std"], "the spread between cutouts is not part of it"


def test_a_selection_restricts(cutouts, pixels):
    artifact, found = measure(cutouts, selection=selection_of(cutouts, [5, 0]), integrity=examine(cutouts))
    assert found["mean"] == pytest.approx(numbers_of(pixels[[0, 5]])[0], rel=1e-12)
    assert artifact.counts["dropped"]["not in the selection"]["number"] == 4
    _, read = measure(cutouts, selection=selection_of(cutouts, [5, 0]))
    assert read["mean"] == found["mean"]


def test_merging_loses_no_digits_to_a_large_mean():
    x = (1e6 + np.random.default_rng(3).normal(0, 1, (50, 4000))).astype(np.float32)
    planes = pl.DataFrame([{"band": "u", **plane_numbers(part)} for part in x])
    total = pooled(planes)
    exact = x.astype(np.float64)
    assert total.mean == pytest.approx(exact.mean(), rel=1e-15)
    assert np.sqrt(total.squares / total.count) == pytest.approx(exact.std(), rel=1e-9)


def test_an_image_that_is_gone_stops_or_is_counted(cutouts, pixels):
    index = BandIndex(cutouts)
    index.image_path(index.table["image"][2], "J129").unlink()
    with pytest.raises(InputError, match=r"is no longer at .*on_error=skip leaves such cutouts out"):
        measure(cutouts)
    artifact, found = measure(cutouts, on_error="skip")
    rest = pixels[[0, 1, 3, 4, 5]]
    assert found["mean"] == pytest.approx(numbers_of(rest)[0], rel=1e-12)
    good = rest[:, 0][np.isfinite(rest[:, 0])]
    assert found["raw"][0]["percentiles"]["99.9"] <= good.max()
    assert artifact.counts["dropped"]["unreadable"]["number"] == 1


def test_bad_input(cutouts, tmp_path):
    other = band_cutouts(tmp_path / "store", bands=3, n=2, size=16)
    with pytest.raises(InputError, match=f"is about cutouts {other.id}; expected cutouts {cutouts.id}"):
        measure(cutouts, integrity=examine(other))
    with pytest.raises(ConfigError, match="is for cutouts without bands"):
        measure(cutouts, preprocess={"stretch": "asinh"})
    empty = band_cutouts(tmp_path / "store", bands=3, n=2, size=16, pixels=np.full((2, 3, 16, 16), np.nan))
    with pytest.raises(InputError, match="no finite pixel of band Y106 in 2 cutouts"):
        measure(empty)
    with pytest.raises(InputError, match="no finite pixel of band Y106 in 0 cutouts"):
        measure(empty, integrity=examine(empty))
    write_image(tmp_path / "in" / "a.fits", sky(96, 96))
    single = skyloom.curate("cutouts", images=tmp_path / "in", window_px=32, store=tmp_path / "store")
    with pytest.raises(ConfigError, match="method=mean_of_means go with bands"):
        measure(single, method="mean_of_means")
