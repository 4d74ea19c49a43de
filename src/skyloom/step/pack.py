"""step=pack: the pixels of cutouts copied into one sharded Zarr array, for disks where small reads are slow."""

import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import Field, PositiveInt

from skyloom.datamodule.band_index import BandIndex, survey_facts
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.errors import InputError
from skyloom.progress import progress, say
from skyloom.step.pixel_array import Layout, join_shards, write_shard
from skyloom.store import Artifact, Build, builds, of_kind


@dataclass(frozen=True)
class _Piece:
    """What a process needs to write one shard."""

    cutouts: Path
    image_roots: str | None
    rows: np.ndarray
    start: int
    total: int
    layout: Layout

    def __str__(self) -> str:
        return f"rows {self.start} to {self.start + len(self.rows) - 1}"


@builds(
    "cutouts",
    version=1,
    inputs={"cutouts": of_kind("cutouts"), "selection": of_kind("selection")},
    free=("workers", "image_roots"),
    pieces=True,
)
def pack(
    build: Build,
    *,
    cutouts: Artifact,
    selection: Artifact | None,
    dtype: Literal["float32", "float16"],
    compression: Literal["blosc", "zstd", "none"],
    level: Annotated[int, Field(ge=1, le=9)],
    chunk_rows: PositiveInt,
    shard_rows: PositiveInt,
    workers: PositiveInt,
    image_roots: str | None,
) -> None:
    """Copy the pixels of cutouts into ``pixels.zarr``.

    Writes ``cutouts.parquet`` and ``images.parquet`` as they were (of a selection, its rows), and ``pixels.zarr``,
    shape (N, S, S), row by row as in ``cutouts.parquet``. With ``float16`` also ``exponent.npy``. Of a survey with
    bands the shape is (N, C, H, W), and all other tables of the cutouts come along. The images are not needed any
    more. A shard is one resumable piece.

    Parameters
    ----------
    build
        Where to write.
    cutouts
        Artifact of kind ``cutouts``, all of one size (of a survey with bands: of one shape).
    selection
        Artifact of kind ``selection`` to pack only its cutouts; None takes all.
    dtype
        ``float32`` keeps every pixel as it is read from the image. ``float16`` keeps 11 bits of each, relative to a
        power of two per cutout, so that neither faint nor bright images leave its range.
    compression
        ``blosc``: zstd after shuffling of bytes; ``zstd``; ``none``.
    level
        Effort of the compression.
    chunk_rows
        Cutouts that are decoded together.
    shard_rows
        Cutouts per file, brought up to a multiple of ``chunk_rows``.
    workers
        Processes that write; each holds about five times a shard of uncompressed pixels.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    InputError
        Sizes differ, or an image cannot be read or has changed.
    """
    index = _opened(cutouts, image_roots)
    if selection is None:
        rows = np.arange(len(index))
    else:
        rows = np.unique(index.rows_of(selection.table()["cutout_id"].to_numpy()))
    index.check_images(rows)
    _check_one_shape(index, rows)  # before any work
    layout = Layout.fitted(len(rows), dtype, compression, level, chunk_rows, shard_rows)
    per_shard = layout.shard_rows
    tasks = {
        f"{start // per_shard:08d}": _Piece(
            cutouts.path, image_roots, rows[start : start + per_shard], start, len(rows), layout
        )
        for start in range(0, len(rows), per_shard)
    }
    if dtype == "float16":
        say("pack: float16 loses precision: each pixel is kept to 1 part in 2048")
    with progress(len(tasks), "pack", "shards") as bar:
        pieces = build.shards_in_parallel(tasks, _write_shard, workers=workers, done=bar.advance)
    join_shards(build, pieces, layout)
    with build.write("cutouts.parquet") as path:
        index.table[rows].write_parquet(path, compression="zstd", statistics=True)
    if isinstance(index, BandIndex):
        _copy_tables(build, index, rows)
        build.note(survey_facts=survey_facts(cutouts))
    else:
        with build.write("images.parquet") as path:
            shutil.copyfile(cutouts.file("images.parquet"), path)
    build.table = "cutouts.parquet"
    build.count(read=len(index), kept=len(rows))
    build.drop("not in the selection", len(index) - len(rows), why="selection restricts the cutouts")
    build.note(**{**cutouts.notes, "packed": layout.facts()})


def _opened(cutouts: Artifact, image_roots: str | None) -> CutoutIndex | BandIndex:
    bands = "pieces.parquet" in cutouts.manifest["files"]
    return (BandIndex if bands else CutoutIndex)(cutouts, image_roots=image_roots)


def _check_one_shape(index: CutoutIndex | BandIndex, rows: np.ndarray) -> None:
    if isinstance(index, CutoutIndex):
        _ = index.window_px
        return
    shapes = sorted({index.shape(row) for row in rows.tolist()})
    if len(shapes) > 1:
        raise InputError(
            f"cutouts {index.artifact.id} have {len(shapes)} shapes, {shapes[0]} to {shapes[-1]} px; expected one: "
            "make them with shape=constant"
        )


def _copy_tables(build: Build, index: BandIndex, rows: np.ndarray) -> None:
    """Copy what else band cutouts hold, such as pieces and true objects; of a selection what belongs to its cutouts."""
    ids = pl.DataFrame({"cutout_id": index.cutout_id[rows]})
    for name in index.artifact.manifest["files"]:
        if name in ("cutouts.parquet", "exponent.npy") or name.startswith("pixels.zarr/"):
            continue
        source = index.artifact.file(name)
        of_cutouts = source.suffix == ".parquet" and "cutout_id" in pl.read_parquet_schema(source)
        with build.write(name) as path:
            if of_cutouts and len(rows) < len(index):
                own = index.artifact.table(name).join(ids, on="cutout_id", how="semi", maintain_order="left")
                own.write_parquet(path, compression="zstd", statistics=True)
            else:
                shutil.copyfile(source, path)


@lru_cache(maxsize=1)
def _index(folder: Path, image_roots: str | None) -> CutoutIndex | BandIndex:
    """The index, read once per process."""
    return _opened(Artifact(folder), image_roots)


def _write_shard(folder: Path, piece: _Piece) -> None:
    index = _index(piece.cutouts, piece.image_roots)
    if isinstance(index, BandIndex):
        pixels = np.empty((len(piece.rows), len(index.bands), *index.shape(int(piece.rows[0]))), np.float32)
        for row, out in zip(piece.rows.tolist(), pixels, strict=True):
            index.read(row, out=out)
    else:
        pixels = index.read(piece.rows)
    write_shard(folder, pixels, start=piece.start, total=piece.total, layout=piece.layout)
