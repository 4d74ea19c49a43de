"""Weights that are shared out among two processes learn what whole ones do, and a killed fit goes on the same."""

import pytest
import torch
from safetensors.torch import load_file

from make.fit_kills import Kill, kill_at
from make.tiny_fit import request
from skyloom.errors import ConfigError
from skyloom.trainer import fit as fitting
from skyloom.trainer.distributed import processes
from skyloom.trainer.distributed.sharded import refuse_sharding
from skyloom.trainer.options import TrainerOptions
from skyloom.trainer.train import train

TWO = {"devices": 2, "max_epochs": 2, "gradient_clip_val": 1.0}
SHARED = TWO | {"strategy": "fsdp"}


def weights(model):
    return load_file(model.file("model.safetensors"))


@pytest.mark.usefixtures("warm_ranks")
def test_shared_out_weights_learn_what_whole_ones_do_and_a_killed_fit_goes_on(tmp_path, monkeypatch):
    whole = train(**request(tmp_path / "whole" / "store", trainer=TWO))
    options = request(tmp_path / "store", trainer=SHARED)
    usual = kill_at(monkeypatch, 1, 0)
    monkeypatch.setattr(processes, "REPORT_S", 0.1)
    with pytest.raises(Kill):
        train(**options)
    monkeypatch.setattr(fitting, "progress_callbacks", usual)
    with pytest.raises(ConfigError, match="made with fsdp"):
        train(**options | {"trainer": options["trainer"] | {"strategy": "ddp"}})
    shared = train(**options)
    assert shared.id == whole.id, "where weights lie is no part of an id"
    assert shared.history["attempts"] == 3, "killed, refused, finished; the refusal has left the checkpoint"
    assert shared.verify() == []
    theirs = weights(whole)
    for name, value in weights(shared).items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5, msg=name)
    state = torch.load(shared.file("last.ckpt"), weights_only=True)
    assert {type(value) for value in state["state_dict"].values()} == {torch.Tensor}
    rows = [model.file("metrics.csv").read_text().splitlines() for model in (shared, whole)]
    assert [row.split(",")[:2] for row in rows[0]] == [row.split(",")[:2] for row in rows[1]]


def test_what_needs_the_whole_network_is_refused_in_one_line():
    for arguments, words in (((True, 0), "trainer=ddp"), ((False, 1), "monitor_labels=null")):
        with pytest.raises(ConfigError, match=words):
            refuse_sharding(*arguments)


def test_one_process_has_nothing_to_share():
    options = TrainerOptions.model_construct(strategy="fsdp", devices=1, num_nodes=1)
    assert not options.shares_out
