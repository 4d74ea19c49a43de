"""product=features: one feature vector per cutout, streamed to HDF5 in resumable pieces."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt

from skyloom.backbone.spec import BackboneSpec, Weights, open_weights
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.errors import InputError
from skyloom.progress import Bar, progress
from skyloom.store import Artifact, Build, builds, of_kind
from skyloom.transform import Preprocess

CHUNK_ROWS = 1024  # rows of an HDF5 chunk: 1.5 MB at 384 dimensions


@builds(
    "features",
    version=1,
    inputs={"cutouts": of_kind("cutouts"), "selection": of_kind("selection"), "weights": open_weights},
    free=("batch_size", "device", "image_roots"),
)
def features(
    build: Build,
    *,
    cutouts: Artifact,
    selection: Artifact | None,
    weights: Weights,
    backbone: BackboneSpec,
    preprocess: dict[str, Any],
    precision: Literal["fp32", "bf16", "fp16"],
    shard_rows: PositiveInt,
    seed: NonNegativeInt,
    batch_size: PositiveInt,
    device: str,
    image_roots: str | None,
) -> None:
    """Run a backbone over cutouts.

    Writes ``features.h5`` with ``features`` float32 (N, D) and ``cutout_id`` int64 (N,), in the order of the index,
    and the digests of backbone and preprocessing as attributes. Pieces of ``shard_rows`` rows survive a killed run.

    Parameters
    ----------
    build
        Where to write.
    cutouts
        Artifact of kind ``cutouts``.
    selection
        Artifact of kind ``selection`` to extract only its cutouts; None takes all.
    weights
        Weights of the backbone.
    backbone
        The network.
    preprocess
        Options of :class:`skyloom.transform.Preprocess`.
    precision
        Arithmetic of the forward pass; features are stored as float32.
    shard_rows
        Rows per resumable piece.
    seed
        Start of random weights, when ``weights`` is null.
    batch_size
        Cutouts per forward pass; results differ by rounding only.
    device
        ``auto`` (a GPU when there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    InputError
        An image cannot be read or has changed, or a feature is not finite; the message names it.
    """
    index = CutoutIndex(cutouts, image_roots=image_roots)
    rows = selected_rows(index, selection)
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    network = weights.build(backbone, seed).eval().to(where)
    prepare = Preprocess(**preprocess).to(where)
    if weights.source is None:
        print(f"features: the weights of {backbone.model} are random (seed {seed}); "
              "give trained ones with backbone.weights=ID", flush=True, file=sys.stderr)  # fmt: skip
    starts = range(0, len(rows), shard_rows)
    with progress(len(rows), "features", "cutouts") as bar:
        for number, start in enumerate(starts):
            part = rows[start : start + shard_rows]

            def make(path: Path, part: np.ndarray = part) -> None:
                with path.open("wb") as file:
                    np.save(file, _extract(network, prepare, index, part, batch_size, precision, where, bar))

            if build.done(f"{number:06d}.npy"):
                bar.advance(len(part))
            build.shard(f"{number:06d}.npy", make)
    _join(build, index.cutout_id[rows], network.num_features, network.digest(), prepare.digest)
    build.count(read=len(index), kept=len(rows))
    build.drop("not in the selection", len(index) - len(rows), why="selection restricts the cutouts")
    build.note(
        dimensions=network.num_features,
        backbone=backbone.model,
        backbone_digest=network.digest(),
        preprocess=prepare.config,
        preprocess_digest=prepare.digest,
    )


def selected_rows(index: CutoutIndex, selection: Artifact | None) -> np.ndarray:
    """Rows of the index, all or those of a selection, each once and ascending."""
    if selection is None:
        return np.arange(len(index))
    return np.unique(index.rows_of(selection.table()["cutout_id"].to_numpy()))


def read_ahead(index: CutoutIndex, rows: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, pixels) batch by batch; the next batch is read while the caller works on this one."""
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(index.read, batches[0])
        for i, batch in enumerate(batches):
            pixels = waiting.result()
            if i + 1 < len(batches):
                waiting = reader.submit(index.read, batches[i + 1])
            yield batch, pixels


@torch.inference_mode()
def _extract(
    network: torch.nn.Module, prepare: Preprocess, index: CutoutIndex, rows: np.ndarray, batch_size: int,
    precision: str, device: torch.device, bar: Bar,
) -> np.ndarray:  # fmt: skip
    """Features of some rows, (M, D) float32, every one finite."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    found = []
    for batch, pixels in read_ahead(index, rows, batch_size):
        raw = torch.from_numpy(pixels).unsqueeze(1).to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            values = network(prepare(raw)).float().cpu().numpy()
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            ids = index.cutout_id[batch[~finite]][:5].tolist()
            raise InputError(
                f"{(~finite).sum()} features are not finite (cutout ids {ids} …); check these cutouts with "
                "'skyloom show', or try precision=fp32"
            )
        found.append(values)
        bar.advance(len(batch))
    return np.concatenate(found)


def _join(build: Build, cutout_id: np.ndarray, dimensions: int, backbone_digest: str, preprocess_digest: str) -> None:
    """Stream the pieces into one file."""
    total = len(cutout_id)
    with build.write("features.h5") as path, h5py.File(path, "w") as file:
        chunks = (min(CHUNK_ROWS, total), dimensions)
        table = file.create_dataset("features", (total, dimensions), dtype="f4", chunks=chunks)
        file.create_dataset("cutout_id", data=cutout_id)
        file.attrs["backbone_digest"] = backbone_digest
        file.attrs["preprocess_digest"] = preprocess_digest
        start = 0
        for piece in build.shards():
            values = np.load(piece, mmap_mode="r")
            table[start : start + len(values)] = values
            start += len(values)
        if start != total:
            raise RuntimeError(f"the pieces in {build.path} hold {start} rows, expected {total}")
