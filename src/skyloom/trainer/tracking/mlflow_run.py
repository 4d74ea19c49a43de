"""A run of MLflow for an artifact: found again or opened, told the lineage, and never in the way of a fit."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from skyloom.errors import ConfigError
from skyloom.trainer.tracking.about import About, tracker_name
from skyloom.trainer.tracking.tolerant import TolerantLogger, metric_name, short

log = logging.getLogger("skyloom")

TAG = "skyloom.id"
ADDRESS = "MLFLOW_TRACKING_URI"  # what conf/logger/mlflow.yaml reads
LOCK_S = 60.0
RETRIES = "3"  # of a request to a server that does not answer; MLflow's own 7 take minutes


class MlflowOptions(BaseModel):
    """Options of MLflow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tracking_uri: str | None
    experiment_name: str
    run_name: str | None
    tags: dict[str, str]


def open_mlflow(options: MlflowOptions, about: About, runs: Path) -> TolerantLogger:
    """Open the run that carries the id of the artifact as the tag ``skyloom.id``, or make it.

    Parameters
    ----------
    options
        Where and how.
    about
        What the run is about.
    runs
        Folder of the runs; holds ``mlflow.db`` where no server is given.

    Raises
    ------
    ConfigError
        The package is not installed, the server does not answer, or its address holds a password.
    """
    mlflow = _package()
    uri = _uri(options, runs)
    tags = {
        **options.tags,
        TAG: about.id,
        "skyloom.kind": about.kind,
        "skyloom.job_type": about.verb,
        "skyloom.path": str(about.folder),
        **{f"skyloom.code.{key}": str(value) for key, value in about.code.items()},
        **{metric_name(f"skyloom.input.{role}"): tracker_name(**source) for role, source in about.sources().items()},
    }
    runs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(runs / "mlflow.lock", timeout=LOCK_S):  # several that fill a new data base at once spoil it
            found = _find(options, about.id, uri)
            logger = TolerantLogger(
                experiment_name=options.experiment_name,
                run_name=options.run_name or about.id,
                tracking_uri=uri,
                tags=tags,
                artifact_location=None if options.tracking_uri else str(runs / "mlflow"),
                run_id=found.info.run_id if found else None,
            )
            with _address_left():
                client, run_id = logger.experiment, str(logger.run_id)
        if found:
            client.update_run(run_id, status="RUNNING")
            for key, value in tags.items():
                client.set_tag(run_id, key, value)
        else:
            # Id and kind are tags: as parameters they would stand out wherever runs are compared.
            asked = {key: value for key, value in about.asked().items() if key not in ("id", "kind")}
            logger.log_hyperparams(asked)
            if about.sources():
                client.log_inputs(run_id, [_dataset(mlflow, role, **who) for role, who in about.sources().items()])
    except mlflow.exceptions.MlflowException as error:
        raise ConfigError(
            f"logger.mlflow: {uri} does not answer ({short(error)}); "
            "start the server or leave logger.mlflow.tracking_uri out"
        ) from error
    return logger


def close_mlflow(logger: TolerantLogger, status: str) -> None:
    """Say how the run ended; one that lost rows is not finished, so that the same command tells them later.

    Parameters
    ----------
    logger
        Of :func:`open_mlflow`.
    status
        ``FINISHED``, ``FAILED`` or ``KILLED``.
    """
    from mlflow.exceptions import MlflowException

    if logger.lost:
        log.warning("MLflow lacks %d rows; the same command tells them when it answers again", logger.lost)
    try:
        logger.experiment.set_terminated(str(logger.run_id), "KILLED" if logger.lost else status)
    except MlflowException as error:
        log.warning("MLflow was not told the end of the run: %s", short(error))


def told_mlflow(options: MlflowOptions, id: str, runs: Path) -> bool:
    """Whether a run of the artifact has come to its end."""
    mlflow = _package()
    if options.tracking_uri is None and not (runs / "mlflow.db").exists():
        return False
    try:
        found = _find(options, id, _uri(options, runs))
    except mlflow.exceptions.MlflowException:
        return False  # who opens it says why
    return found is not None and found.info.status == "FINISHED"


@contextmanager
def _address_left() -> Iterator[None]:
    """Leave the address in the environment as it was: Lightning sets it, and the next command would read it."""
    before = os.environ.get(ADDRESS)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ADDRESS, None)
        else:
            os.environ[ADDRESS] = before


def _package() -> Any:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout carries the id alone
    try:
        import mlflow
    except ModuleNotFoundError as error:
        raise ConfigError("logger=mlflow needs the package mlflow: pip install 'mlflow>=3.1'") from error
    for chatty in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):  # they tell how a new data base is filled
        logging.getLogger(chatty).setLevel(logging.ERROR)
    return mlflow


def _uri(options: MlflowOptions, runs: Path) -> str:
    uri = options.tracking_uri or f"sqlite:///{runs / 'mlflow.db'}"
    if "@" in uri.partition("://")[2].partition("/")[0]:
        raise ConfigError(
            "logger.mlflow.tracking_uri holds a user or a password, which would stand in files; leave them out and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return uri


def _find(options: MlflowOptions, id: str, uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(options.experiment_name)
    if experiment is None:
        return None
    found = client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{id}'", max_results=1)
    return found[0] if found else None


def _dataset(mlflow: Any, role: str, kind: str, id: str) -> Any:
    """An input of a run, as the page of MLflow lists it."""
    entities = mlflow.entities
    data = entities.Dataset(
        name=tracker_name(kind, id), digest=id[:36], source_type="skyloom", source=f"skyloom:{kind}/{id}"
    )
    return entities.DatasetInput(data, [entities.InputTag("mlflow.data.context", role)])
