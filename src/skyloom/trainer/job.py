"""What a fit is told and what it tells: the job that every process gets, and its summary."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule

from skyloom.errors import ConfigError
from skyloom.trainer.options import TrainerOptions
from skyloom.trainer.resume import EpochLoader
from skyloom.trainer.validation import ValidationLoader

CHECKPOINT = "last.ckpt"
Write = Callable[[str], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Job:
    """What every process of a fit must know; the other processes get a copy.

    Attributes
    ----------
    module, batches
        What is fitted, and on what.
    options
        Of the group ``trainer``.
    seed
        Start of the global random streams of all steps.
    facts
        What is fitted, in plain types, for the checkpoint.
    folder
        Of the artifact in the making.
    not_finite
        File for the ids of a batch that ended the fit.
    validates
        Whether the module is validated at the end of epochs, where the data have a part for it.
    """

    module: LightningModule
    batches: LightningDataModule
    options: TrainerOptions
    seed: int
    facts: dict[str, Any]
    folder: Path
    not_finite: Path
    validates: bool = False

    @property
    def last(self) -> Path:
        """The checkpoint."""
        return self.folder / CHECKPOINT

    def loader(self, rank: int = 0) -> tuple[EpochLoader, int]:
        """Batches of a process, and how many of them an epoch has.

        Raises
        ------
        ConfigError
            There is not one for each process.
        """
        self.batches.setup("fit")
        loader = EpochLoader(self.batches.train_dataloader())
        loader.sampler.share(rank, self.options.world_size)
        if len(loader) == 0:
            raise ConfigError(
                f"trainer.devices={self.options.devices}: the data are less than one batch for each; lower it or "
                "datamodule.batch_size"
            )
        return loader, min(len(loader), self.options.limit_train_batches or len(loader))

    def validation_loader(self, rank: int = 0) -> ValidationLoader | None:
        """Validation batches of a process; None where nothing is validated.

        Raises
        ------
        ConfigError
            There is not one image for each process.
        """
        if not self.validates:
            return None
        self.batches.setup("validate")
        loader = self.batches.val_dataloader()
        return None if isinstance(loader, list) else ValidationLoader(loader, rank, self.options.world_size)

    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-self.loader()[1] // self.options.accumulate_grad_batches)


@dataclass(frozen=True)
class Fitted:
    """What a fit has done, over all attempts and epochs.

    Attributes
    ----------
    images
        Images trained on.
    left_out
        Images of steps that were left out, since their loss or gradient was not finite.
    left_out_ids
        Ids of some of them.
    collapsed
        What the monitor last found wrong with the representation; None when nothing.
    """

    images: int
    left_out: int
    left_out_ids: list[int]
    collapsed: str | None
