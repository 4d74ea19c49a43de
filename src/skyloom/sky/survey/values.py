"""Checks of single values in the file of a survey; every error names the key."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skyloom.errors import ConfigError, unknown_choice


def text(key: str, value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"survey.{key}={value!r}: expected a text that is not empty.")
    return value


def number(key: str, value: object) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise ConfigError(f"survey.{key}={value!r}: expected a number.")
    return float(value)


def positive(key: str, value: object) -> float:
    """A number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"survey.{key}={value!r}: expected a number above 0, or null.")
    return float(value)


def pixels(key: str, value: object, *, low: int) -> int:
    """A whole number of pixels, at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"survey.{key}={value!r}: expected a whole number of pixels, at least {low}.")
    return value


def axes(key: str, value: Any) -> tuple[float, float] | None:
    """Major and minor axis in arcsec, or None."""
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ConfigError(f"survey.{key}={value!r}: expected [major, minor] in arcsec, or null.")
    return positive(key, value[0]), positive(key, value[1])


def pattern(key: str, value: object) -> str:
    """A glob pattern relative to the folder that the user names."""
    if Path(text(key, value)).is_absolute():
        raise ConfigError(f"survey.{key}={value!r}: expected a pattern relative to the named folder.")
    return str(value)


def patterns(key: str, value: Any) -> tuple[str, ...]:
    """A list of glob patterns, at least one."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ConfigError(f"survey.{key}={value!r}: expected a list of glob patterns.")
    return tuple(pattern(key, item) for item in value)


def file_names(key: str, value: Any) -> tuple[str, ...]:
    """A list of patterns of file names without folders; None is the empty one."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"survey.{key}={value!r}: expected a list of patterns of file names, or null.")
    for item in value:
        if "/" in text(key, item):
            raise ConfigError(f"survey.{key}={item!r}: expected the name of a file, without folders.")
    return tuple(value)


def one_of(key: str, value: object, choices: tuple[str, ...]) -> str:
    """One of a closed list."""
    if value not in choices:
        raise unknown_choice(f"survey.{key}", value, choices)
    return str(value)


def mapping(key: str, value: object, known: Sequence[str], needed: Sequence[str] = ()) -> Mapping[str, Any]:
    """A mapping with no key but the `known` and all of the `needed`."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"survey.{key}={value!r}: expected the keys {', '.join(known)}, or null.")
    for name in value:
        if name not in known:
            raise unknown_choice(f"survey.{key} key", name, known)
    for name in needed:
        if name not in value:
            raise ConfigError(f"survey.{key}.{name} is missing.")
    return value
