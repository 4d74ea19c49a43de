"""Artifacts made directly, for tests of the steps that read them."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import polars as pl

from skyloom.store import Artifact, Build, builds


def changed_table(artifact: Artifact, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Artifact:
    """The same artifact with another table in place of one; its manifest tells the new size and the old digest."""
    path, manifest = artifact.path / name, artifact.path / "manifest.json"
    for file in (path, manifest):
        file.chmod(0o644)
    change(pl.read_parquet(path)).write_parquet(path)
    said = json.loads(manifest.read_text())
    said["files"][name]["size"] = path.stat().st_size
    manifest.write_text(json.dumps(said))
    return Artifact(artifact.path)


def features_artifact(store: Path, x: np.ndarray, cutout_id: np.ndarray | None = None) -> Artifact:
    """A ``features`` artifact that holds ``x`` (N, D); the ids count from 1000 unless given."""
    ids = np.arange(1000, 1000 + len(x)) if cutout_id is None else cutout_id

    @builds("features", version=1)
    def features(build: Build, *, digest: str) -> None:
        with build.write("features.h5") as path, h5py.File(path, "w") as file:
            file["features"] = x.astype("f4")
            file["cutout_id"] = ids.astype("i8")
        build.count(read=len(x), kept=len(x))
        build.note(dimensions=x.shape[1])

    return features(digest=f"{x.shape} {float(np.nansum(x))!r} {int(ids.sum())}", store=store)
