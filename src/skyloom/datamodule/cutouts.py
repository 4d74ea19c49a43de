"""Batches of cutouts for training: raw pixels and ids, in an order that depends on seed and epoch alone."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from pydantic import NonNegativeInt, PositiveInt
from torch.utils.data import DataLoader, Dataset, Sampler

from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.datamodule.workers import reading_context
from skyloom.errors import ConfigError
from skyloom.store import Artifact

Batch = dict[str, torch.Tensor]


class CutoutsDataset(Dataset[Batch]):
    """Cutouts as dicts; a batch is read in one go.

    Parameters
    ----------
    index
        The cutouts.
    rows
        Rows that belong to the data set, shape (M,).
    """

    def __init__(self, index: CutoutIndex, rows: np.ndarray) -> None:
        self.index, self.rows = index, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Batch:
        return {key: value[0] for key, value in self.__getitems__([i]).items()}

    def __getitems__(self, items: list[int]) -> Batch:
        """Read a batch: ``image`` float32 (B, 1, S, S) raw with NaN, ``id`` int64 (B,)."""
        rows = self.rows[items]
        pixels = torch.from_numpy(self.index.read(rows)).unsqueeze(1)
        return {"image": pixels, "id": torch.from_numpy(self.index.cutout_id[rows])}


class EpochSampler(Sampler[int]):
    """A permutation per epoch, drawn from (seed, epoch) alone, so that a resumed run sees the same order.

    Lightning calls :meth:`set_epoch` before each epoch. Of several processes each takes every n-th image of the same
    permutation: with as many images per batch as one process, their batches together are those of one process with
    n times as many, and no image is repeated to fill up.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0
        self.rank, self.processes = 0, 1

    def share(self, rank: int, processes: int) -> None:
        """Take the part of one of several processes."""
        self.rank, self.processes = rank, processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.processes

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.epoch,)))
        return iter(rng.permutation(self.size)[self.rank :: self.processes][: len(self)].tolist())


class CutoutsDataModule(LightningDataModule):
    """Cutouts, or a selection of them, for training without labels.

    Parameters
    ----------
    index
        The cutouts.
    rows
        Rows to train on, shape (M,); None takes all.
    batch_size
        Cutouts per batch; a last batch that is not full is left out of the epoch, since batch statistics of
        a few images disturb batch normalisation.
    workers
        Worker processes that read; 0 reads in the training process.
    seed
        Start of the stream that orders the epochs.
    """

    def __init__(
        self,
        index: CutoutIndex,
        *,
        rows: np.ndarray | None,
        batch_size: PositiveInt,
        workers: NonNegativeInt,
        seed: int,
    ) -> None:
        super().__init__()
        self.dataset = CutoutsDataset(index, np.arange(len(index)) if rows is None else rows)
        if len(self.dataset) < batch_size:
            raise ConfigError(
                f"datamodule.batch_size={batch_size} is more than the {len(self.dataset)} cutouts there are; lower it"
            )
        self.batch_size, self.workers, self.seed = batch_size, workers, seed

    @classmethod
    def from_artifacts(
        cls,
        data: Mapping[str, Artifact | None],
        options: Mapping[str, Any],
        seed: int,
        image_roots: str | None = None,
    ) -> "CutoutsDataModule":
        """Build from artifacts of the kinds ``cutouts`` and, optionally, ``selection``."""
        cutouts, selection = data.get("cutouts"), data.get("selection")
        if cutouts is None or cutouts.kind != "cutouts":
            raise ConfigError(f"cutouts={cutouts.id if cutouts else 'null'} is not an artifact of kind cutouts")
        index = CutoutIndex(cutouts, image_roots=image_roots)
        rows = None if selection is None else index.rows_of(selection.table()["cutout_id"].to_numpy())
        return cls(index, rows=rows, seed=seed, **options)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of one epoch."""
        return DataLoader(
            self.dataset,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(self.dataset), self.seed),
            num_workers=self.workers,
            multiprocessing_context=reading_context(self.workers, __name__),
            collate_fn=_whole,
            drop_last=True,
            persistent_workers=self.workers > 0,
        )


def _whole(batch: Any) -> Any:
    """The data set has read the batch as a whole already."""
    return batch
