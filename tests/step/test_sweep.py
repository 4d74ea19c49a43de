"""step=sweep: every pair of thresholds as if its catalogue had been made and matched."""

import numpy as np
import polars as pl
import pytest

import skyloom
from make.detectors import detector_artifact
from make.joint_data import joint_data
from skyloom.errors import ConfigError, InputError
from skyloom.match import assign, close_pairs, sky_points
from skyloom.metric.catalog_scores import counted, scores
from skyloom.step.sweep import step as module
from skyloom.store import Store

FAST = {"batch_size": 6, "shard_images": 6, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return joint_data(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def candidates(data):
    return skyloom.extract(
        "candidates", model=detector_artifact(data), dataset=data.dataset, **FAST, store=data.store.root
    )


@pytest.fixture(scope="module")
def thresholds(candidates):
    return np.quantile(candidates.table()["score"].to_numpy(), [0.1, 0.6]).tolist()


def sweep(data, candidates, **options):
    options = {"truth": data.dataset, "radius_arcsec": 1.0, **options}
    return skyloom.curate("sweep", candidates=candidates, **options, store=data.store.root)


@pytest.fixture(scope="module")
def swept(data, candidates, thresholds):
    return sweep(data, candidates, scores=thresholds, nms=[0.2, 0.6])


def test_every_point_is_that_of_its_catalogue(data, candidates, thresholds, swept):
    annotations = data.dataset.table("annotations.parquet")
    truth = sky_points(annotations["ra_deg"].to_numpy(), annotations["dec_deg"].to_numpy())
    assert swept.table().select("score", "nms").rows() == [(s, n) for s in thresholds for n in (0.2, 0.6)]
    for point in swept.table().iter_rows(named=True):
        made = skyloom.extract(
            "catalog", candidates=candidates, score=point["score"], nms=point["nms"], formats=[],
            photometry={"enabled": False}, store=data.store.root,
        ).table()  # fmt: skip
        pairs = close_pairs(truth, sky_points(made["ra_deg"].to_numpy(), made["dec_deg"].to_numpy()), 1.0)
        matched = assign(pairs)
        expected = scores(counted(matched.of_left, matched.of_right))
        assert expected["detections"] == len(made) > 0
        assert {key: point[key] for key in expected} == pytest.approx(expected, nan_ok=True)


def test_thresholds_are_chosen_from_it_and_give_a_catalogue(data, candidates, swept):
    chosen = skyloom.curate("thresholds", sweep=swept, store=data.store.root)
    made = skyloom.extract(
        "catalog", candidates=candidates, thresholds=chosen, formats=[], photometry={"enabled": False},
        store=data.store.root,
    )  # fmt: skip
    assert made.notes["score"] == chosen.notes["score"]
    best = swept.table().filter(score=chosen.notes["score"], nms=chosen.notes["nms"])
    assert best["detections"][0] == len(made.table())


def test_a_file_is_cut_to_the_images(data, candidates, swept, tmp_path, thresholds):
    annotations = data.dataset.table("annotations.parquet").select("ra_deg", "dec_deg", "mag_i")
    away = annotations.head(2).with_columns(pl.col("dec_deg") + 0.5)
    pl.concat([annotations, away]).write_parquet(tmp_path / "truth.parquet")
    made = sweep(data, candidates, truth=str(tmp_path / "truth.parquet"), scores=thresholds, nms=[0.2, 0.6])
    assert made.counts["dropped"]["outside the images"]["number"] == 2
    assert made.table().equals(swept.table())


def test_a_limit_asks_for_bright_truths_and_does_not_punish_deep_detections(data, candidates, swept, thresholds):
    options = {"scores": thresholds, "nms": [0.2, 0.6]}
    made = sweep(data, candidates, columns={"mag": "mag_i"}, faintest_mag=20.5, **options).table()
    assert (made["truths"] == 5).all()
    assert (made["detections"] + made["not_judged"] == swept.table()["detections"]).all()
    with pytest.raises(ConfigError, match=r"faintest_mag=20.5 needs the truth's column of magnitudes"):
        sweep(data, candidates, faintest_mag=20.5, **options)


def test_a_killed_sweep_goes_on(data, candidates, swept, thresholds, monkeypatch):
    before = swept.file("sweep.parquet").read_bytes()
    Store(data.store.root).remove(swept)
    real, calls = module.chosen_rows, []

    def stop_at_second(*args, **options):
        calls.append(options["nms"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(module, "chosen_rows", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        sweep(data, candidates, scores=thresholds, nms=[0.2, 0.6])
    again = sweep(data, candidates, scores=thresholds, nms=[0.2, 0.6])
    assert calls == [0.2, 0.6, 0.6]
    assert again.file("sweep.parquet").read_bytes() == before


def test_one_line_for_every_mistake(data, candidates, tmp_path):
    with pytest.raises(ConfigError, match="were kept from a score of"):
        sweep(data, candidates, scores=[0.01, 0.5])
    with pytest.raises(ConfigError, match="expected one threshold or more"):
        sweep(data, candidates, scores=[])
    pl.DataFrame({"ra_deg": [1.0], "dec_deg": [2.0]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="none of 1 objects lies in the 6 images"):
        sweep(data, candidates, truth=str(tmp_path / "other.parquet"))
