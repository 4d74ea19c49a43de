"""Keeps the weights of the best epoch of a fit, also over interruptions."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file, save_file
from torch import Tensor

PATTERN = "best-*.safetensors"


class BestWeights(Callback):
    """Writes the weights at the end of each validation that is better than all before.

    Each file carries its epoch in its name, and the checkpoint says which one is the best so far. An older one goes
    only when no checkpoint on disk refers to it, so that a fit that is resumed from there finds what it had, even if
    it does not repeat itself bit by bit.

    Parameters
    ----------
    folder
        For the files; survives a killed fit.
    write
        Opens a temporary path that gets its final name when it is whole and on disk.
    metric
        Name of the measure, such as ``val/mask_ap``; NaN is never the best.
    mode
        ``max`` or ``min``.
    weights
        Gives the weights by name, as they are to be kept: on the CPU, each with memory of its own.

    Attributes
    ----------
    value : float or None
        Best so far; of equal ones the first. None before there is one.
    epoch : int or None
        Its epoch, from 0.
    """

    def __init__(
        self,
        folder: Path,
        *,
        write: Callable[[Path], AbstractContextManager[Path]],
        metric: str,
        mode: str,
        weights: Callable[[], dict[str, Tensor]],
    ) -> None:
        self._folder, self._write, self._weights = folder, write, weights
        self.metric, self._sign = metric, 1.0 if mode == "max" else -1.0
        self.value: float | None = None
        self.epoch: int | None = None
        self._in_checkpoint: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare, and write what is better."""
        value = float(trainer.callback_metrics.get(self.metric, math.nan))  # a task leaves out what is no number
        if math.isnan(value) or (self.value is not None and self._sign * value <= self._sign * self.value):
            return
        with self._write(self._file(trainer.current_epoch)) as path:
            save_file(self._weights(), path)
        self.value, self.epoch = value, trainer.current_epoch
        kept = {self._file(epoch) for epoch in (self.epoch, self._in_checkpoint) if epoch is not None}
        for file in self._folder.glob(PATTERN):
            if file not in kept:
                file.unlink()

    def state_dict(self) -> dict[str, Any]:
        """What the best was, for the checkpoint."""
        self._in_checkpoint = self.epoch  # a checkpoint that could not be written ends the fit
        return {"value": self.value, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.value, self.epoch = state_dict["value"], state_dict["epoch"]
        self._in_checkpoint = self.epoch

    def load(self) -> dict[str, Tensor] | None:
        """Return the best weights; None where nothing was validated or no value was a number."""
        return None if self.epoch is None else load_file(self._file(self.epoch))

    def _file(self, epoch: int) -> Path:
        return self._folder / PATTERN.replace("*", f"{epoch:05d}")
