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

# Per verb: the key that chooses the function. But for train, it is also the package in which one module is one choice.
GROUPS = {"curate": "step", "extract": "product", "train": "task", "analyze": "report"}


def function_of(verb: str, config: DictConfig) -> Callable[..., Any]:
    """Find the plain function behind a verb: ``curate step=cutouts`` is ``skyloom.step.cutouts.cutouts``."""
    if verb == "train":
        from skyloom.trainer.train import train

        return train
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
    if missing := sorted(_missing(OmegaConf.to_container(config, resolve=False), "")):
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
    function = function_of(verb, config)
    return function(**arguments_of(function, config))


def _or(group: str) -> str:
    from skyloom.run.notebook import config_folder

    return "|".join(sorted(path.stem for path in (config_folder() / group).glob("*.yaml")))


def _missing(value: Any, path: str) -> Iterator[str]:
    """Dotted names of the values that are still ``???``; what only refers to them is not named."""
    if value == "???":
        yield path.removeprefix(".")
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _missing(item, f"{path}.{key}")
