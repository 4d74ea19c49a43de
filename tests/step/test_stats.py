"""step=stats: numbers of numpy in float64 on data that break a naive sum, whatever the pieces."""

import json

import numpy as np
import pytest
import torch

import skyloom
from make.survey import sky, write_image
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.errors import ConfigError, InputError
from skyloom.step.stats.pieces import Measurer
from skyloom.store import Store
from skyloom.transform import Preprocess
from skyloom.transform.moments import RELATIVE_ERROR, Moments

FAST = {"shard_rows": 10, "batch_size": 4}


@pytest.fixture
def cutouts(tmp_path):
    for name in "ab":
        pixels = sky(96, 96, seed=ord(name))
        pixels[:4, :7] = np.nan
        write_image(tmp_path / "in" / f"{name}.fits", pixels)
    return skyloom.curate(
        "cutouts", images=tmp_path / "in", window_px=32, max_nan_frac=0.5, threads=1, store=tmp_path / "store"
    )


def measure(cutouts, **options):
    artifact = skyloom.curate("stats", cutouts=cutouts, **{**FAST, **options}, store=cutouts.path.parents[1])
    return artifact, json.loads(artifact.file("stats.json").read_text())


def adversarial(kind, rng):
    if kind == "large offset":
        return (1e6 + rng.normal(0, 1, 300_000)).astype(np.float32)
    if kind == "tiny variance":
        return (1 + 1e-7 * rng.integers(0, 2, 300_000)).astype(np.float32)
    if kind == "wide range":
        return np.concatenate([rng.normal(0, 1e-8, 200_000), [1e8, -1e8], rng.normal(0, 1, 9)]).astype(np.float32)
    return rng.normal(2e-5, 8e-5, 300_000).astype(np.float32)


@pytest.mark.parametrize("kind", ["large offset", "tiny variance", "wide range", "sky"])
@pytest.mark.parametrize("parts", [1, 7, 1000])
def test_moments_are_those_of_numpy_in_float64(kind, parts):
    x = adversarial(kind, np.random.default_rng(0))
    total = Moments.none()
    for part in np.array_split(x, parts):
        total = total.merged(Moments.of(part))
    exact = x.astype(np.float64)
    found = total.summary([0, 1, 50, 99, 100])
    mean = exact.mean()
    std = np.sqrt(np.square(exact - mean).mean())
    assert found["count"] == len(x)
    assert found["mean"] == pytest.approx(mean, rel=1e-12, abs=1e-12 * std)
    assert found["std"] == pytest.approx(std, rel=1e-9)
    assert (found["min"], found["max"]) == (exact.min(), exact.max())
    for percent in (1, 50, 99):
        wanted = np.percentile(exact, percent, method="lower")
        assert found["percentiles"][str(percent)] == pytest.approx(wanted, rel=1.01 * RELATIVE_ERROR, abs=1e-38)
    assert found["percentiles"]["0"] == pytest.approx(exact.min(), rel=1.01 * RELATIVE_ERROR)


def test_blanks_and_nothing():
    some = Moments.of(np.array([[np.nan, 1.0], [np.inf, 3.0]]))
    assert (some.count, some.blank, some.mean, some.low, some.high) == (2, 2, 2.0, 1.0, 3.0)
    none = Moments.none().merged(Moments.of(np.full(4, np.nan)))
    assert (none.count, none.blank) == (0, 4)
    assert np.isnan(none.summary([50])["mean"])
    assert none.merged(some).merged(none).mean == 2.0
    assert Moments.of(np.zeros(9)).percentile(50) == 0.0
    signs = Moments.of(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    assert [round(signs.percentile(p), 2) for p in (0, 25, 50, 75, 100)] == [-2.0, -1.0, 0.0, 1.0, 2.0]


def test_raw_pixels_without_their_blanks(cutouts):
    artifact, found = measure(cutouts)
    pixels = CutoutIndex(cutouts).read(np.arange(50)).astype(np.float64)
    raw = found["raw"][0]
    assert raw["blank"] == np.isnan(pixels).sum() > 0
    assert raw["count"] == np.isfinite(pixels).sum()
    assert raw["mean"] == pytest.approx(np.nanmean(pixels), rel=1e-12)
    assert raw["std"] == pytest.approx(np.nanstd(pixels), rel=1e-12)
    assert raw["percentiles"]["50"] == pytest.approx(np.nanpercentile(pixels, 50), rel=2e-3)
    assert found["unit"] == "Jy/beam"
    assert found["scaled"] is None
    assert artifact.kind == "stats"
    assert artifact.notes["std"] == raw["std"]
    assert artifact.counts["kept"] == 50


def test_scaled_pixels_by_channel_make_the_network_input_standard(cutouts):
    channels = [{"stretch": "sqrt"}, {"stretch": "log", "clip": "none"}]
    options = {"image_size_px": 24, "channels": channels}
    artifact, found = measure(cutouts, preprocess=options)
    mean, std = ([channel[key] for channel in found["scaled"]] for key in ("mean", "std"))
    assert artifact.notes["scaled_mean"] == mean
    raw = torch.from_numpy(CutoutIndex(cutouts).read(np.arange(50))).unsqueeze(1)
    result = Preprocess(**options, mean=mean, std=std)(raw).double()
    torch.testing.assert_close(result.mean((0, 2, 3)), torch.zeros(2).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(result.std((0, 2, 3), correction=0), torch.ones(2).double(), rtol=1e-5, atol=0)
    assert found["preprocess_digest"] == Preprocess(**options).digest


def test_raw_mean_and_std_are_taken_by_the_features(cutouts):
    _, found = measure(cutouts)
    extracted = skyloom.extract(
        "features", cutouts=cutouts, transform="raw", store=cutouts.path.parents[1],
        **{"backbone.image_size_px": 32, "transform.preprocess.mean": found["raw"][0]["mean"],
           "transform.preprocess.std": found["raw"][0]["std"]},
    )  # fmt: skip
    assert extracted.notes["preprocess"]["mean_std_of"] == "raw"


def test_pieces_and_batches_do_not_matter_and_a_killed_run_goes_on(cutouts, monkeypatch):
    first, whole = measure(cutouts)
    _, other = measure(cutouts, shard_rows=1000)
    assert other["raw"][0]["std"] == pytest.approx(whole["raw"][0]["std"], rel=1e-13)
    assert other["raw"][0]["percentiles"] == whole["raw"][0]["percentiles"]
    Store(cutouts.path.parents[1]).remove(first)
    real, calls = Measurer.write, []

    def stop_at_third(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(Measurer, "write", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        measure(cutouts)
    again, found = measure(cutouts)
    assert again.id == first.id
    assert found == whole
    assert len(calls) == 6


def test_an_image_that_is_gone_stops_or_is_counted(cutouts, tmp_path):
    (tmp_path / "in" / "b.fits").unlink()
    with pytest.raises(InputError, match="image b of cutouts"):
        measure(cutouts)
    artifact, found = measure(cutouts, on_error="skip")
    assert found["cutouts"] == 25
    assert artifact.counts["dropped"]["unreadable"]["number"] == 25
    (tmp_path / "in" / "a.fits").unlink()
    with pytest.raises(InputError, match="no finite pixel in 50 cutouts"):
        measure(cutouts, on_error="skip", shard_rows=7)


def test_bad_options(cutouts):
    with pytest.raises(ConfigError, match=r"preprocess: option=strech .*Did you mean 'stretch'"):
        measure(cutouts, preprocess={"strech": "log"})
    with pytest.raises(ConfigError, match=r"percentiles\.0=101"):
        measure(cutouts, percentiles=[101])


def test_several_processes_measure_what_one_measures(cutouts, tmp_path):
    scaled = {"preprocess": {"stretch": "asinh", "image_size_px": 48}}
    one, told = measure(cutouts, **scaled)
    other = tmp_path / "other"
    other.mkdir()
    (other / "cutouts").symlink_to(cutouts.path.parent)
    two = skyloom.curate("stats", cutouts=cutouts.id, **{**FAST, **scaled}, workers=2, store=other)
    assert two.id == one.id
    assert two.manifest["files"] == one.manifest["files"]
    assert told["cutouts"] == 50
