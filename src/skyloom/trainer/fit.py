"""One fit with Lightning: from the last checkpoint when there is one, quiet, on one device."""

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment

from skyloom.errors import ConfigError
from skyloom.store import Build
from skyloom.trainer.callbacks import FiniteLoss, StepSeed, progress_callbacks
from skyloom.trainer.options import TrainerOptions
from skyloom.trainer.record import CsvRecord
from skyloom.trainer.resume import EpochLoader, Resume
from skyloom.trainer.settle import settle

CHECKPOINT = "last.ckpt"
log = logging.getLogger("skyloom")


def fit(
    build: Build,
    module: LightningModule,
    batches: LightningDataModule,
    options: TrainerOptions,
    seed: int,
    record: CsvRecord,
    others: list[Logger],
) -> int:
    """Fit a module, and leave its final state in ``last.ckpt`` and in the module.

    Parameters
    ----------
    build
        Where the checkpoint is written; one that an earlier attempt left is gone on from.
    module, batches
        What is fitted, and on what.
    options
        Of the group ``trainer``.
    seed
        Start of the global random streams of all steps.
    record
        Writes ``metrics.csv``.
    others
        Further loggers.

    Returns
    -------
    int
        Images trained on, over all attempts and epochs.

    Raises
    ------
    ConfigError
        The memory of the GPU does not suffice.
    InputError
        The loss is no longer finite.
    KeyboardInterrupt
        After Ctrl-C, and after SIGTERM, which saves a checkpoint first.
    """
    batches.prepare_data()
    batches.setup("fit")
    loader = EpochLoader(batches.train_dataloader())
    batches_per_epoch = min(len(loader), options.limit_train_batches or len(loader))
    last = build.path / CHECKPOINT
    if not last.exists():
        record.cut(0)
    resume = Resume(
        last,
        write=build.write,
        record=record,
        loader=loader,
        every_n_epochs=options.checkpoint_every_n_epochs,
        every_min=options.checkpoint_every_min,
    )
    shown = progress_callbacks(others)
    handler = signal.getsignal(signal.SIGINT)
    with _quiet(), torch.random.fork_rng(devices=[]):
        trainer = Trainer(
            accelerator=options.accelerator,
            devices=1,
            plugins=[LightningEnvironment()],  # one process also inside a Slurm job; requeueing is the launcher's part
            max_epochs=options.max_epochs,
            precision=options.precision,
            accumulate_grad_batches=options.accumulate_grad_batches,
            gradient_clip_val=options.gradient_clip_val,
            limit_train_batches=options.limit_train_batches,
            log_every_n_steps=min(options.log_every_n_steps, batches_per_epoch),  # at least one row per epoch
            deterministic=options.deterministic,
            logger=[record, *others],
            callbacks=[StepSeed(seed), FiniteLoss(), *shown, resume],
            enable_checkpointing=True,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in shown),
            default_root_dir=build.path,
        )
        where = f"{trainer.strategy.root_device}, {trainer.precision}"
        log.info("fitting %s on %s, %d batches per epoch", type(module).__name__, where, batches_per_epoch)
        try:
            trainer.fit(module, loader, ckpt_path=last if last.exists() else None, weights_only=True)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                "the memory of the GPU does not suffice; lower datamodule.batch_size "
                "(trainer.accumulate_grad_batches makes up for it) or set trainer.precision=bf16-mixed"
            ) from error
        except SystemExit as error:
            if trainer.interrupted:  # Lightning turns Ctrl-C into an exit, and ignores it from then on
                signal.signal(signal.SIGINT, handler)
                raise KeyboardInterrupt from error
            raise
    settle(last, build.write)
    return resume.images


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning to warnings, and drop those about choices that were made on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="GPU available but not used")  # trainer=cpu
        warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")  # Lightning 2.6 calls torch 2.13 so
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
