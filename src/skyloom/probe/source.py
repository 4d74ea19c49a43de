"""Brings labels and the features of their cutouts together, and says what does not fit."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import h5py
import numpy as np

from skyloom.datamodule.labels import FILE, Labels
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.store import Artifact, Build, Store

BLOCK_ROWS = 65_536  # rows of features read at once: 134 MB at 512 dimensions


def features_input(value: Any, parameters: Mapping[str, Any], store: Store) -> Artifact:
    """Resolver of the input ``features``, which must be given.

    Raises
    ------
    ConfigError
        When it is not.
    """
    if value is None:
        raise ConfigError("features must be given: features=ID (made by extract.py product=features)")
    return store.open(value, "features")


def labels_input(value: Any, parameters: Mapping[str, Any], store: Store) -> Artifact:
    """Resolver of the input ``labels``: what was given, or the cutouts of the features when they carry labels.

    Raises
    ------
    ConfigError
        None were given and there is nowhere to look.
    InputError
        The cutouts of the features carry none.
    """
    if value is not None:
        return store.open(value, ("labels", "cutouts"))
    features = parameters.get("features")
    if not isinstance(features, Artifact):
        raise ConfigError("labels must be given: labels=ID (cutouts made by step=labelled, or labels of a table)")
    cutouts = cutouts_of(features)
    if FILE not in cutouts.manifest["files"]:
        raise InputError(
            f"cutouts {cutouts.id} of features {features.id} carry no labels; give labels=ID, or extract the features "
            "of cutouts made by step=labelled"
        )
    return cutouts


def cutouts_of(features: Artifact) -> Artifact:
    """The cutouts that features were extracted from.

    Raises
    ------
    InputError
        They are not among the inputs, or no longer in the store.
    """
    try:
        return features.inputs["cutouts"]
    except (KeyError, StoreError) as error:
        raise InputError(
            f"the cutouts of features {features.id} cannot be found ({error}); extract them again"
        ) from error


def used_labels(build: Build, labels: Labels, ids: np.ndarray | None = None) -> Labels:
    """Keep the labels that a probe can use; count the others.

    Parameters
    ----------
    build
        Counts what is left out.
    labels
        All of them.
    ids
        int64, cutouts that have features; None where the pixels are read.

    Raises
    ------
    InputError
        No label is left, or all have one and the same class.
    """
    total = len(labels.cutout_id)
    kept = np.ones(total, dtype=bool)
    if ids is not None:
        kept &= np.isin(labels.cutout_id, ids)
        if not kept.any():
            raise InputError(
                f"not one of the {total} labelled cutouts (first id {labels.cutout_id[0]}) is among the {len(ids)} of "
                f"the features (first id {ids[0]}); extract the features of cutouts {labels.cutouts.id}"
            )
        lost = labels.cutout_id[~kept]
        build.drop("no features", len(lost), why="the features were extracted for some of the labelled cutouts only",
                   examples=[f"cutout {i}" for i in lost[:20]])  # fmt: skip
    used = restrict(labels, kept)
    found = used.targets.any(0)
    if found.sum() < 2 and not (used.multi_label and not used.targets.all()):
        raise InputError(
            f"all {int(kept.sum())} labels are of {'one class: ' + used.classes[0] if used.classes else 'no class'}; "
            "a probe needs two classes to tell apart"
        )
    build.count(labels=total, used=int(kept.sum()), classes=len(labels.classes))
    return used


def restrict(labels: Labels, rows: np.ndarray) -> Labels:
    """Some rows of labels; the classes stay those of all."""
    return replace(
        labels,
        cutout_id=labels.cutout_id[rows],
        targets=labels.targets[rows],
        split=labels.split[rows],
        fold=None if labels.fold is None else labels.fold[rows],
        group=labels.group[rows],
    )


def check_related(features: Artifact, labels: Labels) -> None:
    """Refuse features of another index, whose ids mean other cutouts.

    Raises
    ------
    InputError
        The cutouts of the features and those of the labels have no common origin.
    """
    own = cutouts_of(features)
    if own.id != labels.cutouts.id and not (_origins(own) & _origins(labels.cutouts)):
        raise InputError(
            f"features {features.id} are of cutouts {own.id}, the labels of cutouts {labels.cutouts.id}, which have no "
            f"common origin; extract the features of cutouts {labels.cutouts.id}"
        )


def _origins(cutouts: Artifact) -> set[str]:
    """Ids of an index and of all indexes that it was made from, as far as they are in the store."""
    found, waiting = set(), [cutouts]
    while waiting:
        artifact = waiting.pop()
        if artifact.kind != "cutouts" or artifact.id in found:
            continue
        found.add(artifact.id)
        try:
            waiting += artifact.inputs.values()
        except StoreError:
            continue  # removed from the store; its ids are then known from the other side, or not at all
    return found


def feature_ids(features: Artifact) -> np.ndarray:
    """Cutout ids of features, int64 (N,)."""
    with h5py.File(features.file("features.h5")) as file:
        return file["cutout_id"][:]


def read_features(features: Artifact, ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Features of some cutouts, read in blocks so that the file may exceed the memory.

    Parameters
    ----------
    features
        Artifact of kind ``features``.
    ids
        int64 (N,), its cutout ids.
    wanted
        int64 (M,), cutouts whose features are read, each once.

    Returns
    -------
    ndarray
        float32 (M, D).

    Raises
    ------
    InputError
        A feature is not finite.
    """
    order = np.argsort(ids, kind="stable")
    rows = order[np.searchsorted(ids, wanted, sorter=order)]
    with h5py.File(features.file("features.h5")) as file:
        source = file["features"]
        found = np.empty((len(rows), source.shape[1]), dtype=np.float32)
        for start in range(0, len(ids), BLOCK_ROWS):
            here = np.flatnonzero((rows >= start) & (rows < start + BLOCK_ROWS))
            if len(here):
                first, last = int(rows[here].min()), int(rows[here].max())
                found[here] = source[first : last + 1][rows[here] - first]
    if bad := int((~np.isfinite(found).all(1)).sum()):
        example = wanted[~np.isfinite(found).all(1)][:5].tolist()
        raise InputError(
            f"{features.path / 'features.h5'}: {bad} of {len(wanted)} labelled cutouts have features that are not "
            f"finite (cutout ids {example}); extract the features again"
        )
    return found
