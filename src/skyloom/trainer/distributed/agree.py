"""What the processes of a fit do together: rank 0 decides when to save and when to stop."""

import os
import signal
import threading
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class Agreement(Callback):
    """Makes all processes save and stop between the same two optimiser steps.

    Lightning answers a SIGTERM with a message to the other processes from within the signal, wherever the process
    is; if that is within another exchange, they wait for each other for ever. Here the signal only leaves a word, and
    so does the one that submitit lets Slurm send before a job's time is over or its place is taken. What submitit does
    at that signal (putting the job into the queue again) is left to it, when all is saved and closed.

    Attributes
    ----------
    stopping : int
        The signal that rank 0 has got, 0 for none.
    """

    def __init__(self) -> None:
        self.stopping = 0
        self._former: dict[int, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember who has the signals; Lightning takes SIGTERM right after this."""
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.getsignal(number) for number in (signal.SIGTERM, preemption())}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over, from Lightning too."""
        for number in self._former:
            signal.signal(number, self._stop if trainer.is_global_zero else signal.SIG_IGN)

    def release(self) -> None:
        """Put the former handlers back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def save_now(self, trainer: Trainer, due: bool, *, whole: bool) -> bool:
        """Whether to save: what rank 0 finds due.

        Parameters
        ----------
        trainer
            Of this process.
        due
            What this process finds.
        whole
            Between two optimiser steps; within one nothing is stopped, since no checkpoint holds its gradients.

        Raises
        ------
        SIGTERMException
            In all processes, when rank 0 shall stop.
        """
        save, stop = int(due), self.stopping
        if trainer.world_size > 1:
            said = torch.tensor([save, stop], device=trainer.strategy.root_device)
            torch.distributed.broadcast(said, src=0)
            save, stop = said.tolist()
        if stop and whole:
            raise SIGTERMException
        return bool(save)

    def _stop(self, number: int, *_: Any) -> None:
        self.stopping = number


def preemption() -> signal.Signals:
    """The signal by which submitit lets Slurm announce the end of a job."""
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


def gather(trainer: Trainer, value: Any) -> list[Any]:
    """What each process gives, by rank; plain types. All processes must call it."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values
