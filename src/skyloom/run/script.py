"""What the four scripts share: run the verb, print the id, turn a user's mistake into one line and exit code 2."""

import os
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from skyloom.errors import ConfigError, SkyloomError

if TYPE_CHECKING:
    from skyloom.run.recipe import Chain
    from skyloom.store import Artifact, Plan

EXIT_USER_ERROR = 2


def run(verb: str, config: DictConfig) -> None:
    """Run a verb with a composed configuration; the last line on stdout is the id."""
    from skyloom.run.verbs import call  # late: --help and --cfg job must not wait for it

    result: Artifact | Plan | Chain
    try:
        result = _chain(config) if config.get("recipe") else call(verb, config)
    except SkyloomError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # the launcher reports which job of the sweep failed
        _fail(str(error))
    if config.dry_run and not config.get("recipe"):
        print(result, file=sys.stderr)
    if result.id:
        print(result.id)


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
        main()
    except SkyloomError as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_one_line(error))
    except BrokenPipeError:  # the reader of --help | head has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)


def _fail(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def _one_line(error: BaseException) -> str:
    """Hydra's messages span lines; keep what matters of them in one, and name the keys when one is misspelt."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if unknown := re.match(r"Could not override '([^']+)'", lines[0]):
        return _unknown_key(unknown[1])
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
