"""What accompanies a fit: its pace on the screen, and its random numbers."""

import logging
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger

from skyloom.progress import QUIET_INTERVAL_S

log = logging.getLogger("skyloom")


class Pace(Callback):
    """Says on stderr every 30 s how far the fit is, and tells loggers the images per second.

    Parameters
    ----------
    loggers
        Told ``images_per_s``; not the record, which holds nothing that depends on the clock.
    quiet
        True writes no lines: something else shows the progress.
    """

    def __init__(self, loggers: Sequence[Logger], *, quiet: bool) -> None:
        self.loggers, self.quiet = loggers, quiet
        self.images_per_s = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = self._said = self._told = time.monotonic()
        self._images = self._told_images = self._batches = 0
        self._told_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch and speak up when it is time."""
        now = time.monotonic()
        self._images += len(batch["id"]) * trainer.world_size
        self._batches += 1
        self.images_per_s = self._images / max(now - self._start, 1e-9)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.global_step % every == 0 and trainer.global_step > self._told_step:
            rate = (self._images - self._told_images) / max(now - self._told, 1e-9)
            for logger in self.loggers:
                logger.log_metrics({"images_per_s": rate}, step=trainer.global_step)
            self._told, self._told_images, self._told_step = now, self._images, trainer.global_step
        if not self.quiet and now - self._said >= QUIET_INTERVAL_S:
            self._said = now
            print(self.line(trainer, _loss(outputs), batch_idx, now), file=sys.stderr, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the pace in the log."""
        seconds = time.monotonic() - self._start
        log.info("trained on %d images in %.4g s, %.4g images/s", self._images, seconds, self.images_per_s)

    def line(self, trainer: Trainer, loss: torch.Tensor | None, batch_idx: int, now: float) -> str:
        """One line: epoch, batch, loss, images per second, time left."""
        per_epoch = int(trainer.num_training_batches)
        left = int(trainer.max_epochs or 0) * per_epoch - trainer.current_epoch * per_epoch - batch_idx - 1
        seconds = left * (now - self._start) / max(self._batches, 1)
        shown = "" if loss is None else f"loss {float(loss):.4g}, "
        return (
            f"training: epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, batch {batch_idx + 1}/{per_epoch}, "
            f"{shown}{self.images_per_s:.4g} images/s, {timedelta(seconds=round(seconds))} left"
        )


class StepSeed(Callback):
    """Starts the global random streams of each step from (seed, epoch, batch), so that no checkpoint has to hold them.

    Parameters
    ----------
    seed
        Of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the streams of the CPU and of the GPUs."""
        self._start(trainer.current_epoch, batch_idx, trainer.global_rank)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Set the streams to the same in each epoch, so that losses of random samples can be compared."""
        self._start(1, 0, batch_idx, trainer.global_rank)

    def _start(self, *key: int) -> None:
        torch.manual_seed(int(np.random.SeedSequence(self.seed, spawn_key=key).generate_state(1, np.uint64)[0]))


def progress_callbacks(loggers: Sequence[Logger]) -> list[Callback]:
    """A rich bar on a terminal, a line every 30 s elsewhere; both on stderr, since stdout carries the id alone."""
    terminal = sys.stderr.isatty()
    bar: list[Callback] = [RichProgressBar(console_kwargs={"stderr": True})] if terminal else []
    return [*bar, Pace(loggers, quiet=terminal)]


def _loss(outputs: Any) -> torch.Tensor | None:
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return loss.detach() if isinstance(loss, torch.Tensor) else None
