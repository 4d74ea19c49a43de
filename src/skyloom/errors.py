"""The errors a user can mend: each says what was expected, what was found, where, and what to do.

The scripts print them as one line and exit with code 2; anything else is a defect and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class SkyloomError(Exception):
    """Base of all errors that a user can mend without reading the source."""


class ConfigError(SkyloomError):
    """An option has a value that cannot be used."""


class InputError(SkyloomError):
    """A file or a table is missing, damaged or does not fit the request."""


class StoreError(SkyloomError):
    """An artifact cannot be found, opened or written."""


class Stopped(KeyboardInterrupt):
    """A signal has asked the program to end, and what it was at is saved.

    Attributes
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def unknown_choice(what: str, value: object, choices: Iterable[str]) -> ConfigError:
    """Build the error for a value outside a closed list.

    Parameters
    ----------
    what
        The option or thing that was asked for, as the user wrote it (``stretch``).
    value
        What was found.
    choices
        Everything that is allowed.

    Returns
    -------
    ConfigError
        One line with the allowed values and, when one is close, a suggestion.
    """
    allowed = sorted(choices)
    near = get_close_matches(str(value), allowed, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"{what}={value} is not known; choose one of: {', '.join(allowed)}.{hint}")
