"""Opens features, or those of a selection, together with the cutouts that they were made from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import polars as pl

from skyloom.cluster.rows import Rows
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.errors import InputError, StoreError
from skyloom.store import Artifact

MEMORY_BYTES = 10**9  # features whose float32 copy is below half of it are held in memory; others stay on disk
DIGESTS = ("backbone_digest", "preprocess_digest", "layer")


@dataclass(frozen=True)
class FeatureSet:
    """Features and their cutouts, opened.

    Attributes
    ----------
    artifact : Artifact
        Of kind ``features``.
    index : CutoutIndex
        The cutouts' table and pixels.
    cutout_id : ndarray
        int64, (N,): of the features, or of those that are selected.
    rows : ndarray
        int64, (N,): row of each in ``index``.
    x : Rows
        (N, D), in memory or on disk.
    digests : dict
        What made them: digests of backbone and preprocessing, and the layer; None where the file does not say.
    """

    artifact: Artifact
    index: CutoutIndex
    cutout_id: np.ndarray
    rows: np.ndarray
    x: Rows
    digests: dict[str, str | None]

    def __len__(self) -> int:
        return len(self.cutout_id)

    def column(self, name: str) -> np.ndarray:
        """A column of the index for the N cutouts; numbers as float64 with NaN for null, others as they are."""
        column = self.index.table[name]
        numeric = column.dtype.is_numeric() or column.dtype == pl.Boolean
        values = column.cast(float).fill_null(np.nan).to_numpy() if numeric else column.to_numpy()
        return values[self.rows]

    def positions_of(self, cutout_ids: np.ndarray) -> np.ndarray:
        """Positions of cutouts among the N.

        Raises
        ------
        InputError
            For an id that has no features here.
        """
        order = np.argsort(self.cutout_id, kind="stable")
        at = order[np.minimum(np.searchsorted(self.cutout_id, cutout_ids, sorter=order), len(order) - 1)]
        lost = cutout_ids[self.cutout_id[at] != cutout_ids]
        if len(lost):
            raise InputError(
                f"{len(lost)} of {len(cutout_ids)} cutout ids (first: {lost[0]}) have no features in "
                f"{self.artifact.id}; take ids of its cutouts {self.index.artifact.id}"
            )
        return at


@contextmanager
def open_features(
    features: Artifact, *, selection: Artifact | None = None, image_roots: str | None = None
) -> Iterator[FeatureSet]:
    """Open features; the file stays open inside the block.

    Parameters
    ----------
    features
        Artifact of kind ``features``.
    selection
        Only the cutouts of this selection, each once, in the order of the features; None takes all.
    image_roots
        Folders in which images are looked for that have moved since they were indexed.

    Yields
    ------
    FeatureSet

    Raises
    ------
    InputError
        Features and cutouts, or the selection, do not fit together.
    StoreError
        The cutouts are no longer in the store.
    """
    import h5py

    cutouts = features.inputs.get("cutouts")
    if cutouts is None:
        raise StoreError(f"features {features.id} were not made from cutouts, so there is nothing to show of them")
    index = CutoutIndex(cutouts, image_roots=image_roots)
    path = features.file("features.h5")
    with h5py.File(path) as file:
        table, ids = file["features"], file["cutout_id"][:]
        if len(ids) != len(table) or len(ids) == 0:
            raise InputError(f"{path} has {len(ids)} ids and {len(table)} rows of features; extract them again")
        digests = {name: _text(file.attrs.get(name)) for name in DIGESTS}
        x = Rows(table, memory_bytes=MEMORY_BYTES, check=False)  # the first pass, over the moments, checks every value
        if selection is not None:
            chosen = np.unique(selection.table("selection.parquet")["cutout_id"].to_numpy())
            positions = np.flatnonzero(np.isin(ids, chosen))
            if len(positions) != len(chosen):
                raise InputError(
                    f"{len(chosen) - len(positions)} of {len(chosen)} cutouts of selection {selection.id} have no "
                    f"features in {features.id}; take a selection made from these features"
                )
            ids, x = ids[positions], x.subset(positions)
        yield FeatureSet(features, index, ids, index.rows_of(ids), x, digests)


def _text(value: str | bytes | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
