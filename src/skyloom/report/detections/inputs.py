"""The inputs of a report on detections: truth, catalogues by name, and the command that gives them again."""

import re
from collections.abc import Mapping
from typing import Any

from skyloom.datamodule.table_input import TableInput, open_table_input
from skyloom.errors import ConfigError
from skyloom.store import Artifact, Store

TRUTH_KINDS = ("cutouts", "annotations", "dataset", "catalog")
CATALOG_KINDS = ("catalog", "cutouts", "annotations", "dataset")
TRUTH = "truth"
NAME = re.compile(r"[A-Za-z0-9_-]+")
QUOTED = re.compile(r"[\s\[\]{}(),:='\"]")  # what would end a word in a mapping on the command line


class Catalogs(dict[str, TableInput]):
    """The catalogues by name, in the order given."""

    def identity(self) -> dict[str, Any]:
        """Identity of each; their order does not change the numbers, but the page."""
        return {name: one.identity() for name, one in self.items()}

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """Those that are artifacts."""
        return {name: one.artifact for name, one in self.items() if one.artifact is not None}


def open_catalogs(value: Any, _parameters: Mapping[str, Any], store: Store) -> Catalogs:
    """Resolver of the input ``catalogs``: files or artifacts by name.

    Raises
    ------
    ConfigError
        There is none, or a name cannot be used.
    """
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(
            f"catalogs={value}: expected files or ids by name, as 'catalogs={{deepdisc: found.parquet, lsst: ID}}'"
        )
    for name in value:
        if not NAME.fullmatch(str(name)) or name == TRUTH:
            raise ConfigError(
                f"catalogs: the name '{name}' cannot be used; expected letters, digits, - and _, and not {TRUTH}"
            )
    return Catalogs({str(name): open_table_input(one, store, CATALOG_KINDS) for name, one in value.items()})


def command_words(parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, str]:
    """How inputs, and parameters that are mappings with free keys or lists, stand on a command line.

    Files are written by their names alone, so that the page tells nothing of this machine.
    """
    words = {}
    for name, value in inputs.items():
        if isinstance(value, Catalogs):
            words[name] = _quoted(f"{name}={_grammar({key: one.word for key, one in value.items()})}")
        elif value is not None:
            words[name] = value.word if isinstance(value, TableInput) else value.id
    for name, value in parameters.items():
        if isinstance(value, list) or (isinstance(value, dict) and name in ("columns", "constraints", "bins")):
            words[name] = _quoted(f"{name}={_grammar(value)}")
    return {name: word.removeprefix(f"{name}=") for name, word in words.items()}


def _grammar(value: Any) -> str:
    """A value in the grammar of overrides."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_grammar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_grammar(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = str(value)
    return f'"{text}"' if not text or QUOTED.search(text) else text


def _quoted(text: str) -> str:
    """For a shell: braces, brackets and blanks need quotes."""
    name, _, value = text.partition("=")
    return f"{name}='{value}'" if QUOTED.search(value) else text
