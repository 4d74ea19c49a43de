"""step=pack: the pixels of cutouts copied into one sharded Zarr array, for disks where small reads are slow."""

import os
import shutil
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import zarr
from pydantic import Field, PositiveInt
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.progress import progress
from skyloom.store import Artifact, Build, builds, of_kind

TOP_EXPONENT = 15  # the brightest pixel of a float16 cutout is stored in [2**14, 2**15), below the largest 65504


@dataclass(frozen=True)
class _Piece:
    """What a process needs to write one shard."""

    cutouts: Path
    image_roots: str | None
    rows: np.ndarray
    start: int
    total: int
    window_px: int
    dtype: str
    compression: str
    level: int
    chunk_rows: int
    shard_rows: int

    def __str__(self) -> str:
        return f"rows {self.start} to {self.start + len(self.rows) - 1}"


@builds(
    "cutouts",
    version=1,
    inputs={"cutouts": of_kind("cutouts"), "selection": of_kind("selection")},
    free=("workers", "image_roots"),
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
    shape (N, S, S), row by row as in ``cutouts.parquet``. With ``float16`` also ``exponent.npy``. The images are not
    needed any more. A shard is one resumable piece.

    Parameters
    ----------
    build
        Where to write.
    cutouts
        Artifact of kind ``cutouts``, all of one size.
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
    index = CutoutIndex(cutouts, image_roots=image_roots)
    if selection is None:
        rows = np.arange(len(index))
    else:
        rows = np.unique(index.rows_of(selection.table()["cutout_id"].to_numpy()))
    window_px = index.window_px
    chunks = -(-min(shard_rows, len(rows)) // chunk_rows)  # of a shard, and no more than there are
    per_shard = chunks * chunk_rows
    tasks = {
        f"{start // per_shard:08d}": _Piece(
            cutouts.path, image_roots, rows[start : start + per_shard], start, len(rows), window_px, dtype,
            compression, level, chunk_rows, per_shard,
        )
        for start in range(0, len(rows), per_shard)
    }  # fmt: skip
    if dtype == "float16":
        print("pack: float16 loses precision: each pixel is kept to 1 part in 2048", file=sys.stderr, flush=True)
    with progress(len(tasks), "pack", "shards") as bar:
        pieces = build.shards_in_parallel(tasks, _write_shard, workers=workers, done=bar.advance)
    _join(build, cutouts, index, rows, pieces, dtype)
    build.count(read=len(index), kept=len(rows))
    build.drop("not in the selection", len(index) - len(rows), why="selection restricts the cutouts")
    layout = {"dtype": dtype, "compression": compression, "chunk_rows": chunk_rows, "shard_rows": per_shard}
    build.note(**{**cutouts.notes, "packed": layout})


@lru_cache(maxsize=1)
def _index(folder: Path, image_roots: str | None) -> CutoutIndex:
    """The index, read once per process."""
    return CutoutIndex(Artifact(folder), image_roots=image_roots)


def _write_shard(folder: Path, piece: _Piece) -> None:
    """Write one shard of the array, with the metadata of the whole array beside it."""
    pixels = _index(piece.cutouts, piece.image_roots).read(piece.rows)
    folder.mkdir()
    if piece.dtype == "float16":
        exponents = _exponents(pixels)
        np.save(folder / "exponent.npy", exponents)
        # In float32 the scaling by a power of two is exact; rounding to float16 is the only loss.
        pixels = np.ldexp(pixels, -exponents[:, None, None]).astype(np.float16)
    array = zarr.create_array(
        folder / "pixels.zarr",
        shape=(piece.total, piece.window_px, piece.window_px),
        chunks=(piece.chunk_rows, piece.window_px, piece.window_px),
        shards=(piece.shard_rows, piece.window_px, piece.window_px),
        dtype=piece.dtype,
        compressors=_codecs(piece.compression, piece.level),
        fill_value=np.nan,
        dimension_names=("cutout", "row", "col"),
        chunk_key_encoding={"name": "default", "separator": "."},  # files beside each other: no folder per shard
        config={"write_empty_chunks": True},  # every shard is a file: one that is lost cannot pass for blank sky
    )
    array[piece.start : piece.start + len(piece.rows)] = pixels


def _codecs(compression: str, level: int) -> list[Any]:
    """Codecs of a chunk; the checksum comes last, so that it is over what lies on disk."""
    codecs: dict[str, list[Any]] = {
        "blosc": [BloscCodec(cname="zstd", clevel=level, shuffle="shuffle")],
        "zstd": [ZstdCodec(level=level)],
        "none": [],
    }
    return [*codecs[compression], Crc32cCodec()]


def _exponents(pixels: np.ndarray) -> np.ndarray:
    """Exponent per cutout that brings its brightest finite pixel into [2**14, 2**15); int16, shape (M,)."""
    top = np.max(np.abs(pixels), axis=(1, 2), initial=0.0, where=np.isfinite(pixels))
    return np.where(top > 0, np.frexp(top)[1] - TOP_EXPONENT, 0).astype(np.int16)


def _join(
    build: Build, cutouts: Artifact, index: CutoutIndex, rows: np.ndarray, pieces: list[Path], dtype: str
) -> None:
    """Put the shards of all pieces into one array, with the tables beside it."""
    with build.write("pixels.zarr") as folder:
        folder.mkdir()
        shutil.copyfile(pieces[0] / "pixels.zarr" / "zarr.json", folder / "zarr.json")
        for number, piece in enumerate(pieces):
            name = f"c.{number}.0.0"
            try:
                os.link(piece / "pixels.zarr" / name, folder / name)
            except OSError:  # a disk without hard links
                shutil.copyfile(piece / "pixels.zarr" / name, folder / name)
    if dtype == "float16":
        with build.write("exponent.npy") as path, path.open("wb") as file:
            np.save(file, np.concatenate([np.load(piece / "exponent.npy") for piece in pieces]))
    with build.write("cutouts.parquet") as path:
        index.table[rows].write_parquet(path, compression="zstd", statistics=True)
    with build.write("images.parquet") as path:
        shutil.copyfile(cutouts.file("images.parquet"), path)
    build.table = "cutouts.parquet"
