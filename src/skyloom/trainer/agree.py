"""What the processes of a fit do together: rank 0 decides when to save and when to stop."""

import signal
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class Agreement(Callback):
    """Makes all processes save and stop between the same two batches.

    Lightning answers a SIGTERM with a message to the other processes from within the signal, wherever the process
    is; if that is within another exchange, they wait for each other for ever. Here the signal only leaves a word.

    Attributes
    ----------
    stopping : bool
        Rank 0 has got a SIGTERM.
    """

    def __init__(self) -> None:
        self.stopping = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM over from Lightning, which puts the former handler back at the end."""
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, self._stop if trainer.is_global_zero else signal.SIG_IGN)

    def save_now(self, trainer: Trainer, due: bool) -> bool:
        """Whether to save: what rank 0 finds due.

        Raises
        ------
        SIGTERMException
            In all processes, when rank 0 shall stop.
        """
        if trainer.world_size == 1:
            return due
        said = torch.tensor([int(due), int(self.stopping)], device=trainer.strategy.root_device)
        torch.distributed.broadcast(said, src=0)
        save, stop = said.tolist()
        if stop:
            raise SIGTERMException
        return bool(save)

    def _stop(self, *_: Any) -> None:
        self.stopping = True


def gather(trainer: Trainer, value: Any) -> list[Any]:
    """What each process gives, by rank; plain types. All processes must call it."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values
