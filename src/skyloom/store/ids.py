"""Turns a request into the id that every machine gives to the same request."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

# Lower-case base 32. The first character is a letter, so that no id and no prefix of one can be read
# as a number by Hydra's override grammar or by YAML ("12e4567" would be a float).
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALPHABET = _LETTERS + "234567"
ID_LENGTH = 12  # 26 * 32**11 = 10**18 ids: a million artifacts collide with a probability of 10**-6


class NotPlain(TypeError):
    """A value has no stable text form; the message names it."""


def plain(value: Any, name: str = "") -> Any:
    """Reduce a value to JSON types; refuses what has no stable text form.

    Objects may bring their own form in a method ``parameter()``. NaN and infinity are refused, because
    JSON has no word for them. ``name`` is what messages call the value.

    Raises
    ------
    NotPlain
        Names what was found, and where in the value.
    """
    if hasattr(value, "parameter"):
        return plain(value.parameter(), name)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), _below(name, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return plain(value.value, name)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotPlain(f"{name or 'value'}={value}: expected a finite number, or null where that means no limit")
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, _below(name, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, _below(name, number)) for number, item in enumerate(value)]
    raise NotPlain(f"{name or 'value'}={value!r}: a {type(value).__name__} cannot be part of a request")


def _below(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def canonical(value: Any) -> bytes:
    """Canonical JSON bytes: sorted keys, no spaces, UTF-8, shortest floats that read back the same."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


@dataclass(frozen=True)
class Request:
    """Everything that decides what an artifact holds.

    Attributes
    ----------
    kind
        What it is (``cutouts``); the folder in the store.
    step
        Which function makes it.
    version
        Version of that function; raised whenever the same parameters would give another result.
    parameters
        Resolved parameters, plain JSON types.
    inputs
        Per input its identity: kind and id of an artifact, or number and digest of files.
    """

    kind: str
    step: str
    version: int
    parameters: dict[str, Any]
    inputs: dict[str, Any]

    def digest(self) -> str:
        """Hex sha256 of the canonical request."""
        parts = {
            "kind": self.kind,
            "step": self.step,
            "version": self.version,
            "parameters": self.parameters,
            "inputs": self.inputs,
        }
        return hashlib.sha256(canonical(parts)).hexdigest()

    @property
    def id(self) -> str:
        """Twelve characters that start with a letter."""
        number = int(self.digest(), 16)
        number, first = divmod(number, len(_LETTERS))
        text = _LETTERS[first]
        for _ in range(ID_LENGTH - 1):
            number, digit = divmod(number, len(_ALPHABET))
            text += _ALPHABET[digit]
        return text
