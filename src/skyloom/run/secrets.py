"""Keeps secrets out of everything that is written: manifests, logs, configurations and trackers."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skyloom.errors import ConfigError

NAME = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|(^|_)(API)?KEY(_|$)")
SHORTEST = 8  # characters; what is shorter stands in texts by chance (true, 1, eu-west)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@")  # a user and a password before the host


def refuse_secrets(values: Any) -> None:
    """Refuse options that hold a secret, before any of them is written anywhere.

    A secret is the value of an environment variable whose name says so (``…_KEY``, ``…TOKEN…``, ``…PASSWORD…``,
    ``…SECRET…``), or a password in an address. W&B, MLflow and archives read theirs from the environment.

    Parameters
    ----------
    values
        Nested mappings, lists and texts.

    Raises
    ------
    ConfigError
        Names the option and the variable, never the value.
    """
    secrets = secret_variables(os.environ)
    for path, text in _texts(values, ""):
        for name, secret in secrets.items():
            if secret in text:
                raise ConfigError(
                    f"{path or 'an option'} holds the value of the environment variable {name}, which would stand in "
                    "manifests and logs; leave it out, what needs it reads the variable"
                )
        if ADDRESS.search(text):
            raise ConfigError(
                f"{path or 'an option'} holds an address with a password, which would stand in manifests and logs; "
                "leave user and password out (MLFLOW_TRACKING_USERNAME and _PASSWORD, or ~/.netrc)"
            )


def secret_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Values of the variables that are secrets by their names; paths to files with secrets are none."""
    return {
        name: value
        for name, value in environment.items()
        if NAME.search(name.upper()) and len(value) >= SHORTEST and not _is_path(value)
    }


def _is_path(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):
        return False


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{path}.{key}".removeprefix("."))
            yield path, str(key)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _texts(item, f"{path}[{number}]" if path else "")
    elif isinstance(value, str):
        yield path, value
