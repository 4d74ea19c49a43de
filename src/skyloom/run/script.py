"""What the four scripts share: run the verb, print the id, turn a user's mistake into one line and exit code 2."""

import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigTypeError, OmegaConfBaseException

from skyloom.errors import ConfigError, SkyloomError, Stopped
from skyloom.progress import said, say
from skyloom.run import resolvers, sweep_end
from skyloom.run.additions import refuse_additions
from skyloom.run.freeze import SWEEP, check_same_code
from skyloom.run.secrets import refuse_secrets

if TYPE_CHECKING:
    from skyloom.run.recipe import Chain
    from skyloom.store import Artifact, Plan

EXIT_USER_ERROR = 2

resolvers.register()  # here, as jobs of a cluster import this module before they resolve anything
NO_TRIAL = "No trials are completed yet."  # of Optuna


def run(verb: str, config: DictConfig) -> float | None:
    """Run a verb with a composed configuration; the last line on stdout is the id.

    Returns
    -------
    float or None
        The number that ``objective`` names, for the sweeper of a search.
    """
    from skyloom.run.run_file import check_search, objective_of
    from skyloom.run.several import shared

    said.handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]  # of this command
    try:
        refuse_additions(verb, config)
        if sweep_end.in_job():
            check_same_code(HydraConfig.get().runtime.config_sources)
        check_search(config)
        result = shared(verb, config, lambda: _result(verb, config))
        if result is None:
            return None  # one of several processes, of which the first has printed the id
        objective = objective_of(result, config)
    except Stopped as stopped:
        _hand_on(stopped)
        raise
    except SkyloomError as error:
        sweep_end.end_job_with(EXIT_USER_ERROR)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # the launcher reports which job of the sweep failed
        _fail(str(error))
    except Exception:
        sweep_end.end_job_with(1)
        raise
    if config.dry_run and not config.get("recipe"):
        say(str(result))
    if result.id:
        print(result.id)
    return objective


def _result(verb: str, config: DictConfig) -> "Artifact | Plan | Chain":
    from skyloom.run.run_file import run_file
    from skyloom.run.verbs import call  # late: --help and --cfg job must not wait for it

    with run_file(verb, config) as done:
        result = _chain(config) if config.get("recipe") else call(verb, config)
        done(result)
    return result


def _hand_on(stopped: Stopped) -> None:
    """Let submitit do what it does at a signal, such as putting the job into the queue again: all is saved now."""
    handler = signal.getsignal(stopped.number)
    if not callable(handler):
        return
    try:
        handler(stopped.number, None)
    except Exception as error:  # it was put into the queue often enough
        sweep_end.end_job_with(1)
        raise SkyloomError(
            f"{_one_line(error).rstrip('.')}; all is saved, the same command goes on from there"
        ) from error


def _chain(config: DictConfig) -> "Chain":
    """Run a recipe; its links are composed from the same folders as it was, ``--config-dir`` included."""
    from skyloom.run.recipe import run_recipe

    if config.get("step"):
        raise ConfigError(f"step={config.step} and a recipe were given; give one of them")
    sources = HydraConfig.get().runtime.config_sources
    return run_recipe(config, folders=[source.path for source in sources if source.schema == "file"])


def launch(main: Callable[[], None]) -> None:
    """Call a script's Hydra main; print what a user can mend as one line and exit with code 2.

    Other errors are defects of the program and keep their traceback.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let exceptions through instead of printing and exiting with 1
    try:
        refuse_secrets(dict(word.partition("=")[::2] for word in sys.argv[1:]))  # before Hydra writes them down
        _through_queue(main) if os.environ.get(SWEEP) else main()
    except SkyloomError as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_one_line(error))
    except ValueError as error:
        if str(error) != NO_TRIAL:
            raise
        _fail("no trial of the search has ended with a number; the lines 'Failed experiment' above say why")
    except BrokenPipeError:  # the reader of --help | head has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it stopped")
        sys.exit(130)


def _through_queue(main: Callable[[], None]) -> None:
    """Submit a sweep, wait for all of its jobs, and tell what became of each: the ids of those that are done."""
    sweep = Path(os.environ[SWEEP])
    try:
        main()
    except Exception as error:
        if not sweep_end.submitted(sweep):
            if type(error).__module__.startswith("submitit"):
                raise ConfigError(f"the queue has refused the jobs: {_one_line(error)}") from error
            raise
        logging.getLogger("skyloom").debug("the launcher's own report", exc_info=error)  # each job has its own, below
    ends = sweep_end.ends(sweep)
    for end in ends:
        if end.id:
            print(end.id)
    if failed := [f"run {end.run}: {end.error}" for end in ends if end.error]:
        _fail("; ".join(failed))


def _fail(text: str) -> NoReturn:
    say(f"error: {text}")
    sys.exit(EXIT_USER_ERROR)


def _one_line(error: BaseException) -> str:
    """Hydra's messages span lines; keep what matters of them in one, and name the keys when one is misspelt."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if unknown := re.match(r"Could not override '([^']+)'", lines[0]):
        return _unknown_key(unknown[1])
    merging = re.match(r"Error merging override (.+?)=(.+)", lines[0])
    if merging and isinstance(error.__cause__, ConfigTypeError):
        key, value = merging.groups()
        there, given = ("mapping", "list") if value.startswith("[") else ("list", "mapping")
        return f"{key} is a {there}, and Hydra puts no {given} in its place; give '~{key}' '+{key}={value}'"
    text = lines[0]
    for line in lines[1:]:
        if line.startswith("Config search path"):
            break
        text += (" " if text.endswith((":", ",", ".")) else ", " if len(line.split()) == 1 else "; ") + line
    return text.replace(":, ", ": ")


def _unknown_key(key: str) -> str:
    """Name the keys that the choices on the command line do have."""
    from skyloom.run.notebook import config_folder

    folder, known = config_folder(), {"seed", "name", "dry_run"}
    for word in sys.argv[1:]:
        group, _, choice = word.partition("=")
        chosen = folder / group / f"{choice}.yaml"
        if group and chosen.is_file():
            prefix = "" if "@package _global_" in chosen.read_text() else f"{group}."
            known |= {prefix + match for match in re.findall(r"^([A-Za-z_]\w*):", chosen.read_text(), re.MULTILINE)}
    near = get_close_matches(key, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"there is no option '{key}' here; there are: {', '.join(sorted(known))}.{hint}"
