"""What interpolations of conf/common.yaml answer, in a job, beside others of a job, and to bad input."""

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError

from skyloom.run import resolvers

VARIABLES = (
    "TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK", "LOCAL_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE", "SLURM_STEP_ID",
    "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_NTASKS",
)  # fmt: skip
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "GROUP_RANK": "0",
            "GROUP_WORLD_SIZE": "1"}  # fmt: skip
SRUN = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
BATCH = {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    resolvers.register()


def resolved(text, **values):
    return OmegaConf.create({"asked": text, **values}).asked


@pytest.mark.parametrize(
    ("target", "mode"),
    [
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher", RunMode.MULTIRUN),
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher", RunMode.MULTIRUN),
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", None),
        ("", None),
    ],
)
def test_a_launcher_that_submits_implies_a_sweep(target, mode):
    assert resolved("${mode_of_launcher:${target}}", target=target) == mode


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        (BATCH, True),
        (SRUN | {"SLURM_PROCID": "0"}, True),
        (SRUN | {"SLURM_PROCID": "1"}, False),
        (SRUN | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, True),
        (TORCHRUN | {"RANK": "0"}, True),
        (TORCHRUN | {"RANK": "1"}, False),
        (SRUN | {"SLURM_PROCID": "1"} | TORCHRUN | {"RANK": "0"}, True),
        ({"WORLD_SIZE": "2", "RANK": "1"}, True),
    ],
    ids=[
        "alone",
        "batch script",
        "task 0",
        "task 1",
        "only task",
        "rank 0",
        "rank 1",
        "torchrun in a task",
        "leftovers",
    ],
)
def test_only_the_first_process_gets_the_value(monkeypatch, environment, first):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resolved("${of_first_rank:.hydra,null}") == (".hydra" if first else None)
    assert resolved("${of_first_rank:${folder}/a.log,/dev/null}", folder="/x") == ("/x/a.log" if first else "/dev/null")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (SRUN | {"SLURM_PROCID": "first"}, "SLURM_PROCID='first' in the environment: expected a number"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "", "SLURM_PROCID": "0"}, "SLURM_STEP_NUM_TASKS='' in the environment"),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, "RANK='' in the environment"),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "many"}, "WORLD_SIZE='many'"),
    ],
)
def test_an_environment_that_makes_no_sense_is_named(monkeypatch, environment, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InterpolationResolutionError) as error:
        resolved("${of_first_rank:a,b}")
    assert words in str(error.value).splitlines()[0]


def test_bad_interpolations_are_refused():
    with pytest.raises(InterpolationKeyError, match="nothing"):
        resolved("${mode_of_launcher:${nothing}}")
    with pytest.raises(InterpolationResolutionError, match="argument"):
        resolved("${of_first_rank:a}")
    with pytest.raises(InterpolationResolutionError):
        resolved("${mode_of_launcher:null}")


def test_they_can_be_registered_again():
    resolvers.register()  # as each job of a sweep in one process does
    assert resolved("${of_first_rank:a,b}") == "a"
