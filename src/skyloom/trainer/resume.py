"""Checkpoints from which a killed fit goes on as if nothing had happened, and a loader that can start mid-epoch."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from skyloom.trainer.distributed.agree import Agreement
from skyloom.trainer.record import CsvRecord

KEY = "skyloom"  # of our part of the checkpoint
VERSION = 1  # of that part; raised when an older checkpoint can no longer be gone on from


class EpochLoader:
    """Batches of a ``DataLoader``, from any batch of an epoch on.

    Lightning sets the epoch of ``sampler`` between ``iter`` and the first batch. The iterator is lazy, so that also a
    loader with worker processes, which would read ahead in the old order, begins after that.

    Parameters
    ----------
    loader
        With a sampler whose order is a function of its epoch.


    Attributes
    ----------
    start : int
        Batches that the next epoch leaves out without reading them.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader, self.start = loader, 0
        self.sampler: Any = loader.sampler

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        start, self.start = self.start, 0
        yield from self._rest(start) if start else self.loader

    def state_dict(self) -> dict[str, int]:
        """Nothing: :class:`Resume` knows. Lightning wants this method before it believes that a loader can go on."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing: Lightning's call would come too late for tasks that ask for the number of steps."""

    def _rest(self, start: int) -> DataLoader[Any]:
        loader: Any = self.loader
        batches = list(islice(iter(loader.batch_sampler), start, None))
        return DataLoader(
            loader.dataset,
            batch_sampler=batches,
            num_workers=loader.num_workers,
            multiprocessing_context=loader.multiprocessing_context,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
        )


class Resume(Checkpoint):
    """Saves before a batch: the first of an epoch, any after some minutes or a SIGTERM; and when the fit ends.

    Between two batches everything of the batch before is settled: schedules, moving averages and rows of metrics, those
    of the epoch too. Lightning's own callback saves before the last of these, and would lose rows.

    Parameters
    ----------
    path
        The checkpoint.
    write
        Opens a temporary path that replaces ``path`` when it is whole and on disk.
    record
        Its number of rows is part of the state.
    loader
        Is told where to go on.
    agreement
        With the other processes, all of which save when rank 0 finds it due; rank 0 alone writes.
    facts
        What is fitted, in plain types; part of the checkpoint.
    every_n_epochs, every_min
        How often; ``every_min`` None saves between epochs only.

    Attributes
    ----------
    images : int
        Images trained on so far, over all attempts.
    """

    def __init__(
        self,
        path: Path,
        *,
        write: Callable[[str], AbstractContextManager[Path]],
        record: CsvRecord,
        loader: EpochLoader,
        agreement: Agreement,
        facts: dict[str, Any],
        every_n_epochs: int,
        every_min: float | None,
    ) -> None:
        self.path, self._write, self._record, self._loader = path, write, record, loader
        self._agreement, self._facts = agreement, facts
        self._every_n_epochs, self._every_min = every_n_epochs, every_min
        self._saved = time.monotonic()
        self._sums: dict[str, list[torch.Tensor]] = {}
        self._moved = self._at_start = False
        self.images = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save when it is time."""
        self._add_sums(trainer)
        minutes = (time.monotonic() - self._saved) / 60
        between = batch_idx == 0 and trainer.current_epoch % self._every_n_epochs == 0
        due = between or (self._every_min is not None and minutes >= self._every_min)
        whole = batch_idx % trainer.accumulate_grad_batches == 0
        if self._agreement.save_now(trainer, due, whole=whole):
            self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save after a signal, for which this is raised between two optimiser steps, never within a validation."""
        if isinstance(exception, SIGTERMException):
            self._add_sums(trainer)
            self._save(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images."""
        self.images += len(batch["id"]) * trainer.world_size

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the sums of an epoch that was interrupted before its last batch."""
        self._add_sums(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add our part, in plain types."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        total, current = progress["total"], progress["current"]
        total["ready"] = total["completed"]  # a batch may have been fetched, but no step was made with it
        done = current["completed"] if current["completed"] < trainer.num_training_batches else 0
        progress["current"] = dict.fromkeys(current, done)
        checkpoint[KEY] = {
            "version": VERSION,
            "facts": {**self._facts, "steps_per_epoch": steps_per_epoch(trainer)},
            "rows": self._record.sync(),
            "images": self.images,
            "batches": done,
            "sums": {**_sums(trainer), **self._sums} if done else {},
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up our part."""
        state = checkpoint[KEY]
        self._record.cut(state["rows"])
        self.images = state["images"]
        self._loader.start = state["batches"]
        self._sums = state["sums"]
        self._moved = state.get("moved", False)
        self._at_start = not state["batches"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the learning rates of this fit's schedule when the checkpoint is of a shorter one.

        And begin an epoch that the checkpoint stands before as a new one: Lightning takes one that was interrupted
        before its first batch for one that was interrupted before its validation, and would count a step too many.
        """
        if self._at_start and trainer.enable_validation:
            trainer.fit_loop.epoch_loop.restarting = False
        self._at_start = False
        if self._moved:
            for config in trainer.lr_scheduler_configs:
                scheduler: Any = config.scheduler
                scheduler.last_epoch -= 1
                scheduler.step()
            self._moved = False

    def _save(self, trainer: Trainer) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        half_a_step = done < trainer.num_training_batches and done % trainer.accumulate_grad_batches
        if trainer.global_step == 0 or half_a_step:
            return  # nothing done yet, or gradients that no checkpoint holds
        with self._write(self.path.name) as temporary:
            trainer.save_checkpoint(temporary)
        self._saved = time.monotonic()

    def _add_sums(self, trainer: Trainer) -> None:
        """Add what the interrupted part of an epoch had summed up for its means, once each metric is there again.

        Lightning keeps these sums out of its checkpoints; a test watches that these private names stay.
        """
        for key, metric in trainer.fit_loop.epoch_loop._results.items():
            if key in self._sums:
                value, size = (part.to(metric.value.device) for part in self._sums.pop(key))
                if metric.meta.is_max_reduction or metric.meta.is_min_reduction:
                    metric.value = metric.meta.reduce_fx(metric.value, value)
                else:
                    metric.value = metric.value + value
                if metric.meta.is_mean_reduction:
                    metric.cumulated_batch_size = metric.cumulated_batch_size + size
                metric._computed = None


def steps_per_epoch(trainer: Trainer) -> int:
    """Optimiser steps of one epoch."""
    return -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)


def _sums(trainer: Trainer) -> dict[str, list[torch.Tensor]]:
    """What each metric that is averaged over the epoch has summed up: value and number."""
    sums = {}
    for key, metric in trainer.fit_loop.epoch_loop._results.items():
        if metric.is_tensor and metric.meta.on_epoch:
            size = metric.cumulated_batch_size if metric.meta.is_mean_reduction else torch.tensor(0)
            sums[key] = [metric.value.detach().cpu(), size.detach().cpu()]
    return sums
