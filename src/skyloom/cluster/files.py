"""The files of a ``clusters`` artifact: plain arrays, memory-mapped when read."""

import os
from pathlib import Path

import numpy as np

from skyloom.cluster.kmeans import LloydState
from skyloom.cluster.levels import LevelResult, LevelState
from skyloom.store import Artifact

ARRAYS = ("centroids", "assignment", "indptr", "indices", "distance")


def write_level(folder: Path, result: LevelResult) -> None:
    """Write one level into a new folder."""
    folder.mkdir()
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(result, name))


def read_level(folder: Path) -> LevelResult:
    """Read one level from its folder."""
    return LevelResult(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS})


def read_levels(clusters: Artifact) -> list[LevelResult]:
    """Read all levels of a ``clusters`` artifact, from the bottom up."""
    number = len(clusters.notes["levels"])
    return [read_level(clusters.file(f"level{level}")) for level in range(1, number + 1)]


def feature_rows(clusters: Artifact) -> np.ndarray:
    """Row of each clustered item in the features, (N,) int64 ascending; a selection may have left some out."""
    if "row.npy" in clusters.manifest["files"]:
        return np.load(clusters.file("row.npy"))
    return np.arange(len(np.load(clusters.file("cutout_id.npy"), mmap_mode="r")))


def write_state(path: Path, state: LevelState) -> None:
    """Replace the file in which an unfinished level is kept."""
    lloyd = state.lloyd
    last = np.empty((0, 0), np.float32) if state.last is None else state.last
    temporary = path.with_name(f".tmp-{path.name}")
    with temporary.open("wb") as file:
        np.savez(file, place=np.array([state.level, state.step, lloyd.moved]), previous=np.float64(lloyd.previous),
                 centroids=lloyd.centroids, last=last)  # fmt: skip
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_state(path: Path) -> LevelState | None:
    """Read what :func:`write_state` has written; None when there is nothing."""
    if not path.exists():
        return None
    with np.load(path) as kept:
        level, step, moved = (int(value) for value in kept["place"])
        last = kept["last"] if kept["last"].size else None
        return LevelState(level, step, last, LloydState(kept["centroids"], moved, float(kept["previous"])))
