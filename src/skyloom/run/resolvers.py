"""What interpolations in conf/common.yaml may ask: is this a job of a cluster, is this its first process."""

from typing import Any

from hydra.types import RunMode
from omegaconf import OmegaConf

from skyloom.trainer.distributed.ranks import started


def register() -> None:
    """Make the resolvers known; before a configuration is composed or, in a job, resolved."""
    OmegaConf.register_new_resolver("mode_of_launcher", mode_of_launcher, replace=True)
    OmegaConf.register_new_resolver("of_first_rank", of_first_rank, replace=True)


def mode_of_launcher(target: str) -> RunMode | None:
    """``MULTIRUN`` for a launcher that submits jobs: Hydra ignores all launchers else. None leaves it to ``-m``."""
    return RunMode.MULTIRUN if "submitit" in target else None


def of_first_rank(value: Any, otherwise: Any) -> Any:
    """``value`` in the first process of a job, in a single process too; ``otherwise`` in the others."""
    rank = started()
    return otherwise if rank and rank.rank else value
