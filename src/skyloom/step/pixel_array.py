"""Writes pixels of cutouts as one sharded Zarr v3 array, a shard at a time; read by datamodule/packed_pixels.py."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from skyloom.datamodule.packed_pixels import shard_name
from skyloom.store import Build

TOP_EXPONENT = 15  # the brightest pixel of a float16 cutout is stored in [2**14, 2**15), below the largest 65504


@dataclass(frozen=True)
class Layout:
    """How pixels are stored; see the options of ``step=pack``."""

    dtype: str
    compression: str
    level: int
    chunk_rows: int
    shard_rows: int

    @classmethod
    def fitted(cls, rows: int, dtype: str, compression: str, level: int, chunk_rows: int, shard_rows: int) -> "Layout":
        """Layout for so many rows: whole chunks per shard, and no larger shard than there are rows."""
        chunks = -(-min(shard_rows, rows) // chunk_rows)
        return cls(dtype, compression, level, chunk_rows, chunks * chunk_rows)

    def facts(self) -> dict[str, Any]:
        """What the manifest notes of it."""
        return {
            "dtype": self.dtype,
            "compression": self.compression,
            "chunk_rows": self.chunk_rows,
            "shard_rows": self.shard_rows,
        }


def write_shard(folder: Path, pixels: np.ndarray, *, start: int, total: int, layout: Layout) -> None:
    """Write one shard of the array, with the metadata of the whole array beside it.

    Parameters
    ----------
    folder
        Made here; a piece of the build.
    pixels
        float32 (M, S, S), with bands (M, C, H, W), at most ``layout.shard_rows`` rows.
    start
        Row of the first of them in the whole array; a multiple of ``layout.shard_rows``.
    total
        Rows of the whole array.
    layout
        How they are stored.
    """
    folder.mkdir()
    if layout.dtype == "float16":
        exponents = _exponents(pixels)
        np.save(folder / "exponent.npy", exponents)
        # In float32 the scaling by a power of two is exact; rounding to float16 is the only loss.
        pixels = np.ldexp(pixels, -exponents.reshape(-1, *[1] * (pixels.ndim - 1))).astype(np.float16)
    array = zarr.create_array(
        folder / "pixels.zarr",
        shape=(total, *pixels.shape[1:]),
        chunks=(layout.chunk_rows, *pixels.shape[1:]),
        shards=(layout.shard_rows, *pixels.shape[1:]),
        dtype=layout.dtype,
        compressors=_codecs(layout.compression, layout.level),
        fill_value=np.nan,
        dimension_names=("cutout", *(["band"] if pixels.ndim == 4 else []), "row", "col"),
        chunk_key_encoding={"name": "default", "separator": "."},  # files beside each other: no folder per shard
        config={"write_empty_chunks": True},  # every shard is a file: one that is lost cannot pass for blank sky
    )
    array[start : start + len(pixels)] = pixels


def join_shards(build: Build, pieces: list[Path], layout: Layout) -> None:
    """Put the shards of all pieces, in their order, into ``pixels.zarr`` (and ``exponent.npy``) of the artifact."""
    with build.write("pixels.zarr") as folder:
        folder.mkdir()
        shutil.copyfile(pieces[0] / "pixels.zarr" / "zarr.json", folder / "zarr.json")
        dimensions = len(json.loads((folder / "zarr.json").read_text())["shape"])
        for number, piece in enumerate(pieces):
            name = shard_name(number, dimensions)
            try:
                os.link(piece / "pixels.zarr" / name, folder / name)
            except OSError:  # a disk without hard links
                shutil.copyfile(piece / "pixels.zarr" / name, folder / name)
    if layout.dtype == "float16":
        with build.write("exponent.npy") as path, path.open("wb") as file:
            np.save(file, np.concatenate([np.load(piece / "exponent.npy") for piece in pieces]))


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
    top = np.max(np.abs(pixels), axis=tuple(range(1, pixels.ndim)), initial=0.0, where=np.isfinite(pixels))
    return np.where(top > 0, np.frexp(top)[1] - TOP_EXPONENT, 0).astype(np.int16)
