"""Whether Slurm or torchrun has started this process as one of several for one fit, and which of them it is."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

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
    if (size := int(env["WORLD_SIZE"])) < 2:
        return None
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    return Rank(
        rank=int(env["RANK"]),
        size=size,
        local_rank=int(env["LOCAL_RANK"]),
        node=int(env["GROUP_RANK"]),
        nodes=int(env["GROUP_WORLD_SIZE"]),
        by="torchrun",
        key=_plain("-".join(env.get(name, "") for name in names)),
        address=env["MASTER_ADDR"],
    )


def _of_slurm(env: Mapping[str, str]) -> Rank | None:
    size = int(env.get("SLURM_STEP_NUM_TASKS", 1))
    if size < 2 or "SLURM_PROCID" not in env:
        return None
    nodes = int(env.get("SLURM_STEP_NUM_NODES", env.get("SLURM_JOB_NUM_NODES", 1)))
    names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID")
    return Rank(
        rank=int(env["SLURM_PROCID"]),
        size=size,
        local_rank=int(env.get("SLURM_LOCALID", 0)),
        node=int(env.get("SLURM_NODEID", 0)),
        nodes=nodes,
        by="srun",
        key=_plain("-".join(env.get(name, "0") for name in names)),
        address=LOCALHOST if nodes == 1 else socket.gethostname(),
    )


def _plain(text: str) -> str:
    """Fit for the name of a folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)
