"""Jobs in a queue run the code and the configuration as they were submitted: a copy, made before the submission."""

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from skyloom.errors import ConfigError, SkyloomError

log = logging.getLogger("skyloom")

SCRIPTS = ("curate.py", "train.py", "extract.py", "analyze.py")
SWEEP = "SKYLOOM_SWEEP"  # tells the command in the copy which folder its sweep has
NOTE = "code.json"  # of a copy: where it came from; store/provenance.py reads it, since a copy has no history
FIXED = ("trainer.devices", "trainer.num_nodes")  # decide the resources of all jobs of a sweep, once
FOLDER_FLAGS = ("--config-dir", "-cd")  # Hydra's, followed by a folder


class Freeze(Callback):
    """Before a sweep is handed to a cluster: checks what it asks for, and goes on from a copy of the code."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make the copy and start this command anew from there; in the copy itself only look around."""
        target = str(config.hydra.launcher.get("_target_", ""))
        if "submitit" not in target:
            return
        try:
            check_request(config)
            if (checkout() / NOTE).exists():
                _warn_of_unfrozen(config)
                return
            start_from_copy(config)
        except SkyloomError as error:  # Hydra would turn any other exception of a callback into a warning
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)


def checkout() -> Path:
    """Folder of the scripts, of ``conf`` and of ``src`` that this code runs from."""
    return Path(__file__).resolve().parents[3]


def check_request(config: DictConfig) -> None:
    """Refuse what the queue would refuse, or what would waste its time, before anything is submitted.

    Raises
    ------
    ConfigError
        There is no Slurm; or the processes and GPUs of a job are not those of its trainer.
    """
    launcher = config.hydra.launcher
    if str(launcher.get("_target_")).endswith("SlurmLauncher") and shutil.which("srun") is None:
        raise ConfigError(
            "there is no Slurm on this machine (no srun on PATH); submit from a login node of the cluster, "
            "or leave hydra/launcher out to run here"
        )
    for override in OverridesParser.create().parse_overrides(list(config.hydra.overrides.task)):
        if override.key_or_group in FIXED and override.is_sweep_override():
            raise ConfigError(
                f"{override.key_or_group} cannot be swept on a cluster, as all jobs of a sweep get the same resources; "
                "give one command for each value"
            )
    trainer = config.get("trainer")
    if trainer is None:
        return
    asked = int(trainer.devices) * int(trainer.num_nodes)
    tasks = int(launcher.get("tasks_per_node") or 1) * int(launcher.get("nodes") or 1)
    if tasks not in (1, asked):
        raise ConfigError(
            f"a job gets {tasks} processes but the trainer asks for {asked} (trainer.devices times trainer.num_nodes); "
            "choose hydra/launcher=slurm_ddp, or slurm_ddp_nodes for several machines"
        )
    gpus = launcher.get("gpus_per_node")
    if gpus and trainer.accelerator != "cpu" and int(gpus) < int(trainer.devices):
        raise ConfigError(
            f"trainer.devices={trainer.devices} but a job gets {gpus} GPU per machine; choose hydra/launcher=slurm_ddp"
        )


def start_from_copy(config: DictConfig) -> NoReturn:
    """Copy code and configuration below the folder of the sweep, and replace this process by the same command there."""
    script = Path(sys.argv[0]).resolve()
    if script.parent != checkout() or script.name not in SCRIPTS:
        raise ConfigError(f"only {', '.join(SCRIPTS)} of {checkout()} can be sent to a cluster; got {script}")
    sweep = Path(str(config.hydra.sweep.dir)).absolute()
    now = datetime.now()
    copy = sweep / "code" / now.strftime("%Y-%m-%d_%H-%M-%S-%f")
    try:
        freeze(copy, now=now)
        words = [*_with_own_folders(sys.argv[1:], copy), f"hydra.sweep.dir={quoted(str(sweep))}"]
    except OSError as error:
        raise ConfigError(
            f"code and configuration cannot be copied to {copy}, nothing was submitted: {_reason(error)}; "
            "make room or set paths.runs"
        ) from error
    log.info("code and configuration as submitted: %s", copy)
    before = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv)]  # options of Python, such as -W error
    paths = [str(copy / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {key: value for key, value in os.environ.items() if key != "SKYLOOM_CONF"}
    env |= {"PYTHONPATH": os.pathsep.join(paths), SWEEP: str(sweep)}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *before, str(copy / script.name), *words], env)


def freeze(copy: Path, *, now: datetime) -> None:
    """Copy scripts, ``conf`` and ``src`` of this checkout to a new folder, and note which commit they are.

    Parameters
    ----------
    copy
        Where to; its name appears once the copy is whole.
    now
        Time for the note.

    Raises
    ------
    OSError
        The disk is full, or the folder is there already; what was copied is removed.
    """
    from skyloom.store import provenance

    root, partial = checkout(), copy.with_name(f"{copy.name}.partial")
    partial.mkdir(parents=True)
    try:
        for name in SCRIPTS:
            shutil.copy2(root / name, partial / name)
        for name in ("conf", "src"):
            shutil.copytree(root / name, partial / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
        note = {**provenance.code(), "copied_from": str(root), "time": now.isoformat(timespec="seconds")}
        (partial / NOTE).write_text(json.dumps(note, indent=2) + "\n")
        partial.rename(copy)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_same_code(config_sources: Sequence[Any]) -> None:
    """In a job: code and configuration must be of one copy.

    Raises
    ------
    ConfigError
        The job has found other code, as where the queue does not pass on the environment of its submission.
    """
    main = next((Path(s.path) for s in config_sources if s.provider == "main" and s.schema == "file"), None)
    if main is not None and main.resolve().parent != checkout():
        raise ConfigError(
            f"this job was submitted with the configuration {main} but runs the code of {checkout()}; "
            f"the job lost its environment: add \"hydra.launcher.setup=['export PYTHONPATH={main.parent / 'src'}']\""
        )


def quoted(text: str) -> str:
    """A value as Hydra's grammar wants it: backslashes count twice before quotes, and nowhere else."""
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), text) + "'"


def _with_own_folders(words: Sequence[str], copy: Path) -> list[str]:
    """Copy the folders of ``--config-dir`` too, and name the copies instead."""
    result, takes = [], False
    for word in words:
        flag, equals, value = word.partition("=")
        if takes:
            word = str(_copied(word, copy))
        elif equals and flag in FOLDER_FLAGS:
            word = f"{flag}={_copied(value, copy)}"
        takes = word in FOLDER_FLAGS
        result.append(word)
    return result


def _copied(folder: str, copy: Path) -> Path:
    number = len(list(copy.glob("more*")))
    return Path(shutil.copytree(folder, copy / f"more{number}"))


def _reason(error: OSError) -> str:
    """Why, in one line: copying a folder gathers all that went wrong in it."""
    return str(error.args[0][0][2] if isinstance(error, shutil.Error) else error)


def _warn_of_unfrozen(config: DictConfig) -> None:
    for source in config.hydra.runtime.config_sources:
        if source.schema == "file" and not Path(source.path).resolve().is_relative_to(checkout()):
            log.warning("the configuration in %s is not copied: jobs read it when they start", source.path)
