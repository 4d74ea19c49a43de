"""What an artifact was made from, as rows for a table, whether all of it is still in the store or not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skyloom.errors import StoreError
from skyloom.store import Artifact
from skyloom.store.flat import counts_text

INLINE_PARAMETERS = 8  # parameters shown at once in a table; the others unfold
LONGEST = 80  # letters of a parameter that are shown; the manifest has the rest


@dataclass(frozen=True)
class Ancestor:
    """A row of the table of the lineage."""

    kind: str
    id: str
    step: str
    parameters: list[tuple[str, str]]
    counts: str

    @property
    def inline(self) -> list[tuple[str, str]]:
        """Parameters shown at once."""
        return self.parameters[:INLINE_PARAMETERS]

    @property
    def folded(self) -> list[tuple[str, str]]:
        """Parameters that unfold."""
        return self.parameters[INLINE_PARAMETERS:]


def lineage_of(artifacts: list[Artifact]) -> list[Ancestor]:
    """Rows for artifacts and everything that they were made from, each once, above all that it was made from.

    Sets of files that are no artifacts get a row with their digest; an ancestor that is no longer in the store gets one
    that says so.
    """
    finished: dict[str, Ancestor] = {}  # each after all it was made from

    def visit(artifact: Artifact) -> None:
        if artifact.id in finished:
            return
        for kind, id, counts in reversed(list(inputs_of(artifact))):
            if kind == "files":
                finished.setdefault(id, Ancestor("files", id, "", [], counts))
                continue
            try:
                visit(Artifact(artifact.path.parents[1] / kind / id))
            except StoreError:
                finished.setdefault(id, Ancestor(kind, id, "no longer in the store", [], ""))
        finished[artifact.id] = ancestor(
            artifact.kind, artifact.id, artifact.step, artifact.parameters, artifact.counts
        )

    for artifact in reversed(artifacts):
        visit(artifact)
    return list(finished.values())[::-1]


def ancestor(kind: str, id: str, step: str, parameters: dict[str, Any], counts: dict[str, Any]) -> Ancestor:
    """A row of the lineage from the parts of a manifest."""
    texts = [(name, value if len(value) <= LONGEST else value[:LONGEST] + "…") for name, value in flatten(parameters)]
    texts.sort(key=lambda pair: "." in pair[0] and "[" not in pair[0])  # facts of a survey after the step's own options
    return Ancestor(kind, id, step, texts, counts_text(counts))


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested parameters as dotted names and texts; lists of plain values stay together."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield from flatten(item, f"{prefix}[{number}]")
    elif prefix:
        yield prefix, text_of(value)


def text_of(value: Any) -> str:
    """A parameter as it would be written on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(text_of(item) for item in value)}]"
    return str(value)


def inputs_of(artifact: Artifact) -> Iterator[tuple[str, str, str]]:
    """Kind, id and counts of each input; sets of files have the kind ``files`` and the start of their digest."""
    entries = list(artifact.manifest["inputs"].values())
    while entries:
        entry = entries.pop(0)
        if isinstance(entry, list):
            entries[:0] = entry
        elif isinstance(entry, dict) and "kind" in entry and "id" in entry:
            yield str(entry["kind"]), str(entry["id"]), ""
        elif isinstance(entry, dict) and "digest" in entry:
            number = entry.get("files", 1)
            yield "files", str(entry["digest"])[:12], f"{number:,} file{'' if number == 1 else 's'}"
        elif isinstance(entry, dict):  # inputs by role, as those of a trained model
            entries[:0] = entry.values()
