"""Writes features of given values for the windows of one or more images, in the true layout of a store."""

from pathlib import Path

import h5py
import numpy as np
import polars as pl

from make.curated import SIZE_PX
from skyloom.store import Artifact, Build, builds, fingerprint, of_kind


@builds("images", version=1)
def grid_images(build: Build, *, images: int, side: int, seed: int) -> None:
    """Mosaics of noise, ``side`` windows wide and high."""
    rng = np.random.default_rng(seed)
    for number in range(images):
        with build.write(f"m{number}.npy") as path, path.open("wb") as file:
            np.save(file, rng.normal(0, 1, (side * SIZE_PX, side * SIZE_PX)).astype(np.float32))


@builds("cutouts", version=1, inputs={"images": of_kind("images")})
def grid_cutouts(build: Build, *, images: Artifact, side: int, stride: int) -> None:
    """Windows of every image at the given stride, row by row."""
    starts = np.arange(0, (side - 1) * SIZE_PX + 1, stride)
    row0, col0 = (axis.ravel() for axis in np.meshgrid(starts, starts, indexing="ij"))
    names = sorted(name.removesuffix(".npy") for name in images.manifest["files"])
    n = len(row0) * len(names)
    table = pl.DataFrame(
        {
            "cutout_id": 1000 + 7 * np.arange(n),
            "survey": ["fake"] * n,
            "image": np.repeat(names, len(row0)),
            "row0": np.tile(row0, len(names)),
            "col0": np.tile(col0, len(names)),
            "size_px": np.full(n, SIZE_PX),
            "ra_deg": [None] * n,
            "dec_deg": [None] * n,
            "nan_frac": np.zeros(n),
            "rms": np.ones(n),
            "peak": np.ones(n),
            "peak_snr": 1.0 + np.arange(n),
            "healpix": [None] * n,
            "source": [images.id] * n,
        },
        schema_overrides={"row0": pl.Int32, "col0": pl.Int32, "size_px": pl.Int32, "ra_deg": pl.Float64,
                          "dec_deg": pl.Float64, "peak_snr": pl.Float32, "healpix": pl.Int64},
    )  # fmt: skip
    facts = [{"image": name, "artifact": images.id, "path": f"{name}.npy",
              "fingerprint": fingerprint(images.file(f"{name}.npy"))} for name in names]  # fmt: skip
    for file, frame in (("cutouts", table), ("images", pl.DataFrame(facts))):
        with build.write(f"{file}.parquet") as path:
            frame.write_parquet(path)
    build.table = "cutouts.parquet"


@builds("features", version=1, inputs={"cutouts": of_kind("cutouts")})
def given_features(build: Build, *, cutouts: Artifact, values: list[list[float]], backbone: str) -> None:
    """The given values, a row per cutout."""
    with build.write("features.h5") as path, h5py.File(path, "w") as file:
        file["features"] = np.array(values, dtype=np.float32)
        file["cutout_id"] = cutouts.table()["cutout_id"].to_numpy()
        file.attrs.update(backbone_digest=backbone, preprocess_digest="p", layer="pooled")


@builds("selection", version=1, inputs={"features": of_kind("features")})
def chosen_rows(build: Build, *, features: Artifact, rows: list[int]) -> None:
    """The given rows."""
    with h5py.File(features.file("features.h5")) as file:
        ids = file["cutout_id"][:]
    with build.write("selection.parquet") as path:
        pl.DataFrame({"cutout_id": ids[rows], "row": rows}).write_parquet(path)
    build.table = "selection.parquet"


def windows(root: Path, *, images: int = 2, side: int = 6, stride: int = SIZE_PX, seed: int = 0) -> Artifact:
    """Cutouts of ``images`` mosaics in the store ``root``."""
    made = grid_images(images=images, side=side, seed=seed, store=root)
    return grid_cutouts(images=made, side=side, stride=stride, store=root)


def features_of(cutouts: Artifact, values: np.ndarray, *, backbone: str = "b") -> Artifact:
    """Features (N, D) of all cutouts, in the store of these."""
    rows = np.float32(values).astype(float).tolist()
    return given_features(cutouts=cutouts, values=rows, backbone=backbone, store=cutouts.path.parents[1])


@builds("labels", version=1, inputs={"cutouts": of_kind("cutouts")})
def given_labels(build: Build, *, cutouts: Artifact, labels: list[list[str]]) -> None:
    """The given labels of the first cutouts."""
    ids = cutouts.table()["cutout_id"].head(len(labels))
    empty = [None] * len(labels)
    frame = pl.DataFrame(
        {"cutout_id": ids, "label": labels, "split": empty, "fold": empty, "group": list(range(len(labels)))},
        schema_overrides={"split": pl.String, "fold": pl.Int64, "label": pl.List(pl.String)},
    )
    with build.write("labels.parquet") as path:
        frame.write_parquet(path)
