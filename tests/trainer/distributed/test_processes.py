"""Two real processes make one artifact, agree on when to save, and none outlives the other."""

import csv
import os
import signal
import time

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file

from make import other_process
from make.tiny_fit import BATCH, CUTOUTS, request
from skyloom.datamodule.cutouts import EpochSampler
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.trainer import fit as fitting
from skyloom.trainer.distributed import processes
from skyloom.trainer.distributed.processes import open_processes
from skyloom.trainer.train import train

OMP_BEFORE = os.environ.get("OMP_NUM_THREADS")  # as it was when the tests were collected
TWO = {"devices": 2, "log_every_n_steps": 1}
STEPS = 3 * (CUTOUTS // (2 * BATCH))


class Kill(Exception):
    """Stands for the end of rank 0."""


class At(Callback):
    """Does something after a step, in rank 0."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            self.do()


def kill():
    raise Kill


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A fit of two processes that nobody disturbed."""
    return train(**request(tmp_path_factory.mktemp("whole") / "store", trainer=TWO))


def contents(artifact):
    return {name: artifact.file(name).read_bytes() for name in ("model.safetensors", "metrics.csv", "last.ckpt")}


def test_two_processes_make_one_whole_artifact(whole):
    assert whole.verify() == []
    assert whole.counts["images"] == STEPS * 2 * BATCH
    assert whole.history["attempts"] == 1
    with whole.file("metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["step"]) for row in table] == list(range(STEPS))
    assert torch.load(whole.file("last.ckpt"), weights_only=True)["global_step"] == STEPS
    assert not torch.distributed.is_initialized()
    assert "MASTER_PORT" not in os.environ
    assert os.environ.get("OMP_NUM_THREADS") == OMP_BEFORE, "a later process would round differently"


def test_the_number_of_processes_is_part_of_the_id_and_the_batch_of_one_is_not_that_of_two(whole):
    store = whole.path.parents[1]
    assert train(**request(store, trainer={**TWO, "devices": 1}), dry_run=True).id != whole.id
    other = {**TWO, "strategy": "ddp_find_unused_parameters_true"}
    assert train(**request(store, trainer=other), dry_run=True).id == whole.id


@pytest.mark.usefixtures("warm_ranks")
@pytest.mark.parametrize("how", ["killed", "SIGTERM"])
def test_a_fit_of_two_processes_goes_on_to_the_same_bytes(whole, tmp_path, monkeypatch, how):
    often = {**TWO, "checkpoint_every_min": 1e-9} if how == "killed" else {**TWO, "checkpoint_every_n_epochs": 100}
    options = request(tmp_path / "store", trainer=often)
    usual = fitting.progress_callbacks
    do = kill if how == "killed" else (lambda: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(fitting, "progress_callbacks", lambda loggers: [*usual(loggers), At(4, do)])
    with pytest.raises(Kill if how == "killed" else KeyboardInterrupt):
        train(**options)
    steps = []
    again = At(STEPS, lambda: steps.append("end"))
    monkeypatch.setattr(fitting, "progress_callbacks", lambda loggers: [*usual(loggers), again])
    model = train(**options)
    assert model.id == whole.id
    assert model.history["attempts"] == 2
    assert contents(model) == contents(whole)
    assert model.counts == whole.counts


@pytest.mark.usefixtures("warm_ranks")
def test_processes_get_copies_and_their_number(tmp_path):
    job = {"tensor": torch.zeros(2), "path": tmp_path / "said"}
    with open_processes(other_process.write, job, 2) as environment:
        assert (environment.rank, environment.size) == (0, 2)
    assert job["path"].read_text() == "1 [1.0, 1.0]"
    assert job["tensor"].tolist() == [0.0, 0.0], "weights must not lie in shared memory"


@pytest.mark.parametrize(
    ("work", "error", "words"),
    [
        (other_process.refuse, InputError, "it is bad, says rank 1 of 2"),
        (other_process.be_killed, StoreError, r"rank 1 of the fit has ended \(SIGKILL\)"),
    ],
    ids=["refuses", "is killed"],
)
def test_what_happens_in_another_process_is_told_by_rank_0(work, error, words, monkeypatch):
    monkeypatch.setattr(processes, "REPORT_S", 60.0)

    def notice():
        with open_processes(work, "it", 2):
            raise RuntimeError("connection closed by peer")

    with pytest.raises(error, match=words):
        notice()


def test_no_process_is_left_when_rank_0_fails(tmp_path):
    def fail():
        with open_processes(other_process.wait, tmp_path / "pid", 2):
            while not (tmp_path / "pid").exists():
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(("size", "count"), [(40, 2), (41, 2), (43, 4)])
def test_processes_share_the_permutation_of_one(size, count):
    whole, parts = EpochSampler(size, 5), []
    for rank in range(count):
        sampler = EpochSampler(size, 5)
        sampler.share(rank, count)
        sampler.set_epoch(3)
        parts.append(list(sampler))
        assert len(parts[-1]) == len(sampler) == size // count
    whole.set_epoch(3)
    order = list(whole)
    assert len({i for part in parts for i in part}) == size // count * count, "nothing twice"
    for batch in range(size // count // 4):
        together = {i for part in parts for i in part[4 * batch : 4 * batch + 4]}
        assert together == set(order[4 * count * batch : 4 * count * (batch + 1)]), "the batch of one process"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_nodes": 2}, "trainer.num_nodes=2"),
        ({"devices": 2, "accelerator": "auto"}, "trainer.accelerator=cpu"),
        ({"sync_batchnorm": True}, "GPUs only"),
        ({"devices": 6}, "less than one batch for each"),
    ],
    ids=["machines", "GPUs", "batch normalisation", "few data"],
)
def test_what_a_machine_cannot_do(tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=words) as caught:
        train(**request(tmp_path / "store", trainer=changes))
    assert "\n" not in str(caught.value)


def test_weights_are_those_of_the_checkpoint(whole):
    state = torch.load(whole.file("last.ckpt"), weights_only=True)["state_dict"]
    stored = load_file(whole.file("model.safetensors"))
    assert all(torch.equal(value, stored[key]) for key, value in state.items())
