"""What a command says in its folder (run.json, result.json), and the number that it returns to a search."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from skyloom.errors import ConfigError
from skyloom.report.compare.run_folders import RESULT_FILE, RUN_FILE
from skyloom.run import sweep_end
from skyloom.store import Artifact, Store
from skyloom.store.aside import written_aside

PLAIN_SWEEPER = "BasicSweeper"  # tries what it is told to; all others want a number in return


@contextmanager
def run_file(verb: str, config: DictConfig) -> Iterator[Callable[[Any], None]]:
    """Write ``run.json`` at the start and ``result.json`` at the end; yields what takes the result.

    They let ``report=compare runs=FOLDER`` go from the folders of a sweep to what they made, and name the jobs that
    failed. A job that was killed has no ``result.json``. A dry run leaves nothing.
    """
    if config.dry_run:
        yield lambda result: None
        return
    folder = Path(HydraConfig.get().runtime.output_dir)
    # As they were typed: filled in, they could hold what a variable of the environment keeps secret.
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    said = {"verb": verb, "overrides": overrides, "store": str(Store(config.paths.store).root)}
    (folder / RESULT_FILE).unlink(missing_ok=True)  # of a job that was put into the queue again
    with written_aside(folder / RUN_FILE) as path:
        path.write_text(json.dumps(said, indent=2) + "\n")

    def done(result: Any) -> None:
        sweep_end.write(folder, verb=verb, kind=getattr(result, "kind", ""), id=result.id or "")

    try:
        yield done
    except Exception as error:
        sweep_end.write(folder, verb=verb, error=" ".join(str(error).split()) or type(error).__name__)
        raise


def check_search(config: DictConfig) -> None:
    """Refuse a search that does not know what it searches for, before any work is done.

    Raises
    ------
    ConfigError
        ``objective`` is not set, or it is a dry run.
    """
    own = HydraConfig.get()
    sweeper = str(own.sweeper.get("_target_", "")).rpartition(".")[2]
    if own.mode != RunMode.MULTIRUN or sweeper == PLAIN_SWEEPER:
        return
    if config.get("objective") is None:
        raise ConfigError(f"{sweeper} needs a number to go by: objective=train/loss, or another one of the runs")
    if config.dry_run:
        raise ConfigError(f"dry_run=true: {sweeper} chooses the next job by the result of the last; leave it out")


def objective_of(result: Any, config: DictConfig) -> float | None:
    """The number of the result that ``objective`` names, for the sweeper; None without one.

    Raises
    ------
    ConfigError
        The result has no such number; the message lists those it has.
    """
    name = config.get("objective")
    if name is None or not isinstance(result, Artifact):
        return None
    from skyloom.report.compare.run_metrics import final_value

    try:
        return final_value(result, str(name))
    except ConfigError as error:
        raise ConfigError(f"objective={name}: {error}") from error
