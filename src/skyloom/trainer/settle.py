"""Writes a finished checkpoint anew, so that equal contents are equal bytes."""

import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch


def settle(path: Path, write: Callable[[str], AbstractContextManager[Path]]) -> None:
    """Rewrite a checkpoint of plain types.

    Pickle writes an object once and then refers to it. Which of two equal texts are one object depends on whether they
    came from the program or from an earlier checkpoint, so that a fit that was resumed would end with other bytes than
    one that was not. Here every text is one object and every container its own.

    Parameters
    ----------
    path
        The checkpoint.
    write
        Opens a temporary path that replaces ``path`` when it is whole and on disk.
    """
    checkpoint = _apart(torch.load(path, map_location="cpu", weights_only=True))
    with write(path.name) as temporary, temporary.open("wb") as file:  # a path would write its name into the file
        torch.save(checkpoint, file)


def _apart(value: Any) -> Any:
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, OrderedDict):  # of a state_dict, with versions of the modules as an attribute
        ordered = OrderedDict((_apart(key), _apart(item)) for key, item in value.items())
        ordered.__dict__.update(_apart(vars(value)))
        return ordered
    if isinstance(value, dict):
        return {_apart(key): _apart(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_apart(item) for item in value)
    return value
