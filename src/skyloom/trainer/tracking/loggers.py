"""The loggers beside metrics.csv: Weights & Biases and MLflow, both without a network unless told otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger, WandbLogger
from pydantic import BaseModel, ConfigDict

from skyloom.trainer.tracking.about import About
from skyloom.trainer.tracking.mlflow_run import MlflowOptions, close_mlflow, open_mlflow, told_mlflow
from skyloom.trainer.tracking.tolerant import TolerantLogger
from skyloom.trainer.tracking.wandb_run import WandbOptions, close_wandb, open_wandb, told_wandb


class LoggerOptions(BaseModel):
    """What ``conf/logger`` says; a logger that is not named is off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    csv: Literal[True] = True
    wandb: WandbOptions | None = None
    mlflow: MlflowOptions | None = None

    def parameter(self) -> dict[str, Any]:
        """For the history of a build."""
        return self.model_dump(exclude_none=True)

    def unnamed(self) -> "LoggerOptions":
        """The same for an artifact that the user has given no name."""
        return LoggerOptions(
            wandb=self.wandb and self.wandb.model_copy(update={"name": None}),
            mlflow=self.mlflow and self.mlflow.model_copy(update={"run_name": None}),
        )


@contextmanager
def open_loggers(options: LoggerOptions, about: About, *, runs: Path) -> Iterator[list[Logger]]:
    """Open the chosen loggers, and close them whatever happens.

    Each is told the resolved request, the version of the code and the artifacts that this one is made from, and at the
    end, if that is reached, which artifact came of it.

    Parameters
    ----------
    options
        Which ones.
    about
        The artifact. The run of W&B gets its id, that of MLflow carries it as the tag ``skyloom.id``; another attempt
        goes on with the same run.
    runs
        Folder of the runs. W&B writes to ``runs/loggers/<id>``, MLflow to ``runs/mlflow.db``, never into the artifact.

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
    status = "FAILED"
    try:
        if options.wandb:
            loggers.append(open_wandb(options.wandb, about, runs / "loggers" / about.id))
        if options.mlflow:
            loggers.append(open_mlflow(options.mlflow, about, runs.absolute()))
        yield loggers
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        for logger in loggers:  # a run left open would get what the next fit of a sweep in one process logs
            if isinstance(logger, WandbLogger) and options.wandb:
                close_wandb(logger, about, options.wandb, whole=status == "FINISHED")
            elif isinstance(logger, TolerantLogger):
                close_mlflow(logger, status)


def untold(options: LoggerOptions, id: str, runs: Path) -> LoggerOptions | None:
    """Those of the chosen loggers that have no finished run of an artifact; None when there is none."""
    left = LoggerOptions(
        wandb=None if options.wandb and told_wandb(options.wandb, runs / "loggers" / id) else options.wandb,
        mlflow=None if options.mlflow and told_mlflow(options.mlflow, id, runs.absolute()) else options.mlflow,
    )
    return left if left.wandb or left.mlflow else None


def log_picture(logger: Logger, key: str, path: Path, step: int) -> None:
    """Give a logger a picture, if it is of a kind that takes some."""
    if isinstance(logger, WandbLogger):
        logger.log_image(key=key, images=[str(path)], step=step)
    elif isinstance(logger, TolerantLogger):
        logger.log_file(path, key)


def log_page(logger: Logger, key: str, path: Path) -> None:
    """Give a logger a page of HTML, if it is of a kind that takes some."""
    if isinstance(logger, WandbLogger):
        import wandb

        logger.experiment.log({key: wandb.Html(path.read_text(), inject=False)})
    elif isinstance(logger, TolerantLogger):
        logger.log_file(path)


def log_summary(loggers: Sequence[Logger], values: Mapping[str, float], step: int = 0) -> None:
    """Give loggers numbers that stand for the whole run, such as the best score, to compare runs by."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            with suppress(AttributeError):  # disabled
                logger.experiment.summary.update(dict(values))
        else:
            logger.log_metrics(dict(values), step=step)
