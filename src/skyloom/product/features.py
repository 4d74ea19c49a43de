"""product=features: one feature vector per cutout, streamed to HDF5 in resumable pieces."""

import json
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import polars as pl
import torch
from pydantic import NonNegativeInt, PositiveInt

from skyloom.backbone.spec import BackboneSpec, Weights, open_weights
from skyloom.errors import InputError
from skyloom.product.extraction import FAILED, ROWS, VALUES, Extraction, Extractor, device_of, make_piece
from skyloom.progress import progress, say
from skyloom.store import Artifact, Build, builds, of_kind

CHUNK_ROWS = 1024  # rows of an HDF5 chunk: 1.5 MB at 384 dimensions
DROPPED = {"cutout_id": pl.Int64, "image": pl.String, "error": pl.String}


@builds(
    "features",
    version=1,
    inputs={"cutouts": of_kind("cutouts"), "selection": of_kind("selection"), "weights": open_weights},
    free=("shard_rows", "batch_size", "device", "devices", "image_roots"),
    pieces=True,
)
def features(
    build: Build,
    *,
    cutouts: Artifact,
    selection: Artifact | None,
    weights: Weights,
    backbone: BackboneSpec,
    layer: str,
    preprocess: dict[str, Any],
    precision: Literal["fp32", "bf16", "fp16"],
    on_error: Literal["stop", "skip"],
    shard_rows: PositiveInt,
    seed: NonNegativeInt,
    batch_size: PositiveInt,
    device: str,
    devices: PositiveInt,
    image_roots: str | None,
) -> None:
    """Run a backbone over cutouts.

    Writes ``features.h5`` with ``features`` float32 (N, D) and ``cutout_id`` int64 (N,), in the order of the index,
    and the digests of backbone and preprocessing as attributes. Pieces of ``shard_rows`` rows survive a killed run.
    Memory does not grow with N but for the index.

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
    layer
        Which layer is read; see :class:`skyloom.backbone.LayerReader`.
    preprocess
        Options of :class:`skyloom.transform.Preprocess`.
    precision
        Arithmetic of the forward pass; features are stored as float32.
    on_error
        ``stop`` at an image that cannot be read; ``skip`` leaves its cutouts out, counts them and lists them in
        ``dropped.parquet``.
    shard_rows
        Rows per resumable piece; results differ by rounding only, as with ``batch_size``.
    seed
        Start of random weights, when ``weights`` is null.
    batch_size
        Cutouts per forward pass; results differ by rounding only.
    device
        ``auto`` (a GPU when there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    devices
        Number of processes, each with a GPU of its own (or a share of the CPU) and with its own pieces.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    InputError
        An image cannot be read or has changed, or a feature is not finite; the message names it.
    """
    devices = build.processes(devices)  # 0: jobs elsewhere, each with a device of its own
    one = device_of(device, devices) if devices else torch.device("cpu")
    extraction = Extraction(
        key=build.request.id,
        cutouts=cutouts,
        selection=selection,
        weights=weights,
        backbone=backbone,
        preprocess=preprocess,
        layer=layer,
        precision=precision,
        seed=seed,
        skip=on_error == "skip",
        batch_size=batch_size,
        device=device,
        devices=max(1, devices),
        threads=max(1, torch.get_num_threads() // devices) if devices else 0,
        image_roots=image_roots,
    )
    extractor = Extractor(extraction, one if devices == 1 else torch.device("cpu"))
    network, prepare, total = extractor.network, extractor.prepare, len(extractor.rows)
    if weights.source is None:
        say(
            f"features: the weights of {backbone.model} are random (seed {seed}); give trained ones with "
            "backbone.weights=ID"
        )
    spans = spans_of([piece.name for piece in build.shards()], total, shard_rows)
    tasks = {f"{start:012d}-{stop:012d}": (extraction, start, stop) for start, stop in spans}
    with progress(total, "features", "cutouts") as bar:
        if devices != 1:
            build.shards_in_parallel(tasks, make_piece, workers=devices, done=lambda: bar.advance(shard_rows),
                                     describe=lambda task: f"rows {task[1]} to {task[2]}")  # fmt: skip
        else:
            for key, (_, start, stop) in tasks.items():

                def make(path: Path, start: int = start, stop: int = stop) -> None:
                    extractor.write(path, start, stop, bar.advance)

                if build.done(key):
                    bar.advance(stop - start)
                build.shard(key, make)
    attributes = {
        "backbone_digest": network.digest(),
        "preprocess_digest": prepare.digest,
        "layer": layer,
    }
    kept = _join(build, extractor, attributes)
    if on_error == "skip":
        _list_failed(build, extractor)
    build.count(read=len(extractor.index), kept=kept)
    build.drop("not in the selection", len(extractor.index) - total, why="selection restricts the cutouts")
    build.note(
        dimensions=extractor.reader.num_features,
        backbone=backbone.model,
        backbone_digest=attributes["backbone_digest"],
        layer=layer,
        preprocess=prepare.config,
        preprocess_digest=prepare.digest,
    )


def spans_of(finished: list[str], total: int, shard_rows: int) -> list[tuple[int, int]]:
    """First row and end of each piece: those an interrupted run has finished, the gaps between in ``shard_rows``.

    Parameters
    ----------
    finished
        Keys of pieces, first row and end with a dash between; whatever ``shard_rows`` they were made with.
    total
        Rows in all.
    shard_rows
        Most rows of a piece that is still to be made.
    """
    whole = sorted((int(start), int(stop)) for start, _, stop in (key.partition("-") for key in finished))
    spans, at = [], 0
    for start, stop in [*whole, (total, total)]:
        spans += [(first, min(first + shard_rows, start)) for first in range(at, start, shard_rows)]
        spans += [(start, stop)] if stop > start else []
        at = stop
    return spans


def _join(build: Build, extractor: Extractor, attributes: dict[str, str]) -> int:
    """Stream the pieces into one file; returns the number of rows."""
    pieces = build.shards()
    total = sum(len(np.load(piece / ROWS, mmap_mode="r")) for piece in pieces)
    if total == 0:
        raise InputError(
            f"not one of {len(extractor.rows)} cutouts of {extractor.index.artifact.id} could be read; "
            "on_error=stop says why at the first"
        )
    dimensions = extractor.reader.num_features
    with build.write("features.h5") as path, h5py.File(path, "w") as file:
        chunks = (min(CHUNK_ROWS, total), dimensions)
        table = file.create_dataset("features", (total, dimensions), dtype="f4", chunks=chunks)
        ids = file.create_dataset("cutout_id", (total,), dtype="i8")
        file.attrs.update(attributes)
        start = 0
        for piece in pieces:
            values, rows = np.load(piece / VALUES), np.load(piece / ROWS)
            table[start : start + len(values)] = values
            ids[start : start + len(values)] = extractor.index.cutout_id[rows]
            start += len(values)
    return total


def _list_failed(build: Build, extractor: Extractor) -> None:
    """List the cutouts that could not be read."""
    told = [entry for piece in build.shards() if (piece / FAILED).exists()
            for entry in json.loads((piece / FAILED).read_text())]  # fmt: skip
    rows = np.array([entry["row"] for entry in told], dtype=np.int64)
    table = pl.DataFrame(
        {
            "cutout_id": extractor.index.cutout_id[rows],
            "image": extractor.index.table["image"].gather(rows),
            "error": [entry["error"] for entry in told],
        },
        schema=DROPPED,
    )
    with build.write("dropped.parquet") as path:
        table.write_parquet(path)
    reasons = table.group_by("error", maintain_order=True).len()
    examples = [f"{number} cutouts: {error}" for error, number in reasons.iter_rows()]
    build.drop("unreadable", len(table), why="their images could not be read; all are listed in dropped.parquet",
               examples=examples)  # fmt: skip
