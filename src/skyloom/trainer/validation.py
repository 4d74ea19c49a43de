"""Validation at the end of epochs: its options, and batches that drop no image and repeat none over the processes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch.utils.data import DataLoader

from skyloom.errors import ConfigError


class ValidationOptions(BaseModel):
    """Options of ``trainer.validation``; only tasks that validate read them.

    Attributes
    ----------
    every_n_epochs
        Epochs between two validations; the last epoch has one in any case, see `LastIsJudged`.
    limit_batches
        Batches of each process, for trials; None takes all.
    overlays_every_n_epochs
        Epochs between two pictures of truth and prediction; None draws none. Only epochs with a validation have some.
    overlay_images
        Validation images in such a picture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    every_n_epochs: PositiveInt
    limit_batches: PositiveInt | None
    overlays_every_n_epochs: PositiveInt | None
    overlay_images: PositiveInt

    def lightning(self) -> dict[str, Any]:
        """Arguments of Lightning's ``Trainer``."""
        return {
            "check_val_every_n_epoch": self.every_n_epochs,
            "limit_val_batches": 1.0 if self.limit_batches is None else self.limit_batches,
            "num_sanity_val_steps": 0,  # metrics.csv holds what came of the training only
        }


class LastIsJudged(Callback):
    """Has the last epoch validated whatever ``every_n_epochs`` is, so that the best epoch may be the last.

    Parameters
    ----------
    every_n_epochs
        Epochs between two validations.
    """

    def __init__(self, every_n_epochs: int) -> None:
        self._every_n_epochs = every_n_epochs

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A fit may go on in the middle of its last epoch."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning asks at the end of the epoch."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if last else self._every_n_epochs


class ValidationLoader:
    """The part of a process of the validation images: every n-th, in order, none twice and none left out.

    All processes get the same number of batches, of nearly equal size, since each forward pass is an exchange between
    them (DistributedDataParallel hands buffers around). With batches of one image, one of them may hold two.

    Parameters
    ----------
    loader
        In the order of its data set.
    rank, processes
        Number of this process, and of all.

    Raises
    ------
    ConfigError
        There is not one image for each process.
    """

    def __init__(self, loader: DataLoader[Any], rank: int, processes: int) -> None:
        size = len(loader.dataset)  # type: ignore[arg-type]
        if size < processes:
            raise ConfigError(
                f"trainer.devices={processes}: the validation part has {size} image(s), fewer than one for each; "
                "lower it, or give datamodule.parts.val a larger part"
            )
        batches = min(-(-size // processes // loader.batch_size), size // processes)  # type: ignore[operator]
        chunks = np.array_split(np.arange(rank, size, processes), max(batches, 1))
        self._loader = DataLoader(
            loader.dataset,
            batch_sampler=[chunk.tolist() for chunk in chunks],
            num_workers=loader.num_workers,
            multiprocessing_context=loader.multiprocessing_context,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            persistent_workers=loader.persistent_workers,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)
