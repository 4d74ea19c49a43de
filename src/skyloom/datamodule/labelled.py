"""Batches of labelled cutouts for supervised training: pixels, ids and targets of a part or of folds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.datamodule.cutouts import Batch, CutoutsDataset, EpochSampler
from skyloom.datamodule.labels import Labels, label_subset, open_labels
from skyloom.datamodule.workers import reading_context
from skyloom.errors import ConfigError, InputError
from skyloom.store import Artifact

FRACTION_STREAM = 0x66726163  # keeps the stream of label_fraction apart from that of the epochs


class LabelledDataset(CutoutsDataset):
    """Labelled cutouts as dicts.

    Parameters
    ----------
    index
        The cutouts.
    labels
        Their labels.
    rows
        Rows of the labels that belong to the data set, shape (M,).
    """

    def __init__(self, index: CutoutIndex, labels: Labels, rows: np.ndarray) -> None:
        super().__init__(index, index.rows_of(labels.cutout_id[rows]))
        self.targets = labels.targets[rows] if labels.multi_label else labels.label[rows]

    def __getitems__(self, items: list[int]) -> Batch:
        """Read a batch: ``image`` (B, 1, S, S), ``id`` (B,), ``target`` int64 (B,), float32 (B, C) if multi-label."""
        target = torch.from_numpy(self.targets[items])
        return {**super().__getitems__(items), "target": target.float() if target.ndim == 2 else target}


class LabelledDataModule(LightningDataModule):
    """Train, validation and test batches of labelled cutouts.

    Parameters
    ----------
    index
        The cutouts.
    labels
        Their labels.
    test_fold
        None: the official parts, train, val and test. A number: that fold of the labels is tested on and the others
        train, whatever the parts say.
    val_fold
        With ``test_fold``: the fold to choose by; None: there is none.
    label_fraction
        Part of the training labels that is used, of every class at least one.
    batch_size
        Cutouts per batch. The last batch of an epoch may be smaller, in evaluation as in training, but a training batch
        of a single image, which batch normalisation cannot take, is left out.
    workers
        Worker processes that read; 0 reads in the training process.
    seed
        Start of the streams that choose labels and order epochs.

    Attributes
    ----------
    rows : dict
        Rows of the labels, int64, by part: ``train``, ``val`` and ``test``.
    classes : list of str
        Names of the classes; a target counts along them.
    """

    def __init__(
        self, index: CutoutIndex, labels: Labels, *, test_fold: int | None, val_fold: int | None,
        label_fraction: float, batch_size: int, workers: int, seed: int,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 < label_fraction <= 1:
            raise ConfigError(f"datamodule.label_fraction={label_fraction}: expected more than 0, at most 1")
        self.index, self.labels, self.classes = index, labels, labels.classes
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.rows = _parts(labels, test_fold, val_fold)
        self.rows["train"] = fraction_of(labels, self.rows["train"], label_fraction, seed)

    @classmethod
    def from_artifacts(
        cls,
        data: Mapping[str, Artifact | None],
        options: Mapping[str, Any],
        seed: int,
        image_roots: str | None = None,
    ) -> "LabelledDataModule":
        """Build from the artifact that holds the labels."""
        artifact = data.get("labels")
        if artifact is None:
            raise ConfigError("labels must be given: labels=ID (cutouts or labels made by step=labelled)")
        labels = open_labels(artifact)
        return cls(CutoutIndex(labels.cutouts, image_roots=image_roots), labels, seed=seed, **options)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of one epoch, in an order that depends on seed and epoch alone."""
        data = self._dataset("train")
        single = len(data) % self.batch_size == 1 and len(data) > 1
        return self._loader(data, sampler=EpochSampler(len(data), self.seed), drop_last=single)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Every cutout of the part ``val`` once, in the order of the labels; nothing where there is none."""
        return self._loader(self._dataset("val")) if len(self.rows["val"]) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every cutout of the part ``test`` once, in the order of the labels."""
        return self._loader(self._dataset("test"))

    def _dataset(self, part: str) -> LabelledDataset:
        if not len(self.rows[part]):
            raise InputError(f"no labelled cutout is in part {part} of {self.labels.cutouts.id}")
        return LabelledDataset(self.index, self.labels, self.rows[part])

    def _loader(self, data: LabelledDataset, **options: Any) -> DataLoader[Batch]:
        return DataLoader(
            data,
            batch_size=self.batch_size,
            num_workers=self.workers,
            multiprocessing_context=reading_context(self.workers, __name__),
            collate_fn=_whole,
            persistent_workers=self.workers > 0,
            **options,
        )


def fraction_of(labels: Labels, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose part of some labelled cutouts, of every class at least one.

    Parameters
    ----------
    labels
        The labels.
    rows
        Rows to choose from, int64 (M,).
    fraction
        More than 0, at most 1. Of a class with m members ``round(fraction * m)`` are taken, or one.
    seed
        Start of the stream; with one label each, a smaller fraction of the same seed lies within a larger one.

    Returns
    -------
    ndarray
        int64, ascending.
    """
    if fraction == 1:
        return np.sort(rows)
    rows, rng = np.sort(rows), np.random.default_rng([seed, FRACTION_STREAM])
    return rows[label_subset(labels.targets[rows], fraction, rng)]


def _parts(labels: Labels, test_fold: int | None, val_fold: int | None) -> dict[str, np.ndarray]:
    if test_fold is None:
        if val_fold is not None:
            raise ConfigError(f"datamodule.val_fold={val_fold} needs datamodule.test_fold")
        parts = {part: np.flatnonzero(labels.split == part) for part in ("train", "val", "test")}
        if not len(parts["train"]):
            raise ConfigError("the labels have no part 'train'; choose by folds: datamodule.test_fold=0")
        return parts
    if labels.fold is None:
        raise ConfigError(
            f"datamodule.test_fold={test_fold}: the labels have no folds; leave it out to use their parts"
        )
    there = [int(fold) for fold in np.unique(labels.fold[labels.fold >= 0])]
    for name, fold in (("test_fold", test_fold), ("val_fold", val_fold)):
        if fold is not None and fold not in there:
            raise ConfigError(f"datamodule.{name}={fold} is not a fold of the labels; they have {there}")
    if val_fold == test_fold:
        raise ConfigError(f"datamodule.val_fold and test_fold are both {test_fold}; choose two folds")
    train = (labels.fold >= 0) & (labels.fold != test_fold) & (labels.fold != (-1 if val_fold is None else val_fold))
    val = np.flatnonzero(labels.fold == val_fold) if val_fold is not None else np.empty(0, dtype=np.int64)
    return {"train": np.flatnonzero(train), "val": val, "test": np.flatnonzero(labels.fold == test_fold)}


def _whole(batch: Any) -> Any:
    """The data set has read the batch as a whole already."""
    return batch
