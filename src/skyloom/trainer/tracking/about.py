"""What trackers are told of an artifact: who it is, what was asked for, from what and with which code it is made."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyloom.store import Artifact, Build
from skyloom.store.artifact import identities
from skyloom.store.provenance import code

BY_THE_WAY = {"catalog": ("candidates",)}  # by kind the inputs that product=catalog makes first where they are missing


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
    before : dict
        Kind and id by role of what an input was made from, of an input that is named by what it comes from.
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
    before: dict[str, dict[str, str]] = field(default_factory=dict)

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
        before = {
            f"{role}.{name}": found
            for role, made in made_with(artifact).items()
            for name, found in _flat_inputs(made.manifest["inputs"]).items()
        }
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
            before,
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
        return _flat_inputs(self.inputs) | self.before


def made_with(artifact: Artifact) -> dict[str, Artifact]:
    """By role the inputs that the command of an artifact makes by the way: the candidates of a catalogue."""
    if artifact.kind not in BY_THE_WAY:
        return {}
    return {role: made for role, made in artifact.inputs.items() if role in BY_THE_WAY[artifact.kind]}


def tracker_name(kind: str, id: str) -> str:
    """Name of an artifact in a tracker."""
    return f"{kind}-{id}"


def _flat_inputs(inputs: dict[str, Any]) -> dict[str, dict[str, str]]:
    return dict(pair for role, entry in inputs.items() for pair in identities(role, entry))
