"""The loggers beside metrics.csv: Weights & Biases and MLflow, both without a network unless told otherwise."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger
from pydantic import BaseModel, ConfigDict

from skyloom.errors import ConfigError

log = logging.getLogger("skyloom")


class WandbOptions(BaseModel):
    """Options of Weights & Biases; names are those of ``wandb.init``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["offline", "online", "disabled"]
    project: str
    entity: str | None
    name: str | None
    group: str | None
    job_type: str | None
    tags: list[str]


class MlflowOptions(BaseModel):
    """Options of MLflow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tracking_uri: str | None
    experiment_name: str
    run_name: str | None
    tags: dict[str, str]


class LoggerOptions(BaseModel):
    """What ``conf/logger`` says; a logger that is not named is off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    csv: Literal[True] = True
    wandb: WandbOptions | None = None
    mlflow: MlflowOptions | None = None

    def parameter(self) -> dict[str, Any]:
        """For the history of a build."""
        return self.model_dump(exclude_none=True)


@contextmanager
def open_loggers(
    options: LoggerOptions, *, id: str, runs: Path, scratch: Path, hyperparameters: Mapping[str, Any]
) -> Iterator[list[Logger]]:
    """Open the chosen loggers, and close them whatever happens.

    Parameters
    ----------
    options
        Which ones.
    id
        Of the artifact; the run of W&B gets it as its id, that of MLflow as a tag.
    runs
        Folder of the runs. W&B writes to ``runs/loggers/<id>``, MLflow to ``runs/mlflow.db``, never into the artifact.
    scratch
        Survives a killed fit; keeps the id of the MLflow run so that the next attempt goes on with it.
    hyperparameters
        The resolved configuration.

    Yields
    ------
    list of Logger
        Without the record.

    Raises
    ------
    ConfigError
        A package is not installed, or a server cannot be reached.
    """
    loggers: list[Logger] = []
    try:
        if options.wandb:
            loggers.append(_wandb(options.wandb, id, runs / "loggers" / id))
        if options.mlflow:
            loggers.append(_mlflow(options.mlflow, id, runs.absolute(), scratch / "mlflow_run"))
        for logger in loggers:
            logger.log_hyperparams({"id": id, **hyperparameters})
        yield loggers
    finally:
        if options.wandb and loggers:
            import wandb

            wandb.finish()  # otherwise a sweep in one process would log everything to its first run


def log_picture(logger: Logger, key: str, path: Path, step: int) -> None:
    """Give a logger a picture, if it is of a kind that takes some."""
    from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

    if isinstance(logger, WandbLogger):
        logger.log_image(key=key, images=[str(path)], step=step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(str(logger.run_id), str(path), artifact_path=key)


def _wandb(options: WandbOptions, id: str, folder: Path) -> Logger:
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise ConfigError("logger=wandb needs the package wandb: pip install wandb") from error
    from lightning.pytorch.loggers import WandbLogger

    folder.mkdir(parents=True, exist_ok=True)
    if wandb.run is not None:
        wandb.finish()  # a run left open in a notebook would swallow this one
    try:
        run = wandb.init(
            dir=folder,
            id=id,
            resume="allow",
            settings=wandb.Settings(console="off", quiet=True),
            **options.model_dump(),
        )
    except wandb.errors.Error as error:
        raise ConfigError(
            f"logger.wandb: {' '.join(str(error).split())}; log in with 'wandb login' or set logger.wandb.mode=offline"
        ) from error
    if options.mode == "offline":
        log.info("W&B run in %s; upload it when the fit has ended: wandb sync FOLDER", Path(run.dir).parent)
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=run, save_dir=folder, log_model=False)


def _mlflow(options: MlflowOptions, id: str, runs: Path, memory: Path) -> Logger:
    try:
        import mlflow
    except ModuleNotFoundError as error:
        raise ConfigError("logger=mlflow needs the package mlflow: pip install 'mlflow>=3.1'") from error
    from lightning.pytorch.loggers import MLFlowLogger

    for chatty in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):  # they tell how a new data base is filled
        logging.getLogger(chatty).setLevel(logging.ERROR)
    runs.mkdir(parents=True, exist_ok=True)
    uri = options.tracking_uri or f"sqlite:///{runs / 'mlflow.db'}"
    try:
        logger = MLFlowLogger(
            experiment_name=options.experiment_name,
            run_name=options.run_name or id,
            tracking_uri=uri,
            tags={**options.tags, "skyloom.id": id},
            artifact_location=None if options.tracking_uri else str(runs / "mlflow"),
            run_id=memory.read_text() if memory.exists() else None,
        )
        memory.write_text(str(logger.run_id))
    except mlflow.exceptions.MlflowException as error:
        raise ConfigError(
            f"logger.mlflow: {uri} does not answer ({' '.join(str(error).split())[:200]}); "
            "start the server or leave logger.mlflow.tracking_uri out"
        ) from error
    return logger
