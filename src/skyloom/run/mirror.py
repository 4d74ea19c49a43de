"""Shows a finished artifact to Weights & Biases or MLflow: numbers, pictures, parameters, and what it is made from."""

import json
import logging
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyloom.errors import ConfigError
from skyloom.store import Artifact
from skyloom.store.flat import flat_numbers

if TYPE_CHECKING:
    from skyloom.trainer.tracking.loggers import LoggerOptions

log = logging.getLogger("skyloom")

NUMBERS, METRICS, PAGE = "numbers.json", "metrics.csv", "report.html"
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

    for name in on:
        if not _installed(name):
            raise ConfigError(f"logger={name} needs the package {name}: pip install '{PACKAGES[name]}'")
    from skyloom.trainer.tracking.loggers import LoggerOptions

    try:
        return LoggerOptions.model_validate(logger)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"logger.{path}={first['input']!r}: {first['msg'].lower()}") from None


def logger_keys(logger: Mapping[str, Any] | None) -> dict[str, Any]:
    """A composed ``logger`` as dotted options that compose it again, for a configuration within another one."""
    on = [name for name in PACKAGES if (logger or {}).get(name)]
    if not on or logger is None:
        return {}
    values = {f"logger.{name}.{key}": value for name in on for key, value in logger[name].items()}
    return {"logger": on[0] if len(on) == 1 else "many", **values}


def mirror(artifact: Artifact, options: "LoggerOptions", *, verb: str, runs: str) -> None:
    """Tell loggers of a finished artifact, unless a run of theirs has all of it already.

    What its command has made by the way (the candidates of a catalogue) is told before it, as a run of its own.
    Neither the artifact nor its id depends on it: what is in the store already is told by the same command with
    ``logger=…``. The run has the id of the artifact (W&B), or carries it as the tag ``skyloom.id`` (MLflow).

    Parameters
    ----------
    artifact
        What it has of these is told: ``metrics.csv``, ``numbers.json``, pictures, ``report.html``, counts.
    options
        Which loggers.
    verb
        The script that made it; the ``job_type`` of the run.
    runs
        Folder of the runs.

    Raises
    ------
    ConfigError
        A server cannot be reached.
    """
    from skyloom.trainer.record import CsvRecord
    from skyloom.trainer.tracking.about import About, made_with
    from skyloom.trainer.tracking.loggers import log_page, log_picture, log_summary, open_loggers, untold
    from skyloom.trainer.tracking.retell import PICTURE, retell

    for made in made_with(artifact).values():
        mirror(made, options.unnamed(), verb=verb, runs=runs)
    left = untold(options, artifact.id, Path(runs))
    if left is None:
        log.info("the loggers know %s %s already", artifact.kind, artifact.id)
        return
    files = artifact.manifest["files"]
    numbers = _numbers(json.loads(artifact.file(NUMBERS).read_text())) if NUMBERS in files else {}
    best = artifact.notes.get("best") or {}
    summary = {"counts": artifact.counts, "build": {"seconds": artifact.history.get("seconds")}}
    if artifact.kind == "model" and best.get("metric"):
        summary["best"] = {best["metric"]: best.get("value"), "epoch": best.get("epoch")}
    with open_loggers(left, About.of_artifact(artifact, verb), runs=Path(runs)) as loggers:
        step = retell(CsvRecord(artifact.file(METRICS)), loggers) if METRICS in files else 0
        pictures = [name for name in sorted(files) if name.endswith(".png") and not PICTURE.fullmatch(Path(name).name)]
        for logger in loggers:
            if numbers:
                logger.log_metrics(numbers, step=step)
            for name in pictures:
                log_picture(logger, Path(name).stem, artifact.file(name), step)
            if PAGE in files:
                log_page(logger, Path(PAGE).stem, artifact.file(PAGE))
        log_summary(loggers, _numbers(summary), step)


def _numbers(value: Any) -> dict[str, float]:
    return {path: float(number) for path, number in flat_numbers(value)}


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # it is imported, and has no spec
        return sys.modules.get(package) is not None
