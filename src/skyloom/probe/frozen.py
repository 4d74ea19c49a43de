"""train.py task=probe task.method=knn|linear: classifiers on features that stay as they are."""

import numpy as np
import torch
from pydantic import NonNegativeInt

from skyloom.datamodule.labels import Labels, open_labels
from skyloom.errors import InputError
from skyloom.metric.classification import predicted_targets, scores_of
from skyloom.metric.knn import effective_k, knn_scores
from skyloom.probe.folds import grouped_folds
from skyloom.probe.linear import linear_scores
from skyloom.probe.measure import Answer, measure
from skyloom.probe.options import ProbeOptions
from skyloom.probe.pieces import Piece, make_plan
from skyloom.probe.source import (
    check_related,
    cutouts_of,
    feature_ids,
    features_input,
    labels_input,
    read_features,
    used_labels,
)
from skyloom.store import Artifact, Build, builds


@builds("probe", version=1, inputs={"features": features_input, "labels": labels_input})
def probe(build: Build, *, features: Artifact, labels: Artifact, task: ProbeOptions, seed: NonNegativeInt) -> None:
    """Measure how well labels can be told from features.

    Writes ``results.parquet`` (a row per fraction, seed and fold), ``predictions.parquet`` (a row per tested cutout in
    each), and ``numbers.json`` (means and spreads, per class, confusion). See :func:`skyloom.probe.measure.measure`.

    Parameters
    ----------
    build
        Where to write.
    features
        Artifact of kind ``features``.
    labels
        Artifact of kind ``labels``, or ``cutouts`` that carry labels.
    task
        Method and its options.
    seed
        Start of all random streams.

    Raises
    ------
    InputError
        No label matches a cutout of the features, all have one class, or a feature is not finite.
    """
    given = open_labels(labels)
    check_related(features, given)
    ids = feature_ids(features)
    used = used_labels(build, given, ids)
    plan = make_plan(used, task, seed)
    reader = Frozen(read_features(features, ids, used.cutout_id), used, task)
    build.note(
        backbone=features.notes.get("backbone"),
        backbone_digest=features.notes.get("backbone_digest"),
        layer=features.notes.get("layer"),
        preprocess_digest=features.notes.get("preprocess_digest"),
        weights=features.manifest["inputs"].get("weights"),
        features=features.id,
        cutouts=cutouts_of(features).id,
    )
    measure(build, reader.answer, used, labels.id, plan, task)


class Frozen:
    """Answers pieces from features.

    Parameters
    ----------
    features
        float32 (N, D), of the cutouts of the labels.
    labels
        Of N cutouts.
    options
        Of the probe.
    """

    def __init__(self, features: np.ndarray, labels: Labels, options: ProbeOptions) -> None:
        if len(features) != len(labels.cutout_id):
            raise InputError(f"{len(features)} features do not belong to {len(labels.cutout_id)} labels")
        self.features, self.labels, self.options = features, labels, options
        self.knn = options.method == "knn"

    @property
    def candidates(self) -> list[float]:
        """Values of k, or of the penalty, in the order of the configuration."""
        return [float(c) for c in (self.options.knn.k if self.knn else self.options.linear.l2)]

    def answer(self, piece: Piece) -> Answer:
        """Choose the candidate and score the test items of a piece."""
        chosen, how = self.choose(piece)
        scores = self.scores(piece.train, piece.test, chosen)
        return Answer(scores, effective_k(int(chosen), len(piece.train)) if self.knn else chosen, how)

    def choose(self, piece: Piece) -> tuple[float, str]:
        """Return the candidate that is best on validation items, and which those were; of equals the first."""
        if len(self.candidates) == 1:
            return self.candidates[0], "given"
        if len(piece.val):
            return self._best([(piece.train, piece.val)]), "val"
        train, folds = piece.train, self.options.inner_folds
        group, targets = self.labels.group[train], self.labels.targets[train]
        if len(np.unique(group)) < folds:
            return self.candidates[0], "too few to choose"
        inner = grouped_folds(targets, group, folds, piece.seed)
        return self._best([(train[inner != f], train[inner == f]) for f in range(folds)]), "inner folds"

    def scores(self, train: np.ndarray, queries: np.ndarray, candidate: float) -> np.ndarray:
        """Scores (M, C) of the rows ``queries``, learnt from the rows ``train``."""
        x, y, q, options = self.features[train], self.labels.targets[train], self.features[queries], self.options
        if self.knn:
            bank, votes, asked = (torch.from_numpy(a) for a in (x, y, q))
            return knn_scores(bank, votes, asked, int(candidate), options.knn.temperature).numpy()
        return linear_scores(
            x, y, q,
            l2=candidate,
            multi_label=self.labels.multi_label,
            balanced=options.linear.class_weight == "balanced",
            max_iterations=options.linear.max_iterations,
        )  # fmt: skip

    def _best(self, divisions: list[tuple[np.ndarray, np.ndarray]]) -> float:
        """The candidate with the best balanced accuracy (multi-label: macro-F1) over all held-out items together."""
        several = self.labels.multi_label
        truth = self.labels.targets[np.concatenate([held for _, held in divisions])]
        found = []
        for candidate in self.candidates:
            scores = np.concatenate([self.scores(rows, held, candidate) for rows, held in divisions])
            measured = scores_of(truth, predicted_targets(scores, several), multi_label=several)
            found.append(measured["macro_f1" if several else "balanced_accuracy"])
        return self.candidates[int(np.nanargmax(found))]
