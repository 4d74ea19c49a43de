"""train.py: fits a task on data with a backbone; the trained model is an artifact."""

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from pydantic import AfterValidator, NonNegativeInt
from safetensors.torch import save_file

from skyloom.backbone.spec import WEIGHTS_FILE, BackboneSpec, Weights, open_weights
from skyloom.errors import ConfigError, unknown_choice
from skyloom.store import Artifact, Build, Store, builds
from skyloom.trainer.callbacks import FiniteLoss, StepSeed, progress_callbacks
from skyloom.trainer.loggers import LoggerOptions, open_loggers
from skyloom.trainer.options import DataOptions, TrainerOptions, named
from skyloom.trainer.record import CsvRecord
from skyloom.trainer.resume import EpochLoader, Resume
from skyloom.transform import Preprocess, RadioAugment

CHECKPOINT = "last.ckpt"
log = logging.getLogger("skyloom")


class Data(dict[str, Artifact | None]):
    """Artifacts by role; all of them are inputs of the trained model."""

    def identity(self) -> dict[str, Any]:
        """Kind and id by role."""
        return {role: artifact and artifact.identity() for role, artifact in sorted(self.items())}


def open_data(value: Any, parameters: Mapping[str, Any], store: Store) -> Data:
    """Resolver of the input ``data``: opens one artifact per role; null stays null."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"data={value!r}: expected artifacts by role, as {{cutouts: ID, selection: null}}")
    return Data({role: None if item is None else store.open(item) for role, item in value.items()})


@builds(
    "model",
    version=1,
    inputs={"data": open_data, "weights": open_weights},
    free=("logger", "runs", "image_roots"),
)
def train(
    build: Build,
    *,
    data: Data,
    weights: Weights,
    task: dict[str, Any],
    datamodule: Annotated[dict[str, Any], AfterValidator(DataOptions)],
    backbone: BackboneSpec,
    preprocess: dict[str, Any],
    augment: dict[str, Any],
    trainer: TrainerOptions,
    seed: NonNegativeInt,
    logger: LoggerOptions,
    runs: str,
    image_roots: str | None,
) -> None:
    """Fit a task.

    Writes ``model.safetensors`` (every weight: ``backbone.*`` and what the task adds), ``model.json`` (how to build the
    backbone and prepare images), ``metrics.csv`` and ``last.ckpt`` (Lightning's, with the state of the optimiser). A
    killed fit goes on from its last checkpoint and ends with the same model and the same metrics.

    Parameters
    ----------
    build
        Where to write.
    data
        Artifacts by role, for the datamodule.
    weights
        Where the backbone starts from.
    task
        ``name`` of the module in ``skyloom.task``, and the options of its class.
    datamodule
        ``name`` of the module in ``skyloom.datamodule``, and the options of its class.
    backbone
        The network.
    preprocess
        Options of :class:`skyloom.transform.Preprocess`.
    augment
        Options of :class:`skyloom.transform.RadioAugment`.
    trainer
        Length and arithmetic of the fit.
    seed
        Start of all random streams.
    logger
        Loggers beside ``metrics.csv``.
    runs
        Folder for what they write.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    ConfigError
        An option cannot be used, or the memory of the GPU does not suffice.
    InputError
        The loss is no longer finite; the message names the batch.
    """
    if trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu: torch sees no GPU here; use trainer=auto or trainer=cpu")
    batches: LightningDataModule = _class("datamodule", datamodule, "DataModule").from_artifacts(
        data, datamodule.arguments, seed, image_roots
    )
    scaling = Preprocess(**preprocess)
    network = weights.build(backbone, seed)
    module = _class("task", task, "Task")(
        backbone=network, augment=RadioAugment(**augment), preprocess=scaling, **{**_options(task), "seed": seed}
    )
    facts = {
        "backbone": {**backbone.parameter(), "num_features": network.num_features},
        "preprocess": scaling.config,
        "preprocess_digest": scaling.digest,
    }
    record = CsvRecord(build.path / "metrics.csv")
    request = build.request
    with open_loggers(
        logger,
        id=request.id,
        runs=Path(runs),
        scratch=build.scratch("fit"),
        hyperparameters={**request.parameters, "inputs": request.inputs},
    ) as others:
        images = _fit(build, module, batches, trainer, seed, record, others)
    with build.write(WEIGHTS_FILE) as path:
        tensors = {key: value.detach().cpu().clone().contiguous() for key, value in module.state_dict().items()}
        # One entry of metadata only: safetensors writes several in random order, and equal models shall be equal files.
        save_file(tensors, path, metadata={"model": backbone.model})
    build.write_json("model.json", {**facts, "task": task})
    build.count(images=images, epochs=trainer.max_epochs, parameters=sum(p.numel() for p in module.parameters()))
    build.note(
        final=record.last(),
        num_features=network.num_features,
        in_chans=network.in_chans,
        preprocess_digest=scaling.digest,
    )


def _fit(
    build: Build,
    module: LightningModule,
    batches: LightningDataModule,
    options: TrainerOptions,
    seed: int,
    record: CsvRecord,
    others: list[Any],
) -> int:
    """Fit, from the checkpoint of an earlier attempt when there is one; returns the images trained on."""
    batches.prepare_data()
    batches.setup("fit")
    loader = EpochLoader(batches.train_dataloader())
    last = build.path / CHECKPOINT
    record.cut(0) if not last.exists() else None
    resume = Resume(
        last,
        write=build.write,
        record=record,
        loader=loader,
        every_n_epochs=options.checkpoint_every_n_epochs,
        every_min=options.checkpoint_every_min,
    )
    shown = progress_callbacks(others)
    with _quiet(), torch.random.fork_rng(devices=[]):
        trainer = Trainer(
            accelerator=options.accelerator,
            devices=1,
            max_epochs=options.max_epochs,
            precision=options.precision,
            accumulate_grad_batches=options.accumulate_grad_batches,
            gradient_clip_val=options.gradient_clip_val,
            limit_train_batches=options.limit_train_batches,
            log_every_n_steps=min(options.log_every_n_steps, len(loader)),  # at least one row per epoch
            deterministic=options.deterministic,
            logger=[record, *others],
            callbacks=[StepSeed(seed), FiniteLoss(), *shown, resume],
            enable_checkpointing=True,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in shown),
            default_root_dir=build.path,
        )
        where = f"{trainer.strategy.root_device}, {trainer.precision}"
        log.info("fitting %s on %s, %d batches per epoch", type(module).__name__, where, len(loader))
        try:
            trainer.fit(module, loader, ckpt_path=last if last.exists() else None, weights_only=True)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                "the memory of the GPU does not suffice; lower datamodule.batch_size "
                "(trainer.accumulate_grad_batches makes up for it) or set trainer.precision=bf16-mixed"
            ) from error
        except SystemExit as error:
            if trainer.interrupted:  # Lightning turns Ctrl-C into an exit
                raise KeyboardInterrupt from error
            raise
    return resume.images


def _class(group: str, options: dict[str, Any], suffix: str) -> Any:
    """The class behind a name: ``byol`` of the group ``task`` is ``skyloom.task.byol.ByolTask``."""
    name = named(group, options)
    folder = Path(__file__).parents[1] / group
    if not (folder / f"{name}.py").exists():
        raise unknown_choice(f"{group}.name", name, (p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")))
    class_name = "".join(word.capitalize() for word in name.split("_")) + suffix
    return getattr(importlib.import_module(f"skyloom.{group}.{name}"), class_name)


def _options(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "name"}


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
