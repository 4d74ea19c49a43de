"""What interpolations in conf/common.yaml may ask: is this a job of a cluster, is this its first process."""

import os
from typing import Any

from hydra.types import RunMode
from omegaconf import OmegaConf


def register() -> None:
    """Make the resolvers known; before a configuration is composed or, in a job, resolved."""
    OmegaConf.register_new_resolver("mode_of_launcher", mode_of_launcher, replace=True)
    OmegaConf.register_new_resolver("of_first_rank", of_first_rank, replace=True)


def mode_of_launcher(target: str) -> RunMode | None:
    """``MULTIRUN`` for a launcher that submits jobs: Hydra ignores all launchers else. None leaves it to ``-m``."""
    return RunMode.MULTIRUN if "submitit" in target else None


def of_first_rank(value: Any, otherwise: Any) -> Any:
    """``value`` in the first process of a job, in a single process too; ``otherwise`` in the others."""
    return otherwise if rank() else value


def rank() -> int:
    """Number of this process among those that Slurm or torchrun started together; 0 if it was started alone."""
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        return int(os.environ.get("RANK") or 0)
    if os.environ.get("SLURM_STEP_ID", "").isdecimal():  # the script of a batch job itself is no task
        return int(os.environ.get("SLURM_PROCID") or 0)
    return 0
