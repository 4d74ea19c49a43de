"""Labels of cutouts: classes, official splits and folds, and the groups that no fold may tear apart."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.store import Artifact

FILE = "labels.parquet"
COLUMNS = {
    "cutout_id": pl.Int64,
    "label": pl.List(pl.String),
    "split": pl.String,
    "fold": pl.Int64,
    "group": pl.Int64,
}
SPLITS = ("train", "val", "test")
NO_FOLD = -1


@dataclass(frozen=True)
class Labels:
    """Labels of N cutouts, in the order of ``labels.parquet``.

    Attributes
    ----------
    cutout_id : ndarray
        int64 (N,), each once.
    classes : list of str
        C names, sorted.
    targets : ndarray
        bool (N, C): which classes a cutout has; a row may be all False where ``multi_label`` is True.
    multi_label : bool
        Whether a cutout may have none or several classes.
    split : ndarray
        object (N,): ``train``, ``val``, ``test`` or None.
    fold : ndarray or None
        int64 (N,), the folds that came with the labels, -1 where there is none; None when there are none at all.
    group : ndarray
        int64 (N,): sky cell, or object; cutouts of equal group belong into one fold.
    cutouts : Artifact
        Where the pixels are.
    """

    cutout_id: np.ndarray
    classes: list[str]
    targets: np.ndarray
    multi_label: bool
    split: np.ndarray
    fold: np.ndarray | None
    group: np.ndarray
    cutouts: Artifact

    def __len__(self) -> int:
        return len(self.cutout_id)

    @property
    def label(self) -> np.ndarray:
        """Number of the class of each cutout, int64 (N,).

        Raises
        ------
        InputError
            The labels are multi-label, so that there is no such number.
        """
        if self.multi_label:
            raise InputError("these labels are multi-label: a cutout has no single class; use targets (N, C)")
        return self.targets.argmax(axis=1)


def open_labels(artifact: Artifact) -> Labels:
    """Read the labels of an artifact.

    Parameters
    ----------
    artifact
        Of kind ``labels``, or of kind ``cutouts`` made by ``step=labelled``.

    Raises
    ------
    InputError
        It holds no labels, or a table that is damaged or not of this layout.
    """
    if artifact.kind not in ("labels", "cutouts") or FILE not in artifact.manifest["files"]:
        raise InputError(
            f"{artifact.kind} {artifact.id} hold no labels; expected cutouts made by step=labelled, or labels by "
            "step=labelled format=table"
        )
    path = artifact.file(FILE)
    try:
        table = pl.read_parquet(path).select(list(COLUMNS)).cast(COLUMNS)  # type: ignore[arg-type]
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)} ({reason}); make it again") from error
    nulls = sum(table[name].null_count() for name in ("cutout_id", "label", "group"))
    if table.is_empty() or table["cutout_id"].n_unique() != len(table) or nulls:
        raise InputError(f"{path}: expected at least one row, each cutout once, with labels and group; make it again")
    cutouts = artifact if artifact.kind == "cutouts" else artifact.inputs["cutouts"]
    classes = table["label"].explode().drop_nulls().unique().sort().to_list()
    number = {name: i for i, name in enumerate(classes)}
    targets = np.zeros((len(table), len(classes)), dtype=bool)
    names = table["label"].to_list()
    for row, own in enumerate(names):
        targets[row, [number[name] for name in own]] = True
    fold = table["fold"].fill_null(NO_FOLD).to_numpy()
    return Labels(
        cutout_id=table["cutout_id"].to_numpy(),
        classes=classes,
        targets=targets,
        multi_label=bool(artifact.notes.get("multi_label")) or bool((targets.sum(axis=1) != 1).any()),
        split=np.array(table["split"].to_list(), dtype=object),
        fold=None if (fold == NO_FOLD).all() else fold,
        group=table["group"].to_numpy(),
        cutouts=cutouts,
    )


def label_subset(targets: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Choose a fraction of labelled items, of every class at least one.

    Parameters
    ----------
    targets
        bool (N, C).
    fraction
        Above 0, up to 1.
    rng
        The stream; from the same state, with one label each, a smaller fraction lies within a larger one.

    Returns
    -------
    ndarray
        int64, ascending: rows that are kept. Of each class round(fraction * members), or one; multi-label items count
        for all their classes, the rarest class choosing first.
    """
    order = rng.permutation(len(targets))
    members = targets.sum(0)
    kept = np.zeros(len(targets), dtype=bool)
    for c in np.argsort(members, kind="stable"):
        wanted = max(1, round(fraction * int(members[c]))) - int(targets[kept, c].sum())
        free = order[targets[order, c] & ~kept[order]]
        kept[free[: max(0, wanted)]] = True
    empty = order[~targets[order].any(1)]
    kept[empty[: round(fraction * len(empty))]] = True
    return np.flatnonzero(kept)
