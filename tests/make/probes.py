"""Labelled cutouts, features of them and probes, made directly in the true layout."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl

from make.curated import fake_images
from skyloom.store import Artifact, Build, builds, fingerprint, of_kind

SIZE_PX = 16

TASK: dict[str, Any] = {
    "name": "probe", "method": "linear", "split": "auto", "folds": 3, "inner_folds": 3, "fractions": [1.0], "seeds": 2,
    "knn": {"k": [5, 1], "temperature": 0.07},
    "linear": {"l2": [0.1, 0.01], "class_weight": "none", "max_iterations": 200},
    "finetune": {
        "epochs": 2, "min_steps": 0, "batch_size": 16, "learning_rate": 1e-3, "head_learning_rate": 1e-2,
        "weight_decay": 0.01, "warmup_fraction": 0.1, "class_weight": "none", "augment": False,
        "precision": "32-true", "accelerator": "cpu",
    },
}  # fmt: skip


def task(**changes: Any) -> dict[str, Any]:
    """Options of a probe; those of the methods are merged."""
    merged = {k: {**TASK[k], **v} if isinstance(v, dict) else v for k, v in changes.items()}
    return {**TASK, **merged}


@builds("cutouts", version=1, inputs={"images": of_kind("images")})
def labelled_cutouts(
    build: Build,
    *,
    images: Artifact,
    labels: list[list[str]],
    split: list[str | None] | None,
    fold: list[int | None] | None,
    group: list[int] | None,
    multi_label: bool,
) -> None:
    """Cutouts of a fake mosaic with labels inside; ids count from 500 in steps of 3."""
    number, n = len(labels), np.arange(len(labels))
    ids = 500 + 3 * n
    table = pl.DataFrame({
        "cutout_id": ids, "survey": ["fake"] * number, "image": ["mosaic"] * number,
        "row0": n // 10 * SIZE_PX, "col0": n % 10 * SIZE_PX, "size_px": np.full(number, SIZE_PX),
        "ra_deg": np.zeros(number), "dec_deg": np.zeros(number), "nan_frac": np.zeros(number),
        "rms": np.ones(number), "peak": np.ones(number), "peak_snr": np.ones(number),
        "healpix": np.zeros(number, int), "source": ["x"] * number,
    })  # fmt: skip
    named = pl.DataFrame(
        {"cutout_id": ids, "label": labels, "split": split or [None] * number, "fold": fold or [None] * number,
         "group": group or n.tolist()},
        schema={"cutout_id": pl.Int64, "label": pl.List(pl.String), "split": pl.String, "fold": pl.Int64,
                "group": pl.Int64},
    )  # fmt: skip
    facts = {"image": "mosaic", "artifact": images.id, "path": "mosaic.npy",
             "fingerprint": fingerprint(images.file("mosaic.npy"))}  # fmt: skip
    for name, frame in (("cutouts", table), ("labels", named), ("images", pl.DataFrame([facts]))):
        with build.write(f"{name}.parquet") as path:
            frame.write_parquet(path)
    build.table = "cutouts.parquet"
    build.note(multi_label=multi_label)


@builds("features", version=1, inputs={"cutouts": of_kind("cutouts")})
def made_features(
    build: Build, *, cutouts: Artifact, values: list[list[float | None]], backbone: dict[str, Any]
) -> None:
    """The given vectors, None for NaN."""
    with build.write("features.h5") as path, h5py.File(path, "w") as file:
        file["features"] = np.array(values, dtype=np.float32)
        file["cutout_id"] = cutouts.table("cutouts.parquet")["cutout_id"].to_numpy()[: len(values)]
    build.note(backbone=backbone.get("model"), dimensions=len(values[0]))


def make_labelled(store: Path, labels: list[Any], **options: Any) -> Artifact:
    """Labelled cutouts; a label is a name or a list of names."""
    images = fake_images(cutouts=max(10, len(labels)), seed=1, store=store)
    lists = [[label] if isinstance(label, str) else list(label) for label in labels]
    given = {"split": None, "fold": None, "group": None, "multi_label": False, **options}
    return labelled_cutouts(images=images, labels=lists, store=store, **given)


def make_features(store: Path, cutouts: Artifact, values: np.ndarray, **backbone: Any) -> Artifact:
    """Features of the first cutouts of an index."""
    rows = [[None if np.isnan(v) else float(v) for v in row] for row in np.asarray(values)]
    return made_features(cutouts=cutouts, values=rows, backbone=backbone, store=store)


def blobs(number: int, *, classes: int = 3, apart: float = 20.0, dimensions: int = 6, seed: int = 0) -> Any:
    """Labels ``c0`` ... and features around a centre per class."""
    rng = np.random.default_rng(seed)
    label = np.arange(number) % classes
    centre = np.random.default_rng(7).normal(size=(classes, dimensions))
    centre *= apart / np.linalg.norm(centre, axis=1, keepdims=True)
    return [f"c{i}" for i in label], centre[label] + rng.normal(size=(number, dimensions))
