"""Several processes for one fit, all of them started by Slurm or torchrun."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from skyloom.errors import ConfigError, SkyloomError, StoreError
from skyloom.trainer.distributed.environment import Processes
from skyloom.trainer.distributed.ranks import Rank, wrong_size
from skyloom.trainer.distributed.rendezvous import GRACE_S, Leader

REPORT_S = 10.0  # for the report of a process whose end rank 0 has noticed
# Set by Lightning; and by torchrun, whose own meeting place serves one group of processes only, while a recipe may have
# several fits.
VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE")


@contextmanager
def open_started(leader: Leader, work: Callable[[Any, Processes], None], job: Any, size: int) -> Iterator[Processes]:
    """Let the other processes run ``work(job, environment)``, and the body of the ``with`` as rank 0.

    Parameters
    ----------
    leader
        Of the meeting of all processes.
    work, job
        As in :func:`skyloom.trainer.distributed.processes.open_processes`.
    size
        Number of processes that the job wants.

    Raises
    ------
    ConfigError
        Another number has been started.
    SkyloomError
        What another process raised.
    """
    rank = leader.rank
    if size != rank.size:
        raise ConfigError(wrong_size(size, rank))
    port = find_free_network_port()
    environment = Processes(0, size, port, address=rank.address, local_rank=rank.local_rank, node=rank.node)
    with _own_meeting():
        leader.post(pickle.dumps((_as_other, (work, job, port, rank.address))))
        try:
            yield environment
        except (SkyloomError, KeyboardInterrupt):
            raise
        except Exception as error:
            if cause := leader.failure(REPORT_S):
                raise cause from error
            raise
        if not leader.finished(GRACE_S):
            raise leader.failure() or StoreError(
                "another process of the fit has ended without a word; give the same command again, it goes on from "
                "the last checkpoint"
            )


def _as_other(arguments: tuple[Callable[[Any, Processes], None], Any, int, str], rank: Rank) -> None:
    """Take part as another process than rank 0; all of them stop when rank 0 says so."""
    work, job, port, address = arguments
    environment = Processes(rank.rank, rank.size, port, address=address, local_rank=rank.local_rank, node=rank.node)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with _own_meeting():
        try:
            work(job, environment)
        except SystemExit:
            return  # rank 0 was told to stop


@contextmanager
def _own_meeting() -> Iterator[None]:
    """Put back what a group of processes leaves behind."""
    kept = {name: os.environ.get(name) for name in VARIABLES}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
