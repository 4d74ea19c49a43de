"""From a composed configuration to the plain function that does the work, and its arguments."""

import importlib
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from skyloom.errors import ConfigError
from skyloom.executor import build_executor
from skyloom.store import Artifact, Plan

log = logging.getLogger("skyloom")

TRAINER = "skyloom.trainer.train:train"
# Tasks that are fitted by a function of their own.
TRAINERS = {"detect": "skyloom.trainer.detect:detect"}
# Tasks that measure instead of leaving a model have functions of their own, by method; "" stands for all others.
MEASURING = {"probe": {"": "skyloom.probe.frozen:probe", "finetune": "skyloom.probe.finetune:finetune"}}

# Reports that have functions of their own for some inputs, by the key of the input; "" stands for all others.
BY_INPUT = {
    "compare": {"": "skyloom.report.compare.report:compare", "runs": "skyloom.report.compare.runs:compare_runs"}
}

# Steps that have functions of their own for some surveys, by the survey's name; else "bands" stands for all that have
# bands and "" for all others.
BY_SURVEY = {
    "cutouts": {"": "skyloom.step.cutouts.step:cutouts", "bands": "skyloom.step.cutouts.tiles.step:tile_cutouts"},
    "simulate": {
        "lotss": "skyloom.step.simulate.step:simulate",
        "roman_lsst": "skyloom.step.simulate.roman_lsst:simulate_roman_lsst",
    },
}

# Per verb: the key that chooses the function. But for train, it is also the package in which one module is one choice.
GROUPS = {"curate": "step", "extract": "product", "train": "task", "analyze": "report"}


def function_of(verb: str, config: DictConfig) -> Callable[..., Any]:
    """Find the plain function behind a verb: ``curate step=cutouts`` is ``skyloom.step.cutouts.step.cutouts``."""
    if verb == "train":
        return _load(_builder(config.task))
    group = GROUPS[verb]
    choice = config.get(group)
    if choice is None:  # only curate: a recipe may stand in the place of a step
        raise ConfigError(f"give a step or a recipe: step={_or('step')}, or recipe={_or('recipe')}")
    if verb == "curate" and choice in BY_SURVEY:
        return _load(_for_survey(str(choice), config.survey))
    if verb == "analyze" and choice in BY_INPUT:
        places = BY_INPUT[str(choice)]
        return _load(next((places[key] for key in places if key and config.get(key) is not None), places[""]))
    return getattr(importlib.import_module(f"skyloom.{group}.{choice}"), choice)


def arguments_of(function: Callable[..., Any], config: DictConfig) -> dict[str, Any]:
    """Take the function's parameters from the configuration's top-level keys, as plain Python values.

    Raises
    ------
    ConfigError
        When a value that has no default (``???``) was not given.
    """
    if missing := sorted(missing_keys(config)):
        given = " ".join(f"{key}=…" for key in missing)
        raise ConfigError(
            f"{' and '.join(missing)} must be given: {given} (the file of your choice in conf/ says what)"
        )
    plain: Any = OmegaConf.to_container(config, resolve=True)
    values = {}
    for name in inspect.signature(function).parameters:
        if name == "store":
            values["store"] = plain["paths"]["store"]
        elif name == "image_roots":
            values["image_roots"] = plain["paths"]["images"]
        elif name == "executor" and name in plain:
            values[name] = build_executor(plain[name])
        elif name in plain:
            values[name] = plain[name]
    return values


def call(verb: str, config: DictConfig) -> Artifact | Plan:
    """Run a verb and return what it made, or the plan when ``dry_run`` is set."""
    from skyloom.run.mirror import chosen_loggers, mirror
    from skyloom.run.secrets import refuse_secrets

    function = function_of(verb, config)
    _refuse_unread(verb, function, config)
    arguments = arguments_of(function, config)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    refuse_secrets(plain)
    loggers = chosen_loggers(plain.get("logger"))
    made = function(**arguments)
    if loggers and isinstance(made, Artifact):  # those of a fit were told while it ran, unless it was there already
        mirror(made, loggers, verb=verb, runs=plain["paths"]["runs"])
    return made


def _load(place: str) -> Callable[..., Any]:
    """The function of ``module:name``."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _for_survey(step: str, survey: DictConfig) -> str:
    """Module and name of the function that does a step for a survey."""
    choices = BY_SURVEY[step]
    kind = str(survey.name) if survey.name in choices else "bands" if survey.get("bands") else ""
    if kind not in choices:
        known = " or ".join(f"survey={name}" for name in choices)
        raise ConfigError(f"step={step} does not know survey={survey.name}; choose {known}")
    return choices[kind]


def _refuse_unread(verb: str, function: Callable[..., Any], config: DictConfig) -> None:
    """Refuse options that only another function of the same step or report reads: they would change nothing."""
    from skyloom.run.notebook import config_folder

    group = GROUPS[verb]
    choice = config.get(group)
    _refuse_executor(f"{group}={choice}", set(inspect.signature(function).parameters), config.get("executor"))
    places = {"curate": BY_SURVEY, "analyze": BY_INPUT}.get(verb, {}).get(str(choice), {}).values()
    file = config_folder() / group / f"{choice}.yaml"
    if len(places) < 2 or not file.exists():
        return
    usual: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    given: Any = OmegaConf.to_container(config, resolve=False)
    read = set(inspect.signature(function).parameters)
    for key in usual:
        if key not in {*read, group} and given.get(key) != usual[key]:
            wants = ", ".join(name for name in BY_INPUT.get(str(choice), {}) if name in read) or "probes"
            beside = f"survey={config.survey.name}" if verb == "curate" else f"{wants}=…"
            raise ConfigError(f"{key} has no meaning for {group}={choice} with {beside}; leave it out")


def _refuse_executor(what: str, read: set[str], executor: DictConfig | None) -> None:
    """Refuse jobs, or a number of processes, for work that is not made of pieces."""
    if executor is None or "executor" in read:
        return
    if executor.name == "slurm":
        given, instead = "executor=slurm", "or submit the whole command as one job (slurm/step.sbatch)"
    elif executor.get("workers") is not None:
        given = f"executor.workers={executor.workers}"
        instead = "or give workers=… in its place" if "workers" in read else "it works in one process"
    else:
        return
    raise ConfigError(f"{what} is not made of pieces, so {given} has nothing to do; leave it out, {instead}")


def _builder(task: DictConfig) -> str:
    """Module and name of the function that builds what a task makes."""
    name = str(task.get("name"))
    methods = MEASURING.get(name)
    return TRAINERS.get(name, TRAINER) if methods is None else methods.get(str(task.get("method")), methods[""])


def _or(group: str) -> str:
    from skyloom.run.notebook import config_folder

    return "|".join(sorted(path.stem for path in (config_folder() / group).glob("*.yaml")))


def missing_keys(config: DictConfig) -> list[str]:
    """Dotted names of the values that are still ``???``; OmegaConf's own function fails at what refers to one."""
    return list(_missing(OmegaConf.to_container(config, resolve=False), ""))


def _missing(value: Any, path: str) -> Iterator[str]:
    """Dotted names of the values that are still ``???``; what only refers to them is not named."""
    if value == "???":
        yield path.removeprefix(".")
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _missing(item, f"{path}.{key}")
