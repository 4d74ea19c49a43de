"""Which images a server has, and which checksums they should have: plain text lists."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from skyloom.errors import ConfigError, InputError
from skyloom.sky.survey.facts import Survey

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # of a file or folder, on any system, and in an address
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class ImageNames:
    """Names of images on a server, sorted and unique."""

    names: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """Number and digest: the same however the names were given."""
        digest = hashlib.sha256("\n".join(self.names).encode()).hexdigest()
        return {"files": len(self.names), "digest": digest}


@dataclass(frozen=True)
class Checksums:
    """Expected sha256 by ``<image>/<file>``."""

    path: Path
    expected: Mapping[str, str]

    def identity(self) -> dict[str, Any]:
        """Number and digest of the list, wherever it lies."""
        text = "\n".join(f"{name} {digest}" for name, digest in sorted(self.expected.items()))
        return {"files": len(self.expected), "digest": hashlib.sha256(text.encode()).hexdigest()}

    def check_covers(self, wanted: list[str]) -> None:
        """Refuse to start when a wanted file is not in the list: it would pass unchecked."""
        lacking = [name for name in wanted if name not in self.expected]
        if lacking:
            raise InputError(
                f"{self.path} lacks {len(lacking)} of the {len(wanted)} files, the first is {lacking[0]}; "
                "complete it, ask for fewer files, or set checksums=null"
            )

    def check(self, name: str, digest: str) -> None:
        """Compare the sha256 of a file with the list."""
        if digest != self.expected[name]:
            raise InputError(f"{name} has sha256 {digest}, {self.path} says {self.expected[name]}")


def read_names(source: str) -> list[str]:
    """Read a list of names, one per line; empty lines and those that start with ``#`` do not count.

    Parameters
    ----------
    source
        A path, or the name of a file of ``skyloom/data``.

    Raises
    ------
    InputError
        There is no such list.
    """
    own = resources.files("skyloom") / "data" / source
    path = Path(source).expanduser()
    try:
        text = own.read_text() if SAFE_NAME.fullmatch(source) and own.is_file() else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list of images {path} cannot be read ({error}); correct survey.image_list") from error
    return [name for line in text.splitlines() if (name := line.strip()) and not name.startswith("#")]


def open_names(value: Any, parameters: Mapping[str, Any], _store: Any) -> ImageNames:
    """Resolve the option ``mosaics``: null (all of the survey's list), a number (the first so many), names, or a list.

    A list is the path of a text file with one name per line.

    Raises
    ------
    ConfigError
        A name is not in the list, or there is no list to choose from.
    """
    survey: Survey = parameters["survey"]
    listed = sorted(set(read_names(survey.image_list))) if survey.image_list else None
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        if listed is None:
            raise ConfigError(f"survey={survey.name} has no list of its images; name them in mosaics=[…]")
        if value is not None and not 1 <= value <= len(listed):
            raise ConfigError(f"mosaics={value}: expected a number from 1 to {len(listed)}, or null for all")
        return ImageNames(tuple(listed if value is None else listed[:value]))
    if isinstance(value, str):
        value = read_names(value) if value.endswith(".txt") else [value]
    if not isinstance(value, list | tuple) or not value or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"mosaics={value!r}: expected names, a number, or null for all, or a .txt file of names")
    _check_names(value, listed, survey.name)
    return ImageNames(tuple(sorted(set(value))))


def _check_names(names: Iterable[str], listed: list[str] | None, survey: str) -> None:
    for name in names:
        if not SAFE_NAME.fullmatch(name):
            raise ConfigError(f"mosaics: {name!r} cannot be the name of a folder; only A-Z a-z 0-9 _ . + - are allowed")
        if listed is not None and name not in listed:
            near = get_close_matches(name, listed, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"mosaics: {name} is not among the {len(listed)} images of survey {survey}.{hint}")


def open_checksums(value: Any, _parameters: Mapping[str, Any], _store: Any) -> Checksums | None:
    """Resolve the option ``checksums``: null, or a text file with a name and a sha256 per line, in either order.

    Names are ``<image>/<file>``; what ``sha256sum mosaics/*/*`` prints is understood.

    Raises
    ------
    InputError
        The file cannot be read or a line has not this form.
    """
    if value is None:
        return None
    path = Path(str(value)).expanduser()
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"checksums={path} cannot be read ({error})") from error
    expected: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        digests = [word for word in words if _SHA256.fullmatch(word)]
        names = [word for word in words if not _SHA256.fullmatch(word)]
        if len(digests) != 1 or len(names) != 1:
            raise InputError(f"{path}, line {number}: expected a name and a sha256 of 64 hex digits, found {line!r}")
        name = "/".join(Path(names[0].lstrip("*")).parts[-2:])
        if expected.setdefault(name, digests[0].lower()) != digests[0].lower():
            raise InputError(f"{path}, line {number}: {name} has another sha256 in an earlier line")
    return Checksums(path, expected)
