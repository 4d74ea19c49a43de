"""Writes a tiny chain images -> cutouts -> features -> clusters -> selection -> model in the true layout of a store."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl

from skyloom.store import Artifact, Build, Store, builds, fingerprint, of_kind
from skyloom.trainer.train import Data, open_data

SIZE_PX = 16
PER_ROW = 10  # cutouts side by side in the one image


@builds("images", version=1)
def fake_images(build: Build, *, cutouts: int, seed: int) -> None:
    """One .npy mosaic of windows: noise, and in every second window a round source of growing brightness."""
    rng = np.random.default_rng(seed)
    rows = -(-cutouts // PER_ROW)
    image = rng.normal(0, 1, (rows * SIZE_PX, PER_ROW * SIZE_PX)).astype(np.float32)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] - SIZE_PX / 2
    for i in range(0, cutouts, 2):
        row, col = divmod(i, PER_ROW)
        window = image[row * SIZE_PX :, col * SIZE_PX :][:SIZE_PX, :SIZE_PX]
        window += (10 + i) * np.exp(-(x**2 + y**2) / 4)
    image[:2, :2] = np.nan
    with build.write("mosaic.npy") as path, path.open("wb") as file:
        np.save(file, image)


@builds("cutouts", version=1, inputs={"images": of_kind("images")})
def fake_cutouts(build: Build, *, images: Artifact, cutouts: int, sky: bool, spread_deg: float) -> None:
    """The windows of the mosaic; with ``sky`` they lie around RA 0 h, on both sides of it."""
    n = np.arange(cutouts)
    ra = (n % PER_ROW - PER_ROW / 2) * spread_deg / PER_ROW % 360
    dec = 45 + n // PER_ROW * spread_deg / PER_ROW
    table = pl.DataFrame(
        {
            "cutout_id": 1000 + n * 7,
            "survey": ["fake"] * cutouts,
            "image": ["mosaic"] * cutouts,
            "row0": n // PER_ROW * SIZE_PX,
            "col0": n % PER_ROW * SIZE_PX,
            "size_px": np.full(cutouts, SIZE_PX),
            "ra_deg": ra if sky else None,
            "dec_deg": dec if sky else None,
            "nan_frac": np.zeros(cutouts),
            "rms": np.ones(cutouts),
            "peak": 1.0 + n,
            "peak_snr": 1.0 + n,
            "healpix": None,
            "source": [images.id] * cutouts,
        },
        schema={
            "cutout_id": pl.Int64, "survey": pl.String, "image": pl.String, "row0": pl.Int32, "col0": pl.Int32,
            "size_px": pl.Int32, "ra_deg": pl.Float64, "dec_deg": pl.Float64, "nan_frac": pl.Float32,
            "rms": pl.Float32, "peak": pl.Float32, "peak_snr": pl.Float32, "healpix": pl.Int64, "source": pl.String,
        },
    )  # fmt: skip
    facts = {"image": "mosaic", "artifact": images.id, "path": "mosaic.npy",
             "fingerprint": fingerprint(images.file("mosaic.npy"))}  # fmt: skip
    for name, frame in (("cutouts", table), ("images", pl.DataFrame([facts]))):
        with build.write(f"{name}.parquet") as path:
            frame.write_parquet(path)
    build.table = "cutouts.parquet"
    build.count(read=cutouts + 3, kept=cutouts)
    build.drop("blank window", 3, why="too many blank pixels")


@builds("features", version=1, inputs={"cutouts": of_kind("cutouts")})
def fake_features(build: Build, *, cutouts: Artifact, dimensions: int, seed: int) -> None:
    """Random features that vary most along the first dimension."""
    ids = cutouts.table()["cutout_id"].to_numpy()
    values = np.random.default_rng(seed).normal(size=(len(ids), dimensions)) / np.arange(1, dimensions + 1)
    with build.write("features.h5") as path, h5py.File(path, "w") as file:
        file["features"] = values.astype(np.float32)
        file["cutout_id"] = ids


@builds("clusters", version=1, inputs={"features": of_kind("features")})
def fake_clusters(build: Build, *, features: Artifact, assignments: list[list[int]], clusters: list[int]) -> None:
    """Levels with the given assignments, from the bottom up."""
    with h5py.File(features.file("features.h5")) as file:
        ids, dimensions = file["cutout_id"][:], file["features"].shape[1]
    for level, (assignment, number) in enumerate(zip(assignments, clusters, strict=True), start=1):
        own = np.array(assignment, dtype=np.int32)
        arrays = {
            "assignment": own,
            "centroids": np.zeros((number, dimensions), np.float32),
            "indptr": np.concatenate([[0], np.cumsum(np.bincount(own, minlength=number))]).astype(np.int64),
            "indices": np.argsort(own, kind="stable").astype(np.int64),
            "distance": np.zeros(len(own), np.float32),
        }
        with build.write(f"level{level}") as folder:
            folder.mkdir()
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array)
    with build.write("cutout_id.npy") as path, path.open("wb") as file:
        np.save(file, ids)
    build.note(levels=clusters, metric="l2")


@builds("selection", version=1, inputs={"clusters": of_kind("clusters")})
def fake_selection(build: Build, *, clusters: Artifact, rows: list[int]) -> None:
    """The given rows."""
    ids = np.load(clusters.file("cutout_id.npy"))
    with build.write("selection.parquet") as path:
        pl.DataFrame({"cutout_id": ids[rows], "row": rows}).write_parquet(path)
    build.table = "selection.parquet"
    build.count(kept=len(rows))


@builds("model", version=1, inputs={"data": open_data})
def fake_model(build: Build, *, data: Data, metrics: str | None, task: dict[str, Any]) -> None:
    """A model that is nothing but its ``metrics.csv``, or not even that; its inputs are recorded as train.py does."""
    if metrics is not None:
        with build.write("metrics.csv") as path:
            path.write_text(metrics)


def write_selection(
    root: Path | Store,
    *,
    cutouts: int = 20,
    assignments: list[list[int]] | None = None,
    clusters: list[int] | None = None,
    rows: list[int] | None = None,
    sky: bool = True,
    spread_deg: float = 4.0,
    dimensions: int = 4,
) -> Artifact:
    """A selection with all it was made from, in the store ``root``.

    Unless told otherwise: 20 cutouts, the first 14 in cluster 0, then 3 and 3 in clusters 1 and 2, none in cluster 3;
    above them clusters 0 and 1 in one, 2 and 3 in the other; two images of each of the three taken.
    """
    images = fake_images(cutouts=cutouts, seed=1, store=root)
    index = fake_cutouts(images=images, cutouts=cutouts, sky=sky, spread_deg=spread_deg, store=root)
    features = fake_features(cutouts=index, dimensions=dimensions, seed=2, store=root)
    levels = fake_clusters(
        features=features,
        assignments=assignments or [[0] * 14 + [1] * 3 + [2] * 3, [0, 0, 1, 1]],
        clusters=clusters or [4, 2],
        store=root,
    )
    return fake_selection(clusters=levels, rows=rows or [0, 5, 14, 15, 17, 19], store=root)
