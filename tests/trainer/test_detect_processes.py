"""Two real processes validate together: what they log is what one process logs."""

import csv

import pytest

from make.fit_kills import SAME, Kill, KillInValidation, kill_at
from make.tiny_detect_fit import request
from skyloom.trainer import fit as fitting
from skyloom.trainer.detect import detect
from skyloom.trainer.distributed import processes

pytestmark = pytest.mark.usefixtures("warm_ranks")

TWO = {"devices": 2, "max_epochs": 2, "strategy": "ddp_find_unused_parameters_true"}
# Weights that stay as they are, so that one process and two judge the same ones: a larger rate would already move
# biases of 0, and so decide between candidates of equal score.
STILL = {"freeze_epochs": 9, "learning_rate": 1e-300, "weight_decay": 0.0, "ema_decay": None}


def judged(artifact):
    with artifact.file("metrics.csv").open(newline="") as file:
        found = [{k: v for k, v in row.items() if k.startswith("val/")} for row in csv.DictReader(file)]
    return [row for row in found if row["val/loss"]]


def test_two_processes_judge_what_one_judges(tmp_path):
    one = detect(**request(tmp_path / "one" / "store", trainer={"max_epochs": 2}, task=STILL))
    two = detect(**request(tmp_path / "two" / "store", trainer=TWO, task=STILL))
    assert len(judged(one)) == len(judged(two)) == 2
    for a, b in zip(judged(one), judged(two), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert float(b[name] or 0) == pytest.approx(float(value or 0), rel=1e-5), name


def test_two_processes_killed_in_a_validation_end_with_the_same_bytes(tmp_path, monkeypatch):
    whole = detect(**request(tmp_path / "whole" / "store", trainer=TWO))
    options = request(tmp_path / "store", trainer=TWO)
    usual = kill_at(monkeypatch, 1, 0, KillInValidation)
    monkeypatch.setattr(processes, "REPORT_S", 0.1)  # the other process has nothing to say of the end of rank 0
    with pytest.raises(Kill):
        detect(**options)
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    model = detect(**options)
    assert {name: model.file(name).read_bytes() for name in SAME} == {n: whole.file(n).read_bytes() for n in SAME}
