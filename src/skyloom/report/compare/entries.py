"""What a comparison compares: scored results with all the parameters that they and their ancestors were made with."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from skyloom.errors import InputError, StoreError
from skyloom.report.lineage import flatten
from skyloom.store import Artifact

KEYS = ("method", "fraction", "seed", "fold")  # what tells the pieces of one entry apart
OWN = "probe"  # role of the entry itself in the names of facts
# The network that is judged has the same names whether a probe reads its features or trains it.
NETWORK, NETWORK_ROLES = ("backbone.", "preprocess."), (OWN, "features")


@dataclass(frozen=True)
class Entry:
    """One scored result.

    Attributes
    ----------
    artifact : Artifact
        Where it comes from.
    facts : dict of str
        Parameters of the result and of all it was made from, by role and name: ``weights.task.name``.
    scores : polars.DataFrame
        A row per piece: ``KEYS`` and a column per metric.
    labels : str
        Id of what the scores are measured on; pieces of equal labels and keys can be compared one by one.
    scheme : str
        How training and test parts were divided.
    predictions : polars.DataFrame or None
        ``fraction``, ``seed``, ``cutout_id``, ``group``, ``truth``, ``predicted`` of one common test part; None where
        there is none.
    classes : list of str
        Of the predictions.
    """

    artifact: Artifact
    facts: dict[str, str]
    scores: pl.DataFrame
    labels: str
    scheme: str
    predictions: pl.DataFrame | None
    classes: list[str]


def open_entry(artifact: Artifact) -> Entry:
    """Read what a comparison needs of an artifact.

    Raises
    ------
    InputError
        Nothing in it can be compared.
    """
    if artifact.kind not in READERS:
        raise InputError(f"{artifact.kind} {artifact.id} cannot be compared; expected one of: {', '.join(READERS)}")
    return READERS[artifact.kind](artifact)


def _probe(artifact: Artifact) -> Entry:
    notes, official = artifact.notes, artifact.notes["split"] == "official"
    return Entry(
        artifact,
        facts_of(artifact),
        artifact.table("results.parquet"),
        labels=notes["labels"],
        scheme=notes["split"],
        predictions=artifact.table("predictions.parquet") if official else None,
        classes=notes["classes"],
    )


# A kind that can be compared is one more line here: a trained model, for one, has its last metrics and no predictions.
READERS: dict[str, Callable[[Artifact], Entry]] = {"probe": _probe}


def facts_of(artifact: Artifact, *, own: str = OWN) -> dict[str, str]:
    """Parameters of an artifact and of all it was made from, as far as that is in the store.

    Parameters
    ----------
    artifact
        The result.
    own
        Role of the result itself; empty lets its parameters have the names of the command line.

    Returns
    -------
    dict
        ``role.parameter`` to text, where the role is that of the nearest input (``features.layer``,
        ``weights.trainer.max_epochs``); one that was met before for something else gets the role of its reader in
        front (``weights.cutouts.window_px``). Those of the judged network are ``backbone.…`` and ``preprocess.…``.
        ``role`` alone says what it is: the step or task that made it, a file,
        or ``none``.
    """
    facts: dict[str, str] = {}
    taken: dict[str, str] = {}  # role: what it stands for
    waiting: deque[tuple[str, Artifact]] = deque([(own, artifact)])
    while waiting:
        role, one = waiting.popleft()
        for name, text in flatten(one.parameters):
            bare = not role or (role in NETWORK_ROLES and name.startswith(NETWORK))
            facts.setdefault(name if bare else f"{role}.{name}", text)
        for name, entry in _entries(one.manifest["inputs"]):
            what = str(entry.get("id", entry)) if isinstance(entry, dict) else str(entry)
            if what == taken.get(name):
                continue  # met before
            place = name
            if name in taken:
                place = f"{role}.{name}"
            if taken.setdefault(place, what) != what:
                place = f"{place}.{len(taken)}"
                taken[place] = what
            facts[place] = _named(entry)
            if isinstance(entry, dict) and "kind" in entry:
                try:
                    above = Artifact(one.path.parents[1] / str(entry["kind"]) / str(entry["id"]))
                except StoreError:
                    facts[place] = f"{entry['kind']} {entry['id']}"  # no longer in the store
                    continue
                facts[place] = _choice(above)
                waiting.append((place, above))
    return facts


def differing(entries: Sequence[Mapping[str, str]], average: list[str]) -> list[str]:
    """Names of the facts in which results differ, each difference once, but for those that are averaged over.

    Parameters
    ----------
    entries
        The facts of each.
    average
        Last parts of names: ``seed`` stands for that of the probe, of the model and of everything before.

    Returns
    -------
    list of str
        In the order in which they are met from the result backwards.

    Notes
    -----
    A fact that some entries lack is no difference by itself: that of its role (``weights``: random or byol) says it.
    Of facts that go together in all entries (stretch and clip of two recipes) the first is named.
    """
    every = dict.fromkeys(name for entry in entries for name in entry)
    names = [name for name in every if name.rpartition(".")[2] not in average]
    found: dict[tuple[str | None, ...], str] = {}
    for name in names:
        values = tuple(entry.get(name) for entry in entries)
        if len({value for value in values if value is not None}) > 1:
            found.setdefault(values, name)
    return list(found.values())


def _entries(inputs: dict[str, Any]) -> list[tuple[str, Any]]:
    """Inputs by role, those in lists and by nested roles too."""
    found = []
    for role, entry in inputs.items():
        if isinstance(entry, dict) and not entry.keys() & {"kind", "digest", "fingerprint"}:
            found += _entries(entry)
        elif isinstance(entry, list):
            found += [(role if i == 0 else f"{role}{i}", item) for i, item in enumerate(entry)]
        else:
            found.append((role, entry))
    return found


def _named(entry: Any) -> str:
    if isinstance(entry, dict):
        digest = str(entry.get("digest") or entry.get("fingerprint") or "")
        return f"{entry['file']} {digest[:8]}" if "file" in entry else digest[:12]
    return "none" if entry is None else str(entry)


def _choice(artifact: Artifact) -> str:
    """What made an artifact, in a word: the task of a model, else the step."""
    task = artifact.parameters.get("task")
    return str(task["name"]) if isinstance(task, dict) and "name" in task else artifact.step
