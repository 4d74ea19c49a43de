"""What a probe measures, piece by piece: which labels train, choose and test, for each fraction, seed and fold."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from skyloom.datamodule.labels import NO_FOLD, Labels, label_subset
from skyloom.errors import ConfigError, InputError
from skyloom.probe.folds import grouped_folds
from skyloom.probe.options import ProbeOptions


@dataclass(frozen=True)
class Piece:
    """One measurement; rows count in the labels that are used.

    Attributes
    ----------
    fraction : float
        Part of the training labels that is used.
    seed : int
        Of its random streams.
    fold : int or None
        Fold that tests; None with the official split.
    train, val, test : ndarray
        int64, rows; ``val`` is empty where the labels bring none.
    """

    fraction: float
    seed: int
    fold: int | None
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @property
    def key(self) -> str:
        """Name of the resumable piece."""
        fold = "official" if self.fold is None else f"fold{self.fold}"
        return f"fraction{self.fraction:.6f}-seed{self.seed}-{fold}"


@dataclass(frozen=True)
class Plan:
    """All pieces and the facts about them.

    Attributes
    ----------
    scheme : str
        ``official``, ``fixed folds`` (those of the labels) or ``drawn folds``.
    pieces : list of Piece
        In the order of fraction, seed and fold.
    unused : ndarray
        int64, rows of labels that belong to no part or fold.
    facts : dict
        What was noticed: groups that the official split tears apart, classes that cannot be in all folds.
    """

    scheme: str
    pieces: list[Piece]
    unused: np.ndarray
    facts: dict[str, Any]


def make_plan(labels: Labels, options: ProbeOptions, seed: int) -> Plan:
    """Divide labels as the options say.

    Whatever has no random part is measured once instead of once per seed, so that no spread of zero is reported.

    Raises
    ------
    ConfigError
        The official split was asked for and there is none.
    InputError
        A part of it is empty.
    """
    split = {part: np.flatnonzero(labels.split == part) for part in ("train", "val", "test")}
    official = len(split["train"]) > 0 and len(split["test"]) > 0
    if options.split == "official" and not official:
        have = ", ".join(f"{len(rows)} {part}" for part, rows in split.items())
        raise ConfigError(f"task.split=official: the labels have {have}; use task.split=folds")
    if options.split != "folds" and official:
        return _official(labels, split, options, seed)
    return _folds(labels, options, seed)


def _official(labels: Labels, split: dict[str, np.ndarray], options: ProbeOptions, seed: int) -> Plan:
    pieces = [
        Piece(f, s, None, _part(labels, split["train"], f, s), _part(labels, split["val"], f, s), split["test"])
        for f in sorted(options.fractions)
        for s in _seeds(options, seed, random=f < 1)
    ]
    unused = np.setdiff1d(np.arange(len(labels.cutout_id)), np.concatenate(list(split.values())))
    learnt = labels.group[np.concatenate([split["train"], split["val"]])]
    torn = len(np.intersect1d(learnt, labels.group[split["test"]]))
    return Plan("official", pieces, unused, {"groups_in_train_and_test": torn})


def _folds(labels: Labels, options: ProbeOptions, seed: int) -> Plan:
    fixed, pieces = labels.fold is not None, []
    for s in _seeds(options, seed, random=not fixed or min(options.fractions) < 1):
        fold = labels.fold if labels.fold is not None else grouped_folds(labels.targets, labels.group, options.folds, s)
        numbers = [int(f) for f in np.unique(fold) if f != NO_FOLD]
        if len(numbers) < 2:
            raise InputError(f"the labels bring {len(numbers)} fold; expected at least 2, or none at all")
        for fraction in sorted(options.fractions):
            if fixed and fraction == 1 and s != seed and options.method != "finetune":
                continue
            for number in numbers:
                train = np.flatnonzero((fold != number) & (fold != NO_FOLD))
                part = _part(labels, train, fraction, s)
                pieces.append(Piece(fraction, s, number, part, train[:0], np.flatnonzero(fold == number)))
    pieces.sort(key=lambda piece: piece.fraction)
    unused = np.flatnonzero(labels.fold == NO_FOLD) if labels.fold is not None else np.empty(0, np.int64)
    rare = [name for name, n in zip(labels.classes, labels.targets.sum(0), strict=True) if n < len(numbers)]
    scheme, facts = "fixed folds" if fixed else "drawn folds", {"classes_with_fewer_members_than_folds": rare}
    return Plan(scheme, pieces, unused, facts)


def _seeds(options: ProbeOptions, seed: int, random: bool) -> list[int]:
    return [seed + i for i in range(options.seeds if random or options.method == "finetune" else 1)]


def _part(labels: Labels, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A fraction of rows; the whole when it is 1."""
    if fraction == 1 or len(rows) == 0:
        return rows
    return rows[label_subset(labels.targets[rows], fraction, np.random.default_rng([seed, len(rows)]))]
