"""step=thresholds: the best point of a sweep under its constraints, as an artifact."""

import json

import polars as pl
import pytest

import skyloom
from make.catalogs import threshold_sweep
from skyloom.errors import ConfigError, InputError


@pytest.fixture
def sweep(tmp_path):
    return threshold_sweep(tmp_path / "sweep.parquet")


def test_the_constraint_decides(sweep, tmp_path):
    made = skyloom.curate(
        "thresholds", sweep=sweep, metrics=["completeness"], constraints={"purity": 0.785}, store=tmp_path
    )
    chosen = json.loads(made.file("thresholds.json").read_text())
    assert (chosen["score"], chosen["nms"]) == (0.5, 0.5)
    assert chosen["purity"] == pytest.approx(0.8)
    assert "allowed" not in chosen
    assert made.counts["read"] == 9
    assert made.counts["allowed"] == made.table()["allowed"].sum() == 6
    assert made.table().row(0, named=True)["score"] == made.notes["score"] == 0.5


def test_less_may_be_better(sweep, tmp_path):
    table = pl.read_parquet(sweep).with_columns(spurious=1 - pl.col("purity"))
    table.write_csv(tmp_path / "sweep.csv")
    made = skyloom.curate(
        "thresholds", sweep=tmp_path / "sweep.csv", metrics=["spurious"], lower_is_better=["spurious"], store=tmp_path
    )
    assert json.loads(made.file("thresholds.json").read_text())["score"] == 0.7


def test_bad_input(sweep, tmp_path):
    with pytest.raises(ConfigError, match=r"no point of the sweep meets .*0\.99"):
        skyloom.curate("thresholds", sweep=sweep, constraints={"purity": 0.99}, store=tmp_path)
    with pytest.raises(InputError, match="no column f1"):
        skyloom.curate("thresholds", sweep=sweep, metrics=["f1"], store=tmp_path)
    pl.read_parquet(sweep).drop("nms").write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="no column nms"):
        skyloom.curate("thresholds", sweep=tmp_path / "b.parquet", store=tmp_path)
    pl.read_parquet(sweep).clear().write_parquet(tmp_path / "c.parquet")
    with pytest.raises(InputError, match="no rows"):
        skyloom.curate("thresholds", sweep=tmp_path / "c.parquet", store=tmp_path)
