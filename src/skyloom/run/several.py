"""A command that Slurm or torchrun have started several times: rank 0 does it, the others take part in its fits."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from skyloom.errors import ConfigError
from skyloom.trainer.distributed.ranks import Rank, started, wrong_size

T = TypeVar("T")
FOLDER = "rendezvous"  # below paths.runs, which all machines of a job see


def shared(verb: str, config: DictConfig, work: Callable[[], T]) -> T | None:
    """Do the work of a command in rank 0 alone; return None in the other processes, when rank 0 has ended.

    Parameters
    ----------
    verb
        Of the script.
    config
        Composed; decides how many processes the command wants.
    work
        Does everything, and prints the result.

    Raises
    ------
    ConfigError
        The processes that were started are not those that are wanted. Rank 0 alone says so. The others end without
        one, since at the first failure torchrun (and ``srun --kill-on-bad-exit``) ends all, rank 0 before it has said
        why. Where only this process is in the wrong place, it says so itself.
    """
    rank = started()
    if rank is None:
        return work()
    from skyloom.trainer.distributed.follow import follow
    from skyloom.trainer.distributed.rendezvous import lead

    own: Any = HydraConfig.get()
    number = OmegaConf.select(own, "job.num", throw_on_missing=False) or 0
    folder = Path(str(config.paths.runs)).absolute() / FOLDER / f"{rank.key}-{number}"
    if rank.rank == 0:
        _check_all(verb, config, rank)
        with lead(rank, folder):
            return work()
    _leave_no_folder()
    try:
        _check_all(verb, config, rank)
    except ConfigError:
        return None
    _check_place(config, rank)
    follow(rank, folder)
    return None


def _check_all(verb: str, config: DictConfig, rank: Rank) -> None:
    """Compare what was started with what is asked, alike in all processes; of a recipe, each of its fits does so."""
    from skyloom.run.verbs import MEASURING

    if config.get("recipe"):
        return
    if verb != "train" or config.task.get("name") in MEASURING:
        raise ConfigError(
            f"this command runs in one process, {rank.by} has started {rank.size}; start one (--ntasks=1)"
        )
    devices, nodes = int(config.trainer.devices), int(config.trainer.num_nodes)
    if devices * nodes != rank.size:
        raise ConfigError(wrong_size(devices * nodes, rank))
    if nodes != rank.nodes:
        raise ConfigError(_misplaced(config, rank))


def _check_place(config: DictConfig, rank: Rank) -> None:
    """See whether this process is on its machine, which no other can tell."""
    if not config.get("recipe") and not rank.well_placed(int(config.trainer.devices)):
        raise ConfigError(_misplaced(config, rank))


def _misplaced(config: DictConfig, rank: Rank) -> str:
    devices, nodes = int(config.trainer.devices), int(config.trainer.num_nodes)
    return (
        f"{rank.by} has started {rank.size} processes on {rank.nodes} machine(s), other than trainer.devices="
        f"{devices} on each of trainer.num_nodes={nodes}; set --ntasks-per-node={devices} --nodes={nodes}"
    )


def _leave_no_folder() -> None:
    """Write nothing: neither the log nor an empty folder of this command."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]:
        root.removeHandler(handler)
        handler.close()
    with suppress(OSError):  # it is shared with rank 0, or not empty
        Path(HydraConfig.get().runtime.output_dir).rmdir()
