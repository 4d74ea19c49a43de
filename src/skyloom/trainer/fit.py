"""One fit with Lightning: from the last checkpoint when there is one, quiet, in one process or several."""

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy

from skyloom.errors import ConfigError
from skyloom.store import Build
from skyloom.trainer.agree import Agreement
from skyloom.trainer.callbacks import StepSeed, progress_callbacks
from skyloom.trainer.finite import FiniteLoss
from skyloom.trainer.monitor import Monitor
from skyloom.trainer.options import TrainerOptions
from skyloom.trainer.processes import Processes, open_processes
from skyloom.trainer.record import CsvRecord
from skyloom.trainer.resume import EpochLoader, Resume
from skyloom.trainer.settle import settle

CHECKPOINT = "last.ckpt"
Write = Callable[[str], AbstractContextManager[Path]]
log = logging.getLogger("skyloom")


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
    """

    module: LightningModule
    batches: LightningDataModule
    options: TrainerOptions
    seed: int
    facts: dict[str, Any]
    folder: Path
    not_finite: Path

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


def fit(build: Build, job: Job, record: CsvRecord, others: list[Logger], extra: Sequence[Callback] = ()) -> Fitted:
    """Fit a module, and leave its final state in ``last.ckpt`` and in the module.

    Parameters
    ----------
    build
        Where the checkpoint is written; one that an earlier attempt left is gone on from.
    job
        What to fit.
    record
        Writes ``metrics.csv``.
    others
        Further loggers.
    extra
        Callbacks of rank 0 alone, which must not exchange anything with other processes.

    Raises
    ------
    ConfigError
        The memory of the GPU does not suffice, or there is not one batch for each process.
    InputError
        The loss is no longer finite.
    StoreError
        Another process was killed.
    KeyboardInterrupt
        After Ctrl-C, and after SIGTERM, which saves a checkpoint first.
    """
    job.batches.prepare_data()
    job.loader()  # refuses too few data before any process is started
    if not job.last.exists():
        record.cut(0)
    handler = signal.getsignal(signal.SIGINT)
    with open_processes(_fit_as_other, job, job.options.world_size) as environment:
        shown = progress_callbacks(others)
        done = _run(job, environment, build.write, record, others, [*shown, *extra], handler)
    settle(job.last, build.write)
    return done


def _fit_as_other(job: Job, environment: Processes) -> None:
    """Take part in a fit as a process that writes nothing."""
    record = CsvRecord(job.folder / "metrics.csv")
    _run(job, environment, _nowhere, record, [], [], signal.SIG_IGN)


def _run(
    job: Job,
    environment: Processes,
    write: Write,
    record: CsvRecord,
    others: list[Logger],
    own: list[Callback],
    handler: Any,
) -> Fitted:
    options = job.options
    loader, batches_per_epoch = job.loader(environment.rank)
    log_every = min(options.log_every_n_steps, batches_per_epoch)  # at least one row per epoch
    finite = FiniteLoss(skip=options.on_nan == "skip", max_fraction=options.max_nan_fraction, file=job.not_finite)
    monitor = Monitor(finite, options.monitor, log_every=log_every, per_epoch=batches_per_epoch)
    agreement = Agreement()
    resume = Resume(
        job.last,
        write=write,
        record=record,
        loader=loader,
        agreement=agreement,
        facts=job.facts,
        every_n_epochs=options.checkpoint_every_n_epochs,
        every_min=options.checkpoint_every_min,
    )
    with _quiet(), torch.random.fork_rng(devices=[]):
        trainer = Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            strategy=_strategy(options),
            plugins=[environment],
            use_distributed_sampler=False,  # ours gives each process its part, and repeats nothing
            sync_batchnorm=options.sync_batchnorm,
            max_epochs=options.max_epochs,
            precision=options.precision,
            accumulate_grad_batches=options.accumulate_grad_batches,
            gradient_clip_val=options.gradient_clip_val,
            limit_train_batches=options.limit_train_batches,
            log_every_n_steps=log_every,
            deterministic=options.deterministic,
            logger=[record, *others],
            callbacks=[agreement, StepSeed(job.seed), finite, monitor, *own, resume],
            enable_checkpointing=True,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in own),
            default_root_dir=job.folder,
        )
        if environment.rank == 0:
            where = f"{environment.size} x {trainer.strategy.root_device.type}, {trainer.precision}"
            log.info("fitting %s on %s, %d batches per epoch", type(job.module).__name__, where, batches_per_epoch)
        try:
            trainer.fit(job.module, loader, ckpt_path=job.last if job.last.exists() else None, weights_only=True)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                "the memory of the GPU does not suffice; lower datamodule.batch_size "
                "(trainer.accumulate_grad_batches makes up for it) or set trainer.precision=bf16-mixed"
            ) from error
        except SystemExit as error:
            if trainer.interrupted and environment.rank == 0:
                signal.signal(
                    signal.SIGINT, handler
                )  # Lightning turns Ctrl-C into an exit, and ignores it from then on
                raise KeyboardInterrupt from error
            raise
    return Fitted(resume.images - finite.images, finite.images, finite.ids, monitor.collapsed)


def _strategy(options: TrainerOptions) -> Any:
    if options.world_size == 1:
        return "auto"
    return DDPStrategy(find_unused_parameters=options.strategy == "ddp_find_unused_parameters_true")


@contextmanager
def _nowhere(name: str) -> Iterator[Path]:
    """Stands for the place where rank 0 writes; Lightning lets no other process write."""
    yield Path(os.devnull)


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
