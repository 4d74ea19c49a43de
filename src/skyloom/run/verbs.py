"""From a composed configuration to the plain function that does the work, and its arguments."""

import importlib
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from skyloom.errors import ConfigError
from skyloom.store import Artifact, Plan

log = logging.getLogger("skyloom")

TRAINER = "skyloom.trainer.train:train"
# Tasks that measure instead of leaving a model have functions of their own, by method; "" stands for all others.
MEASURING = {"probe": {"": "skyloom.probe.frozen:probe", "finetune": "skyloom.probe.finetune:finetune"}}

# Per verb: the key that chooses the function. But for train, it is also the package in which one module is one choice.
GROUPS = {"curate": "step", "extract": "product", "train": "task", "analyze": "report"}


def function_of(verb: str, config: DictConfig) -> Callable[..., Any]:
    """Find the plain function behind a verb: ``curate step=cutouts`` is ``skyloom.step.cutouts.cutouts``."""
    if verb == "train":
        module, _, name = _builder(config.task).partition(":")
        return getattr(importlib.import_module(module), name)
    group = GROUPS[verb]
    choice = config.get(group)
    if choice is None:  # only curate: a recipe may stand in the place of a step
        raise ConfigError(f"give a step or a recipe: step={_or('step')}, or recipe={_or('recipe')}")
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
        elif name in plain:
            values[name] = plain[name]
    return values


def call(verb: str, config: DictConfig) -> Artifact | Plan:
    """Run a verb and return what it made, or the plan when ``dry_run`` is set."""
    from skyloom.run.mirror import chosen_loggers, mirror

    function = function_of(verb, config)
    arguments = arguments_of(function, config)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    loggers = chosen_loggers(plain.get("logger")) if verb == "analyze" else None
    made = function(**arguments)
    if loggers and isinstance(made, Artifact):  # the loggers of a fit are told while it runs
        mirror(made, loggers, runs=plain["paths"]["runs"])
    return made


def _builder(task: DictConfig) -> str:
    """Module and name of the function that builds what a task makes."""
    methods = MEASURING.get(str(task.get("name")))
    return TRAINER if methods is None else methods.get(str(task.get("method")), methods[""])


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
