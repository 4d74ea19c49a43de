"""Which artifacts a data set of several surveys is read with: its cutouts by survey, and their statistics."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.store import Artifact, Store

AUTO = "auto"
log = logging.getLogger("skyloom")


def cutouts_of(dataset: Artifact, survey: str, given: Artifact | None = None) -> Artifact:
    """Find the cutouts of a survey that belong to a data set.

    Parameters
    ----------
    dataset
        Of kind ``dataset``.
    survey
        Name of the survey.
    given
        Takes precedence over what the data set was made from.

    Raises
    ------
    ConfigError
        There are none.
    """
    if given is not None:
        return given
    known = _known_cutouts(dataset)
    if survey not in known:
        raise ConfigError(
            f"dataset {dataset.id} was made from cutouts of {' and '.join(sorted(known)) or 'no survey'}; expected "
            f"{survey}: give them as data.{survey}=ID, assemble with match=ID, or leave {survey} out of "
            "datamodule.surveys"
        )
    return known[survey]


def annotated_cutouts(dataset: Artifact) -> Artifact:
    """The cutouts in whose pixels the annotations of a data set are given.

    Raises
    ------
    InputError
        The data set was not made from cutouts.
    """
    found = next(_cutouts_behind(dataset), None)
    if found is None:
        raise InputError(
            f"dataset {dataset.id} was not made from cutouts, so that its pixels cannot be found; expected one made by "
            "step=assemble"
        )
    return found


def find_stats(cutouts: Artifact, store: Store) -> Artifact | None:
    """Find the statistics of cutouts in the store; None and a warning where there are none.

    Raises
    ------
    ConfigError
        There are several, and no rule to choose by.
    """
    every = store.find("stats")
    found = [artifact for artifact in every if _measured(artifact) == cutouts.id]
    if not found and cutouts.step == "pack":  # its pixels are those of the cutouts that it was made from
        found = [artifact for artifact in every if _measured(artifact) == cutouts.manifest["inputs"]["cutouts"]["id"]]
    if len(found) > 1:
        raise ConfigError(
            f"the store has {len(found)} statistics of cutouts {cutouts.id} ({', '.join(a.id for a in found)}); choose "
            f"one: data.{cutouts.notes.get('survey')}_stats=ID"
        )
    if not found:
        log.warning(
            "no statistics of cutouts %s in the store, so that nothing scales their pixels: run step=stats cutouts=%s",
            cutouts.id,
            cutouts.id,
        )
    return found[0] if found else None


def auto_inputs(data: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """Replace ``auto`` in the roles ``<survey>_stats`` by the statistics of that survey's cutouts.

    Parameters
    ----------
    data
        References by role; ``dataset`` is needed where something is ``auto``.
    store
        Where to look.

    Raises
    ------
    ConfigError
        ``auto`` stands in another role, or fits several.
    """
    made = dict(data)
    for role in [role for role, item in data.items() if item == AUTO]:
        survey, _, kind = role.rpartition("_")
        if kind != "stats" or not survey or not data.get("dataset"):
            raise ConfigError(f"data.{role}=auto: only statistics of a dataset are found by themselves; give an id")
        own = store.open(data[survey], "cutouts") if data.get(survey) else None
        cutouts = own or _known_cutouts(store.open(data["dataset"], "dataset")).get(survey)
        made[role] = cutouts and find_stats(cutouts, store)  # None for a survey that the data set does not have
    return made


def _known_cutouts(dataset: Artifact) -> dict[str, Artifact]:
    """Cutouts behind a data set by survey; those nearest to it where a survey has several."""
    return {str(found.notes.get("survey")): found for found in reversed(list(_cutouts_behind(dataset)))}


def _cutouts_behind(dataset: Artifact) -> Iterator[Artifact]:
    """Cutouts that a data set was made from: its own, those of the match, those that were matched to."""
    inputs = dataset.inputs
    for artifact in (inputs.get("cutouts"), inputs.get("match")):
        if artifact is not None:
            yield artifact
            try:
                behind = artifact.inputs.get("match")
            except StoreError:  # what they were made from is no longer in the store, and need not be
                behind = None
            if behind is not None:
                yield behind


def _measured(stats: Artifact) -> str | None:
    entry = stats.manifest["inputs"].get("cutouts")
    return entry.get("id") if isinstance(entry, Mapping) else None
