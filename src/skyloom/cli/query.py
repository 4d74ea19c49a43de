"""What ``skyloom find`` compares: the parameters and inputs of an artifact and of all that it was made from."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from skyloom.cli.graph import Graph
from skyloom.errors import ConfigError, unknown_choice
from skyloom.report.lineage import flatten
from skyloom.store import Artifact, Store

_TERM = re.compile(r"([^=<>!]+)(!=|>=|<=|=|>|<)(.*)", re.DOTALL)


@dataclass
class Facts:
    """By what an artifact can be found.

    Attributes
    ----------
    values : dict
        Texts by key. Own parameters and inputs have their dotted names; those of ancestors stand behind the kind
        (``cutouts.window_px``), and a kind alone stands for the ids of all ancestors of that kind.
    ids : set
        Keys whose values are ids.
    """

    values: dict[str, list[str]] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)

    def add(self, key: str, value: str) -> None:
        """Add a value to a key, once."""
        if value not in self.values.setdefault(key, []):
            self.values[key].append(value)


@dataclass(frozen=True)
class Term:
    """A condition: ``window_px=128``, ``survey.name=lotss*``, ``target_size>=1000``, ``metric!=l2``."""

    key: str
    sign: str
    wanted: str

    def fits(self, facts: Facts) -> bool:
        """Whether an artifact meets it; a key that the artifact lacks is null."""
        values = facts.values.get(self.key, ["null"])
        if self.sign in ("=", "!="):
            equal = any(_equal(value, self.wanted, self.key in facts.ids) for value in values)
            return equal == (self.sign == "=")
        limit = _number(self.wanted)
        if limit is None:
            raise ConfigError(f"{self.key}{self.sign}{self.wanted}: expected a number behind {self.sign}")
        numbers = [number for value in values if (number := _number(value)) is not None]
        compare = {">": limit.__lt__, ">=": limit.__le__, "<": limit.__gt__, "<=": limit.__ge__}[self.sign]
        return any(compare(number) for number in numbers)


def facts_of(artifact: Artifact, graph: Graph) -> Facts:
    """Collect by what an artifact can be found."""
    facts = Facts()
    facts.add("step", artifact.step)
    for key, value in flatten(artifact.parameters):
        facts.add(key, value)
    for key, value, is_id in _inputs(artifact.manifest["inputs"], ""):
        facts.add(key, value)
        if is_id:
            facts.ids.add(key)
    own = set(facts.values)
    for ancestor in graph.ancestors(artifact):
        facts.add(ancestor.kind, ancestor.id)
        facts.ids.add(ancestor.kind)
        for key, value in flatten(ancestor.parameters):
            if (name := f"{ancestor.kind}.{key}") not in own:
                facts.add(name, value)
    return facts


def read_terms(words: Sequence[str], store: Store) -> list[Term]:
    """Read ``key=value`` and the like; a given name stands for its id.

    Raises
    ------
    ConfigError
        A word is no condition.
    """
    terms = []
    for word in words:
        parts = _TERM.fullmatch(word)
        if not parts:
            raise ConfigError(f"'{word}' is no condition; expected key=value, !=, >, >=, < or <=")
        key, sign, wanted = parts.groups()
        if target := store.names.get(wanted):
            wanted = target.partition("/")[2]
        terms.append(Term(key.strip(), sign, wanted.strip()))
    return terms


def select(candidates: Sequence[Artifact], terms: Sequence[Term], graph: Graph) -> list[tuple[Artifact, Facts]]:
    """The artifacts that meet all conditions.

    Raises
    ------
    ConfigError
        No candidate has such a key.
    """
    found = [(artifact, facts_of(artifact, graph)) for artifact in candidates]
    known = {key for _, facts in found for key in facts.values}
    for term in terms:
        if term.key not in known:
            raise unknown_choice("key", term.key, known)
    return [(artifact, facts) for artifact, facts in found if all(term.fits(facts) for term in terms)]


def differing(found: Sequence[Facts]) -> list[str]:
    """Keys in which artifacts differ, in the order in which they are met."""
    keys = dict.fromkeys(key for facts in found for key in facts.values)
    return [key for key in keys if len({tuple(facts.values.get(key, ())) for facts in found}) > 1]


def _inputs(entry: Any, key: str) -> Iterator[tuple[str, str, bool]]:
    """Dotted name, id (or digest of files, or null) and whether it is an id, of each input."""
    if entry is None:
        yield key, "null", True
    elif isinstance(entry, list):
        for item in entry:
            yield from _inputs(item, key)
    elif isinstance(entry, dict) and "id" in entry:
        yield key, str(entry["id"]), True
    elif isinstance(entry, dict) and "digest" in entry:
        yield key, str(entry["digest"])[:12], False
    elif isinstance(entry, dict):
        for name, item in entry.items():
            yield from _inputs(item, f"{key}.{name}" if key else name)


def _equal(value: str, wanted: str, is_id: bool) -> bool:
    if is_id and wanted and value != "null" and value.startswith(wanted):
        return True
    number, other = _number(value), _number(wanted)
    if number is not None and other is not None:
        return number == other
    value, wanted = value.lower(), wanted.lower()
    if wanted == "none":
        wanted = "null"
    if "*" in wanted or "?" in wanted:
        return fnmatchcase(value, wanted.replace("[", "[[]"))
    return value.replace(" ", "") == wanted.replace(" ", "")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
