"""What trackers are told of an artifact: who it is, what was asked for, from what and with which code it is made."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyloom.store import Artifact, Build
from skyloom.store.artifact import identities
from skyloom.store.provenance import code


@dataclass(frozen=True)
class About:
    """An artifact, finished or in the making.

    Attributes
    ----------
    kind, id, step : str
        Of the artifact.
    verb : str
        The script: ``curate``, ``train``, ``extract`` or ``analyze``.
    parameters, inputs : dict
        The resolved request.
    folder : Path
        Where the artifact is, or will be when it is whole.
    code : dict
        ``version``, ``git_commit`` and ``git_dirty`` of skyloom when it was made.
    facts : dict
        What is known of it when it is finished: counts and sizes.
    """

    kind: str
    id: str
    step: str
    verb: str
    parameters: dict[str, Any]
    inputs: dict[str, Any]
    folder: Path
    code: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_build(cls, build: Build, verb: str = "train") -> "About":
        """Of an artifact in the making."""
        asked = build.request
        folder = build.path.absolute().parents[1] / asked.kind / asked.id
        return cls(asked.kind, asked.id, asked.step, verb, asked.parameters, asked.inputs, folder, code())

    @classmethod
    def of_artifact(cls, artifact: Artifact, verb: str) -> "About":
        """Of a finished one."""
        manifest = artifact.manifest
        sizes = [entry["size"] for entry in manifest["files"].values()]
        facts = {"counts": artifact.counts, "files": len(sizes), "bytes": sum(sizes)}
        return cls(
            artifact.kind,
            artifact.id,
            artifact.step,
            verb,
            artifact.parameters,
            manifest["inputs"],
            artifact.path,
            manifest.get("code") or {},
            facts,
        )

    @property
    def name(self) -> str:
        """Name of the artifact in a tracker, such as ``cutouts-k3v9…``; the same on every machine."""
        return tracker_name(self.kind, self.id)

    def asked(self) -> dict[str, Any]:
        """The resolved request in one mapping; holds nothing that differs when it is made again."""
        return {"id": self.id, "kind": self.kind, "step": self.step, **self.parameters, "inputs": self.inputs}

    def sources(self) -> dict[str, dict[str, str]]:
        """Kind and id of each artifact that this one is made from, by role (``data.cutouts``)."""
        return dict(pair for role, entry in self.inputs.items() for pair in identities(role, entry))


def tracker_name(kind: str, id: str) -> str:
    """Name of an artifact in a tracker."""
    return f"{kind}-{id}"


def flat_numbers(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of nested dictionaries by path (``representation/rankme``); lists, texts and nulls are left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat_numbers(item, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(value, int | float):
        yield prefix, float(value)
