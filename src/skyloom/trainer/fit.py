"""One fit with Lightning: from the last checkpoint when there is one, quiet, in one process or several."""

import copy
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy

from skyloom.errors import ConfigError, Stopped
from skyloom.store import Build
from skyloom.trainer.callbacks import StepSeed, progress_callbacks
from skyloom.trainer.distributed.agree import Agreement
from skyloom.trainer.distributed.environment import Processes
from skyloom.trainer.distributed.processes import open_processes
from skyloom.trainer.distributed.sharded import Sharded, refuse_other_sharding, refuse_sharding, share_out
from skyloom.trainer.finite import FiniteLoss
from skyloom.trainer.job import Fitted, Job, Write
from skyloom.trainer.knn_score import KnnScore
from skyloom.trainer.monitor import Monitor
from skyloom.trainer.options import TrainerOptions
from skyloom.trainer.quiet import quiet
from skyloom.trainer.record import CsvRecord
from skyloom.trainer.resume import KEY, Resume
from skyloom.trainer.settle import settle
from skyloom.trainer.start import own_checkpoint
from skyloom.trainer.validation import LastIsJudged

log = logging.getLogger("skyloom")


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
        The loss is no longer finite, or the checkpoint of an earlier attempt is damaged.
    StoreError
        Another process was killed.
    KeyboardInterrupt
        After Ctrl-C.
    Stopped
        After SIGTERM, and after the signal that announces the end of a job of Slurm; a checkpoint is saved first.
    """
    job.batches.prepare_data()
    job.loader()  # refuses too few data before any process is started
    job.validation_loader()
    if job.options.shares_out:
        refuse_sharding(job.validates, sum(isinstance(callback, KnnScore) for callback in extra))
    if job.last.exists():
        refuse_other_sharding(own_checkpoint(job, record.rows)[KEY]["facts"], job.options)
    else:
        record.cut(0)
    handler = signal.getsignal(signal.SIGINT)
    with open_processes(_fit_as_other, job, job.options.world_size) as environment:
        shown = progress_callbacks(others)
        done = _run(job, environment, build.write, record, others, [*shown, *extra], handler)
    settle(job.last, build.write)
    if job.options.shares_out:
        job.module.load_state_dict(torch.load(job.last, map_location="cpu", weights_only=True)["state_dict"])
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
    options, module = job.options, job.module
    if options.shares_out:
        module = copy.deepcopy(module)  # the caller's stays whole
        share_out(module, sync_batchnorm=options.sync_batchnorm)
    loader, batches_per_epoch = job.loader(environment.rank)
    validation = job.validation_loader(environment.rank)
    steps_per_epoch = -(-batches_per_epoch // options.accumulate_grad_batches)
    log_every = min(options.log_every_n_steps, steps_per_epoch)  # at least one row per epoch
    finite = FiniteLoss(skip=options.on_nan == "skip", max_fraction=options.max_nan_fraction, file=job.not_finite)
    monitor = Monitor(finite, options.monitor, log_every=log_every, steps=steps_per_epoch, batches=batches_per_epoch)
    agreement = Agreement()
    resume = Resume(
        job.last,
        write=write,
        record=record,
        loader=loader,
        agreement=agreement,
        facts=job.facts | ({"fsdp": True} if options.shares_out else {}),
        every_n_epochs=options.checkpoint_every_n_epochs,
        every_min=options.checkpoint_every_min,
    )
    judged = [] if validation is None else [LastIsJudged(options.validation.every_n_epochs)]
    with quiet(), torch.random.fork_rng(devices=[]):
        trainer = Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
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
            callbacks=[agreement, StepSeed(job.seed), finite, monitor, *judged, *own, resume],
            enable_checkpointing=True,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in own),
            default_root_dir=job.folder,
            **({} if validation is None else options.validation.lightning()),
        )
        if environment.rank == 0:
            where = f"{environment.size} x {trainer.strategy.root_device.type}, {trainer.precision}"
            log.info("fitting %s on %s, %d batches per epoch", type(module).__name__, where, batches_per_epoch)
        try:
            start = job.last if job.last.exists() else None
            trainer.fit(module, loader, validation, ckpt_path=start, weights_only=True)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                "the memory of the GPU does not suffice; lower datamodule.batch_size "
                "(trainer.accumulate_grad_batches makes up for it) or set trainer.precision=bf16-mixed"
            ) from error
        except SystemExit as error:
            if agreement.stopping:
                raise Stopped(agreement.stopping) from error
            if trainer.interrupted and environment.rank == 0:
                signal.signal(
                    signal.SIGINT, handler
                )  # Lightning turns Ctrl-C into an exit, and ignores it from then on
                raise KeyboardInterrupt from error
            raise
        finally:
            agreement.release()
    return Fitted(resume.images - finite.images, finite.images, finite.ids, monitor.collapsed)


def _strategy(options: TrainerOptions) -> Any:
    if options.world_size == 1:
        return "auto"
    if options.shares_out:
        return Sharded(options.world_size)
    return DDPStrategy(find_unused_parameters=options.strategy == "ddp_find_unused_parameters_true")


@contextmanager
def _nowhere(name: str) -> Iterator[Path]:
    """Stands for the place where rank 0 writes; Lightning lets no other process write."""
    yield Path(os.devnull)
