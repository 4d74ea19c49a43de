"""How well the features of a fit under way tell labelled images apart, by their nearest neighbours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import nn

from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.datamodule.labels import Labels
from skyloom.errors import InputError
from skyloom.metric.knn import knn_scores
from skyloom.trainer.options import MonitorOptions

BATCH = 128


class KnnScore(Callback):
    """Logs ``monitor/knn_accuracy``: the share of images whose most voted class is one of theirs.

    The bank is the labelled set's ``train`` part and the queries are ``val``, or ``test`` where there is no ``val``.
    Without official parts, half of the groups (sky cells or objects) are the bank. The network is in evaluation mode
    meanwhile; labels never reach the training.

    Parameters
    ----------
    labels
        Of the labelled set.
    options
        How often, on how many images, with how many neighbours.
    seed
        Start of the stream that chooses the images.
    loggers
        Told the score; the record must be one of them.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    InputError
        The set cannot be parted.
    """

    def __init__(
        self, labels: Labels, options: MonitorOptions, seed: int, loggers: Sequence[Logger], image_roots: str | None
    ) -> None:
        self._options, self._loggers = options, loggers
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7,)))
        known = np.flatnonzero(labels.targets.any(axis=1))
        chosen = np.sort(rng.permutation(known)[: options.knn_images])
        bank, queries = parts(labels, chosen)
        self._targets = torch.from_numpy(labels.targets)
        self._bank, self._queries = bank, queries
        self._index = CutoutIndex(labels.cutouts, image_roots=image_roots)
        self._rows = self._index.rows_of(labels.cutout_id)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score when it is time, and at the end."""
        epoch = trainer.current_epoch
        if (epoch + 1) % self._options.knn_every_n_epochs and epoch + 1 != trainer.max_epochs:
            return
        score = self.score(pl_module)
        for logger in self._loggers:
            logger.log_metrics({"epoch": epoch, "monitor/knn_accuracy": score}, step=trainer.global_step - 1)
            logger.save()

    @torch.no_grad()
    def score(self, module: LightningModule) -> float:
        """Score the backbone of a task as it is."""
        with _evaluating(module):
            bank, queries = self._features(module, self._bank), self._features(module, self._queries)
        votes = knn_scores(bank, self._targets[self._bank], queries, self._options.knn_k, self._options.knn_temperature)
        right = self._targets[self._queries].gather(1, votes.argmax(dim=1, keepdim=True))
        return float(right.float().mean())

    def _features(self, module: LightningModule, items: np.ndarray) -> torch.Tensor:
        found = []
        for start in range(0, len(items), BATCH):
            raw = torch.from_numpy(self._index.read(self._rows[items[start : start + BATCH]])).unsqueeze(1)
            images = module.preprocess(raw.to(module.device)).to(module.dtype)  # type: ignore[operator]
            found.append(module.backbone(images).float().cpu())  # type: ignore[operator]
        return torch.cat(found)


def parts(labels: Labels, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split some rows of labels into bank and queries, so that no group is in both unless the official parts say so.

    Raises
    ------
    InputError
        One of them would be empty.
    """
    split = labels.split[chosen]
    bank = chosen[split == "train"]
    queries = chosen[split == "val"] if (split == "val").any() else chosen[split == "test"]
    if not (len(bank) and len(queries)):
        groups = np.unique(labels.group[chosen])
        in_bank = np.isin(labels.group[chosen], groups[::2])
        bank, queries = chosen[in_bank], chosen[~in_bank]
    if not (len(bank) and len(queries)):
        raise InputError(
            f"monitor_labels: {len(labels)} labelled images make no bank and queries; give a set with parts, or with "
            "images of more than one group"
        )
    return bank, queries


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each part of it back into its own mode afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
