"""Choice of thresholds: strategies, constraints, stability, and what is refused."""

import polars as pl
import pytest

from skyloom.errors import ConfigError, InputError
from skyloom.metric.thresholds import rank_thresholds


def sweep(**columns):
    grid = [(score, nms) for score in (0.3, 0.4, 0.5) for nms in (0.5, 0.6)]
    return pl.DataFrame({"score": [s for s, _ in grid], "nms": [n for _, n in grid], **columns})


COMPLETENESS, PURITY = [0.9, 0.92, 0.85, 0.86, 0.7, 0.71], [0.6, 0.58, 0.8, 0.79, 0.9, 0.89]


def test_one_metric_takes_its_best_point():
    best = rank_thresholds(sweep(completeness=COMPLETENESS), ["completeness"]).row(0, named=True)
    assert (best["score"], best["nms"], best["merit"]) == (0.3, 0.6, 1.0)


def test_minimax_takes_what_is_bad_at_nothing():
    table = sweep(completeness=COMPLETENESS, purity=PURITY)
    assert rank_thresholds(table, ["completeness", "purity"], strategy="minimax").row(0, named=True)["score"] == 0.4


def test_constraints_come_first_and_less_may_be_better():
    table = sweep(completeness=COMPLETENESS, purity=PURITY, missed=[10, 8, 15, 14, 30, 29])
    ranked = rank_thresholds(table, ["missed"], constraints={"purity": 0.85}, lower_is_better=["missed"])
    assert ranked["allowed"].to_list() == [True, True, False, False, False, False]
    assert ranked.row(0, named=True)["nms"] == 0.6
    with pytest.raises(ConfigError, match=r"no point of the sweep meets .* best values are \{'purity': 0.9\}"):
        rank_thresholds(table, ["missed"], constraints={"purity": 0.99})


def test_a_lucky_spike_is_told_apart_by_its_neighbours():
    ranked = rank_thresholds(sweep(f1=[0.1, 0.2, 0.99, 0.2, 0.8, 0.81]), ["f1"])
    spike, plateau = (ranked.filter(score=score, nms=nms).row(0, named=True) for score, nms in ((0.4, 0.5), (0.5, 0.6)))
    assert spike["merit"] > plateau["merit"]
    assert spike["stability"] < plateau["stability"]


def test_what_cannot_be_ranked():
    with pytest.raises(InputError, match="no column purity"):
        rank_thresholds(sweep(f1=[1.0] * 6), ["purity"])
    with pytest.raises(InputError, match="no value at any point"):
        rank_thresholds(sweep(f1=[float("nan")] * 6), ["f1"])
    with pytest.raises(InputError, match="several rows"):
        rank_thresholds(pl.concat([sweep(f1=[1.0] * 6)] * 2), ["f1"])
    with pytest.raises(ConfigError, match="strategy"):
        rank_thresholds(sweep(f1=[1.0] * 6), ["f1"], strategy="best")
    unknown = rank_thresholds(sweep(f1=[0.1, 0.2, 0.3, float("nan"), 0.2, 0.2]), ["f1"])
    assert unknown.row(-1, named=True)["nms"] == 0.6
    assert unknown.row(0, named=True)["f1"] == 0.3
