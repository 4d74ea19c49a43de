"""train.py task=probe task.method=finetune: the whole network learns the labels, from pixels."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from pydantic import NonNegativeInt
from torch.utils.data import DataLoader

from skyloom.backbone.spec import BackboneSpec, Weights, open_weights
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.datamodule.cutouts import EpochSampler
from skyloom.datamodule.labelled import LabelledDataset
from skyloom.datamodule.labels import Labels, open_labels
from skyloom.errors import ConfigError
from skyloom.probe.measure import Answer, measure
from skyloom.probe.options import ProbeOptions
from skyloom.probe.pieces import Piece, make_plan
from skyloom.probe.source import labels_input, used_labels
from skyloom.store import Artifact, Build, builds
from skyloom.task.probe import ProbeTask
from skyloom.transform import Preprocess, RadioAugment


@builds("probe", version=1, inputs={"labels": labels_input, "weights": open_weights}, free=("image_roots",))
def finetune(
    build: Build,
    *,
    labels: Artifact,
    weights: Weights,
    backbone: BackboneSpec,
    preprocess: dict[str, Any],
    augment: dict[str, Any],
    task: ProbeOptions,
    seed: NonNegativeInt,
    image_roots: str | None,
) -> None:
    """Measure how well labels can be learnt from pixels by a network that starts from given weights.

    Writes what :func:`skyloom.probe.frozen.probe` writes; each fraction, seed and fold is a training of its own and
    a resumable piece. The trained networks are not kept.

    Parameters
    ----------
    build
        Where to write.
    labels
        Artifact of kind ``labels``, or ``cutouts`` that carry labels.
    weights
        Where the backbone starts from; random ones are drawn anew for every seed.
    backbone
        The network.
    preprocess
        Options of :class:`skyloom.transform.Preprocess`.
    augment
        Options of :class:`skyloom.transform.RadioAugment`.
    task
        Method and its options.
    seed
        Start of all random streams.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    ConfigError
        The memory of the GPU does not suffice.
    InputError
        All labels have one class, an image cannot be read, or the loss is no longer finite.
    """
    if task.finetune.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu: torch sees no GPU here; use trainer=auto or trainer=cpu")
    given = open_labels(labels)
    used = used_labels(build, given)
    index = CutoutIndex(used.cutouts, image_roots=image_roots)
    scaling = Preprocess.from_options(preprocess)
    views = RadioAugment(**augment) if task.finetune.augment else None
    tuner = Tuner(index, used, task, lambda number: weights.build(backbone, number), scaling, views)
    plan = make_plan(used, task, seed)
    build.note(
        backbone=backbone.model,
        backbone_digest=weights.build(backbone, seed).digest(),
        layer="pooled",
        preprocess_digest=scaling.digest,
        weights=weights.identity(),
        features=None,
        cutouts=used.cutouts.id,
    )
    measure(build, tuner.answer, used, labels.id, plan, task)


class Tuner:
    """Trains and applies a network for a piece.

    Parameters
    ----------
    index
        Cutouts of the labels.
    labels
        Those that are used.
    options
        Of the probe.
    network
        ``network(seed)`` builds the backbone.
    preprocess, augment
        As :class:`skyloom.task.probe.ProbeTask` takes them.
    """

    def __init__(
        self, index: CutoutIndex, labels: Labels, options: ProbeOptions, network: Any, preprocess: Any, augment: Any
    ) -> None:
        self.index, self.labels, self.options = index, labels, options
        self.network, self.preprocess, self.augment = network, preprocess, augment
        self.rows = index.rows_of(labels.cutout_id)

    def answer(self, piece: Piece) -> Answer:
        """Train on the labels of a piece and score its test items."""
        options, targets = self.options.finetune, self.labels.targets
        batch_size = min(options.batch_size, len(piece.train))
        # A last batch of one image would stop batch normalisation; another image is left out in each epoch.
        drop_last = len(piece.train) % batch_size == 1
        steps = len(piece.train) // batch_size if drop_last else math.ceil(len(piece.train) / batch_size)
        epochs = max(options.epochs, math.ceil(options.min_steps / steps))
        module = ProbeTask(
            self.network(piece.seed),
            self.preprocess,
            self.augment,
            classes=targets.shape[1],
            multi_label=self.labels.multi_label,
            class_weight=_class_weight(targets[piece.train]) if options.class_weight == "balanced" else None,
            learning_rate=options.learning_rate,
            head_learning_rate=options.head_learning_rate,
            weight_decay=options.weight_decay,
            warmup_fraction=options.warmup_fraction,
            seed=piece.seed,
        )
        train, test = self._data(piece.train), self._data(piece.test)
        order = EpochSampler(len(train), piece.seed)
        with _quiet(), torch.random.fork_rng():
            torch.manual_seed(piece.seed)  # for the drop-out of some backbones
            trainer = Trainer(
                accelerator=options.accelerator, devices=1, precision=options.precision, max_epochs=epochs,
                plugins=[LightningEnvironment()], logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
            )  # fmt: skip
            try:
                trainer.fit(
                    module, DataLoader(train, batch_size, sampler=order, drop_last=drop_last, collate_fn=_whole)
                )
                found = trainer.predict(module, DataLoader(test, options.batch_size, collate_fn=_whole))
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    "the memory of the GPU does not suffice; lower task.finetune.batch_size or set "
                    "trainer.precision=bf16-mixed"
                ) from error
        scores = torch.cat(found).cpu().numpy()  # type: ignore[arg-type]
        return Answer(scores.astype(np.float32), float(epochs), "given")

    def _data(self, rows: np.ndarray) -> LabelledDataset:
        return LabelledDataset(self.index, self.labels, rows)


def _class_weight(targets: np.ndarray) -> torch.Tensor:
    """Inverse of the members of each class, 1 on average over the items; 0 where there is none."""
    members = targets.sum(0)
    weight = np.divide(1.0, members, out=np.zeros(len(members)), where=members > 0)
    return torch.from_numpy(weight * targets.sum() / max(1, (members > 0).sum()))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning to warnings, and drop those about choices that were made on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="GPU available but not used")
        warnings.filterwarnings("ignore", message=".*does not have many workers")  # pixels are packed or mapped
        warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")  # Lightning 2.6 calls torch 2.13 so
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _whole(batch: Any) -> Any:
    """The data set has read the batch as a whole already."""
    return batch
