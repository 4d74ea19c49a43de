"""Whether Slurm or torchrun has started this process as one of several for one fit, and which of them it is."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from skyloom.errors import ConfigError

LOCALHOST = "127.0.0.1"


@dataclass(frozen=True)
class Rank:
    """One of several processes that somebody else has started.

    Attributes
    ----------
    rank, size
        Its number, and how many there are.
    local_rank, node
        Its number on its machine, and that of its machine.
    nodes
        Machines.
    by
        Who has started it: ``srun`` or ``torchrun``.
    key
        Text that all of them share, and that no others have.
    address
        Where the others reach this process, should it be rank 0.
    """

    rank: int
    size: int
    local_rank: int
    node: int
    nodes: int
    by: str
    key: str
    address: str

    def well_placed(self, devices: int) -> bool:
        """Whether ranks are numbered machine by machine, with so many on each."""
        return divmod(self.rank, devices) == (self.node, self.local_rank)


def started(environment: Mapping[str, str] | None = None) -> Rank | None:
    """Read from the environment which of several processes this is; None when it is alone.

    A batch script is alone, however many tasks its job has: only what ``srun`` starts in it is not.

    Parameters
    ----------
    environment
        None takes that of this process.

    Raises
    ------
    ConfigError
        A variable that should hold a number does not.
    """
    env = os.environ if environment is None else environment
    if "TORCHELASTIC_RUN_ID" in env:
        return _of_torchrun(env)
    return _of_slurm(env)


def wrong_size(asked: int, rank: Rank) -> str:
    """What to say when the processes that were started are not those that are asked for."""
    return (
        f"this command wants {asked} process(es) (trainer.devices x trainer.num_nodes), {rank.by} has started "
        f"{rank.size} on {rank.nodes} machine(s); make them equal"
    )


def _of_torchrun(env: Mapping[str, str]) -> Rank | None:
    if (size := _number(env, "WORLD_SIZE")) < 2:
        return None
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    return Rank(
        rank=_number(env, "RANK"),
        size=size,
        local_rank=_number(env, "LOCAL_RANK"),
        node=_number(env, "GROUP_RANK"),
        nodes=_number(env, "GROUP_WORLD_SIZE"),
        by="torchrun",
        key=_plain("-".join(env.get(name, "") for name in names)),
        address=env.get("MASTER_ADDR", LOCALHOST),
    )


def _of_slurm(env: Mapping[str, str]) -> Rank | None:
    size = _number(env, "SLURM_STEP_NUM_TASKS", 1)
    if size < 2 or "SLURM_PROCID" not in env:
        return None
    nodes = _number(env, "SLURM_STEP_NUM_NODES", _number(env, "SLURM_JOB_NUM_NODES", 1))
    names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID")
    return Rank(
        rank=_number(env, "SLURM_PROCID"),
        size=size,
        local_rank=_number(env, "SLURM_LOCALID", 0),
        node=_number(env, "SLURM_NODEID", 0),
        nodes=nodes,
        by="srun",
        key=_plain("-".join(env.get(name, "0") for name in names)),
        address=LOCALHOST if nodes == 1 else socket.gethostname(),
    )


def _number(env: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    text = env.get(name, "" if otherwise is None else str(otherwise))
    if not text.isdecimal():
        raise ConfigError(f"{name}={text!r} in the environment: expected a number, as srun and torchrun set it")
    return int(text)


def _plain(text: str) -> str:
    """Fit for the name of a folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)
