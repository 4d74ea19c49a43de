"""Shows a finished artifact to Weights & Biases or MLflow: its numbers, pictures and parameters."""

import json
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyloom.errors import ConfigError
from skyloom.store import Artifact

if TYPE_CHECKING:
    from skyloom.trainer.loggers import LoggerOptions

NUMBERS = "numbers.json"
PACKAGES = {"wandb": "wandb", "mlflow": "mlflow>=3.1"}  # by logger what pip installs


def chosen_loggers(logger: Mapping[str, Any] | None) -> "LoggerOptions | None":
    """Check ``conf/logger``, given as plain values, before any work is done; None when nothing is to be mirrored.

    Raises
    ------
    ConfigError
        A wrong option, or a package that is not installed.
    """
    on = [name for name in PACKAGES if (logger or {}).get(name)]
    if not on:
        return None
    from pydantic import ValidationError

    from skyloom.trainer.loggers import LoggerOptions

    for name in on:
        if not _installed(name):
            raise ConfigError(f"logger={name} needs the package {name}: pip install '{PACKAGES[name]}'")
    try:
        return LoggerOptions.model_validate(logger)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"logger.{path}={first['input']!r}: {first['msg'].lower()}") from None


def mirror(artifact: Artifact, options: "LoggerOptions", *, runs: str) -> None:
    """Send the numbers and pictures of a finished artifact to loggers.

    Neither the artifact nor its id depends on it: what is in the store already is mirrored by the same command with
    ``logger=…``. The run has the id of the artifact (W&B), or carries it as the tag ``skyloom.id`` (MLflow), and is
    used again when the command is repeated.

    Parameters
    ----------
    artifact
        With ``numbers.json`` and pictures, such as a report.
    options
        Which loggers; the ``job_type`` of W&B is the kind of the artifact.
    runs
        Folder of the runs.

    Raises
    ------
    ConfigError
        A server cannot be reached.
    """
    from skyloom.trainer.loggers import log_picture, open_loggers

    if options.wandb:
        options = options.model_copy(update={"wandb": options.wandb.model_copy(update={"job_type": artifact.kind})})
    files = artifact.manifest["files"]
    values = dict(flat_numbers(json.loads(artifact.file(NUMBERS).read_text()))) if NUMBERS in files else {}
    memory = Path(runs) / "loggers" / artifact.id
    memory.mkdir(parents=True, exist_ok=True)
    told = {**artifact.parameters, "inputs": artifact.manifest["inputs"], "step": artifact.step}
    with open_loggers(options, id=artifact.id, runs=Path(runs), scratch=memory, hyperparameters=told) as loggers:
        for logger in loggers:
            logger.log_metrics(values, step=0)
            for name in sorted(name for name in files if name.endswith(".png")):
                log_picture(logger, Path(name).stem, artifact.file(name), 0)
            logger.finalize("success")


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # it is imported, and has no spec
        return sys.modules.get(package) is not None


def flat_numbers(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of nested dictionaries by path (``representation/rankme``); lists, texts and nulls are left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat_numbers(item, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(value, int | float):
        yield prefix, float(value)
