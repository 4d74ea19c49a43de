"""The files of a ``clusters`` artifact: plain arrays, memory-mapped when read."""

from pathlib import Path

import numpy as np

from skyloom.cluster.hierarchy import LevelResult
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
