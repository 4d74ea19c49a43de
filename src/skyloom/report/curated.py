"""Opens a selection together with the clusters, features and cutouts that it was made from."""

from dataclasses import dataclass

import numpy as np

from skyloom.cluster.files import feature_rows, read_levels
from skyloom.cluster.sampling import image_assignment
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.errors import InputError, StoreError
from skyloom.store import Artifact

BLOCK_ROWS = 65_536  # rows of features read at once: 134 MB at 512 dimensions


@dataclass(frozen=True)
class Curated:
    """A selection and its lineage, opened.

    Attributes
    ----------
    selection, clusters, features, cutouts : Artifact
        The chain, from the end to the start.
    index : CutoutIndex
        The cutouts' table and pixels.
    rows : ndarray
        int64, shape (N,): row of each clustered cutout in ``index``.
    in_features : ndarray
        int64, shape (N,), ascending: row of each in the features.
    selected : ndarray
        int64, shape (n,): positions of the selected cutouts among the N; repeats where one was taken twice.
    assignments : list of ndarray
        Per level, (N,): cluster of each clustered cutout.
    clusters_per_level : list of int
        Per level, the number of clusters, empty ones included.
    """

    selection: Artifact
    clusters: Artifact
    features: Artifact
    cutouts: Artifact
    index: CutoutIndex
    rows: np.ndarray
    in_features: np.ndarray
    selected: np.ndarray
    assignments: list[np.ndarray]
    clusters_per_level: list[int]

    def column(self, name: str) -> np.ndarray:
        """A column of the cutout index for the N clustered cutouts; null becomes NaN."""
        return self.index.table[name].cast(float).fill_null(np.nan).to_numpy()[self.rows]

    def read_features(self, positions: np.ndarray) -> np.ndarray:
        """Features of some of the N cutouts, read in blocks so that the file may exceed the memory.

        Parameters
        ----------
        positions
            int64, shape (M,), in any order.

        Returns
        -------
        ndarray
            float32, shape (M, D).
        """
        import h5py

        wanted, back = np.unique(self.in_features[positions], return_inverse=True)
        with h5py.File(self.features.file("features.h5")) as file:
            source = file["features"]
            found = np.empty((len(wanted), source.shape[1]), dtype=np.float32)
            start = 0
            while start < len(wanted):
                first = int(wanted[start])
                stop = int(np.searchsorted(wanted, first + BLOCK_ROWS))
                block = source[first : int(wanted[stop - 1]) + 1]
                found[start:stop] = block[wanted[start:stop] - first]
                start = stop
        return found[back]


def open_curated(selection: Artifact, *, image_roots: str | None = None) -> Curated:
    """Follow the lineage of a selection and check that its parts fit together.

    Parameters
    ----------
    selection
        Artifact of kind ``selection``.
    image_roots
        Folders in which images are looked for that have moved since they were indexed.

    Raises
    ------
    InputError
        The tables of two artifacts of the chain do not fit together.
    StoreError
        A part of the chain is not in the store.
    """
    clusters = _input(selection, "clusters")
    features = _input(clusters, "features")
    cutouts = _input(features, "cutouts")
    index = CutoutIndex(cutouts, image_roots=image_roots)
    ids = np.load(clusters.file("cutout_id.npy"))
    _check_features(features, clusters, ids)
    table = selection.table("selection.parquet")
    in_features = feature_rows(clusters)
    wanted = table["row"].to_numpy()
    number = len(ids)
    selected = np.searchsorted(in_features, wanted)
    if len(wanted) == 0 or not np.isin(wanted, in_features).all():
        raise InputError(f"selection {selection.id} is empty or has rows outside the {number} rows of {clusters.id}")
    if not np.array_equal(ids[selected], table["cutout_id"].to_numpy()):
        raise InputError(f"selection {selection.id} has other cutout ids than clusters {clusters.id}; make it again")
    levels = read_levels(clusters)
    return Curated(
        selection,
        clusters,
        features,
        cutouts,
        index,
        rows=index.rows_of(ids),
        in_features=in_features,
        selected=selected.astype(np.int64),
        assignments=[np.asarray(image_assignment(levels, number)) for number in range(1, len(levels) + 1)],
        clusters_per_level=[len(level.centroids) for level in levels],
    )


def _input(artifact: Artifact, role: str) -> Artifact:
    found = artifact.inputs.get(role)
    if found is None:
        raise StoreError(f"{artifact.kind} {artifact.id} was not made from {role}, so the report cannot be drawn")
    return found


def _check_features(features: Artifact, clusters: Artifact, ids: np.ndarray) -> None:
    import h5py

    path = features.file("features.h5")
    with h5py.File(path) as file:
        own = file["cutout_id"][:]
    rows = feature_rows(clusters)
    if "row.npy" in clusters.manifest["files"] and rows[-1] < len(own):
        own = own[rows]
    if not np.array_equal(own, ids):
        raise InputError(f"{path} has {len(own)} rows, not the {len(ids)} of clusters {clusters.id}; cluster it again")
