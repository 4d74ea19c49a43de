"""Measures without labels are in metrics.csv, and a collapsed encoder is called collapsed."""

import csv
import logging
from itertools import pairwise

import pytest
import torch

from make.fit_kills import Kill, contents, kill_at
from make.tiny_fit import request
from skyloom.metric.representation import rankme
from skyloom.task.byol import ByolTask
from skyloom.trainer import fit as fitting
from skyloom.trainer.monitor import Monitor, Ring
from skyloom.trainer.train import train

MONITOR = {
    "images": 16, "every_n_steps": 2, "views_every_n_epochs": None, "knn_every_n_epochs": 1, "knn_images": 200,
    "knn_k": 5, "knn_temperature": 0.07,
}  # fmt: skip


def rows(model):
    with model.file("metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_ring_holds_the_most_recent_vectors():
    ring = Ring(5)
    for start in (0, 3, 6, 9):
        assert ring.full == (start > 3)
        ring.add(torch.arange(start, start + 3).float().reshape(3, 1))
    assert sorted(ring.rows.flatten().tolist()) == [7, 8, 9, 10, 11]
    again = Ring(5)
    again.load_state_dict(ring.state_dict())
    for each in (ring, again):
        each.add(torch.tensor([[12.0], [float("nan")]]))
    assert sorted(again.finite().flatten().tolist()) == sorted(ring.finite().flatten().tolist()) == [9, 10, 11, 12]


def test_what_is_measured_is_in_the_record(tmp_path, monkeypatch):
    seen, step = [], ByolTask.training_step
    monkeypatch.setattr(
        ByolTask, "training_step",
        lambda self, batch, i: (step(self, batch, i), seen.append(self.last_embedding.clone()))[0],
    )  # fmt: skip
    model = train(**request(tmp_path / "store", trainer={"max_epochs": 1, "log_every_n_steps": 1}))
    table = rows(model)
    assert all(float(row["monitor/grad_norm"]) > 0 for row in table)
    assert all(float(row["monitor/learning_rate"]) > 0 for row in table)
    measured = [row for row in table if row["monitor/rankme"]]
    assert [int(row["step"]) for row in measured] == [1, 2, 3, 4], "once 16 images have been seen"
    assert [a["monitor/rankme"] == b["monitor/rankme"] for a, b in pairwise(measured)] == [True, False, True]
    assert float(measured[-1]["monitor/rankme"]) == pytest.approx(rankme(torch.cat(seen[2:4])), rel=1e-5)
    assert 1 < float(measured[-1]["monitor/rankme_backbone"]) <= 16
    assert model.notes["collapsed"] is None


def test_accumulated_batches_have_a_row_per_epoch_and_one_measurement_per_step(tmp_path, monkeypatch):
    measured, measure = [], Monitor._measure
    monkeypatch.setattr(Monitor, "_measure", lambda self: (measured.append(1), measure(self))[1])
    options = {"max_epochs": 2, "accumulate_grad_batches": 4, "log_every_n_steps": 50}  # five batches: two steps
    model = train(**request(tmp_path / "store", trainer=options))
    assert [int(row["step"]) for row in rows(model)] == [1, 3]
    assert len(measured) == 2
    assert float(rows(model)[0]["monitor/rankme"]) > 1
    assert model.notes["final"]["train/loss"] == pytest.approx(float(rows(model)[-1]["train/loss"]))


def test_the_norm_is_that_before_clipping(tmp_path):
    options = {"max_epochs": 1, "log_every_n_steps": 1, "gradient_clip_val": 1e-3}
    table = rows(train(**request(tmp_path / "store", trainer=options)))
    assert float(table[0]["monitor/grad_norm"]) > 0.01


def test_a_collapsed_encoder_is_called_so(tmp_path, monkeypatch, caplog):
    step = ByolTask.training_step

    def collapsed(self, batch, i):
        loss = step(self, batch, i)
        self.last_embedding = torch.ones_like(self.last_embedding)
        return loss

    monkeypatch.setattr(ByolTask, "training_step", collapsed)
    with caplog.at_level(logging.WARNING, "skyloom"):
        model = train(**request(tmp_path / "store"))
    said = [record.getMessage() for record in caplog.records if "collapsed" in record.getMessage()]
    assert said
    assert all(word in said[0] for word in ("collapse", "task.learning_rate", "views"))
    assert "equal" in model.notes["collapsed"]
    assert float(rows(model)[-1]["monitor/collapse_std"]) == 0


@pytest.mark.parametrize("batch", [1, 2])
def test_what_is_kept_survives_a_kill(tmp_path, monkeypatch, batch):
    options = {"monitor": {**MONITOR, "images": 13}, "log_every_n_steps": 1, "checkpoint_every_min": 1e-9}
    whole = train(**request(tmp_path / "whole" / "store", trainer=options))
    usual = kill_at(monkeypatch, 1, batch)
    with pytest.raises(Kill):
        train(**request(tmp_path / "store", trainer=options))
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    assert contents(train(**request(tmp_path / "store", trainer=options))) == contents(whole)


def test_none_is_measured_of_no_images(tmp_path):
    options = {"max_epochs": 1, "monitor": {**MONITOR, "images": 0}}
    assert "monitor/rankme" not in rows(train(**request(tmp_path / "store", trainer=options)))[0]
