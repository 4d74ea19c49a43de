"""Who started this process, and as which of several, is read from the environment alone."""

import pytest

from skyloom.trainer.distributed.ranks import LOCALHOST, started

SRUN = {
    "SLURM_JOB_ID": "71", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NTASKS": "4",
}  # fmt: skip
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "a b/c", "TORCHELASTIC_RESTART_COUNT": "0", "RANK": "1", "WORLD_SIZE": "2",
    "LOCAL_RANK": "1", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "MASTER_ADDR": "here", "MASTER_PORT": "4321",
}  # fmt: skip


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {k: v for k, v in SRUN.items() if "STEP" not in k},
        SRUN | {"SLURM_STEP_NUM_TASKS": "1"},
        TORCHRUN | {"WORLD_SIZE": "1"},
    ],
    ids=["nobody", "batch script", "srun of one", "torchrun of one"],
)
def test_a_process_that_is_alone_knows_it(environment):
    assert started(environment) is None


def test_a_task_of_slurm(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    rank = started(SRUN)
    assert (rank.rank, rank.size, rank.local_rank, rank.node, rank.nodes) == (3, 4, 1, 1, 2)
    assert (rank.by, rank.key, rank.address) == ("srun", "71-0-0", "node7")
    assert rank.well_placed(2)
    assert not rank.well_placed(4)
    again = started(SRUN | {"SLURM_RESTART_COUNT": "1"})
    assert again.key != rank.key, "a requeued job must not meet what the first start has left"
    assert started(SRUN | {"SLURM_STEP_NUM_NODES": "1"}).address == LOCALHOST


def test_a_process_of_torchrun_also_within_a_task_of_slurm():
    for environment in (TORCHRUN, SRUN | TORCHRUN):
        rank = started(environment)
        assert (rank.rank, rank.size, rank.local_rank, rank.node, rank.by) == (1, 2, 1, 0, "torchrun")
        assert rank.address == "here"
        assert rank.key == "a_b_c-here-4321-0"
