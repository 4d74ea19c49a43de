"""Checks the arguments of a step against its signature and types, with one line per mistake."""

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from skyloom.errors import ConfigError, unknown_choice


def check_arguments(
    step: str, signature: inspect.Signature, hints: Mapping[str, Any], given: Mapping[str, Any], unchecked: set[str]
) -> dict[str, Any]:
    """Bring arguments to the types that the signature declares.

    Parameters
    ----------
    step
        Name used in messages.
    signature
        Of the step's body; its first parameter ``build`` is left out.
    hints
        Resolved type hints; any type that pydantic understands, with constraints.
    given
        Arguments by name.
    unchecked
        Inputs that a resolver opens later; only their presence is checked.

    Returns
    -------
    dict
        A value per parameter, defaults filled in.

    Raises
    ------
    ConfigError
        For an unknown or missing argument, or a value of the wrong type, range or choice.
    """
    parameters = {name: p for name, p in signature.parameters.items() if name != "build"}
    for name in given:
        if name not in parameters:
            raise unknown_choice(f"{step}: option", name, parameters)
    values = {}
    for name, parameter in parameters.items():
        if name not in given:
            if parameter.default is inspect.Parameter.empty:
                raise ConfigError(f"{step}: '{name}' is missing; give {name}=…")
            values[name] = parameter.default
        elif name in unchecked:
            values[name] = given[name]
        else:
            values[name] = _convert(name, given[name], hints.get(name, Any))
    return values


def _convert(name: str, value: Any, hint: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # the type brings its own configuration
        adapter = TypeAdapter(hint)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        inner = "".join(f".{part}" for part in first["loc"] if isinstance(part, str | int))
        choices = _choices(hint)
        if choices and value not in choices:
            raise unknown_choice(name, value, choices) from None
        if first["type"] == "value_error":
            raise ConfigError(f"{name}: {first['ctx']['error']}") from None
        raise ConfigError(f"{name}{inner}={first['input']!r}: {first['msg'].lower()}") from None


def _choices(hint: Any) -> list[str]:
    """The allowed texts of a (possibly optional) Literal; empty for other types."""
    if typing.get_origin(hint) is typing.Literal:
        return [str(item) for item in typing.get_args(hint)]
    return [choice for part in typing.get_args(hint) for choice in _choices(part)]
