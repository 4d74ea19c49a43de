"""Pixels of packed cutouts: one small read per cutout from a sharded Zarr v3 array."""

import json
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from skyloom.errors import InputError
from skyloom.store import Artifact

OPEN_SHARDS = 64  # files kept open at once
_NOWHERE = 2**64 - 1  # offset of a chunk that was never written (Zarr v3, sharding codec, 1.0)

Decoder = Callable[[bytes], Any]


def _plain(data: bytes) -> bytes:
    return data


DECODERS: dict[str, Decoder] = {"blosc": numcodecs.blosc.decompress, "zstd": numcodecs.zstd.decompress}


class PackedPixels:
    """Reads rows of ``pixels.zarr``.

    zarr-python needs about a millisecond of Python per chunk, an order of magnitude more than the read itself, so the
    shards are read directly: the index at the end of a shard (offset and length of each chunk, with a CRC-32C) once,
    then each chunk with one ``pread``. Format: https://zarr-specs.readthedocs.io, core 3.0 and sharding codec 1.0.
    Every chunk carries a CRC-32C of its own, which is checked.

    Parameters
    ----------
    folder
        The Zarr array.
    sizes
        Expected size of each of its files in bytes, by name.
    exponents
        int16, shape (N,): row ``i`` is the stored one times ``2**exponents[i]``; None: rows are stored as they are.

    Attributes
    ----------
    shape : tuple of int
        (N, S, S); of cutouts with bands (N, C, H, W).
    """

    def __init__(self, folder: Path, sizes: Mapping[str, int], exponents: np.ndarray | None) -> None:
        self.folder, self._sizes, self._exponents = folder, dict(sizes), exponents
        try:
            facts = json.loads((folder / "zarr.json").read_text())
            outer, inner, codecs, self._dtype = _layout(facts)
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(f"{folder} is no array that step=pack has written ({error!r}); pack again") from error
        self.shape: tuple[int, ...] = tuple(facts["shape"])
        self._shard_rows, self._chunk_rows = outer[0], inner[0]
        self._decode = DECODERS.get(codecs[0], _plain)
        self._open: OrderedDict[int, tuple[int, np.ndarray]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # each process opens its own files

    def __del__(self) -> None:
        for handle, _ in self.__dict__.get("_open", {}).values():
            os.close(handle)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Pixels of rows.

        Parameters
        ----------
        rows
            Row numbers, shape (M,).

        Returns
        -------
        ndarray
            float32, shape (M, S, S); with bands (M, C, H, W).

        Raises
        ------
        InputError
            A shard is missing or damaged.
        """
        pixels = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        for i, row in enumerate(np.asarray(rows).tolist()):
            chunk = self._chunk(row // self._shard_rows, row % self._shard_rows // self._chunk_rows)
            pixels[i] = chunk[row % self._chunk_rows]
            if self._exponents is not None:
                np.ldexp(pixels[i], self._exponents[row], out=pixels[i])
        return pixels

    def _chunk(self, shard: int, number: int) -> np.ndarray:
        handle, index = self._shard(shard)
        offset, length = (int(value) for value in index[number])
        data = os.pread(handle, length, offset) if offset != _NOWHERE else b""
        if len(data) < 4 or int.from_bytes(data[-4:], "little") != google_crc32c.value(data[:-4]):
            raise InputError(f"{self._path(shard)} is damaged: chunk {number} has another checksum; pack again")
        values = np.frombuffer(self._decode(data[:-4]), self._dtype)
        return values.reshape(self._chunk_rows, *self.shape[1:])

    def _shard(self, shard: int) -> tuple[int, np.ndarray]:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        path = self._path(shard)
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); pack again") from error
        try:
            index = self._index(handle, path)
        except BaseException:
            os.close(handle)
            raise
        if len(self._open) >= OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1][0])
        self._open[shard] = handle, index
        return handle, index

    def _index(self, handle: int, path: Path) -> np.ndarray:
        """Offset and length of each chunk of a shard, uint64, shape (chunks, 2)."""
        size, expected = os.fstat(handle).st_size, self._sizes.get(path.name)
        if size != expected:
            raise InputError(f"{path} has {size} bytes, the manifest says {expected}; copy it again or pack again")
        length = 16 * math.ceil(self._shard_rows / self._chunk_rows)
        data = os.pread(handle, length + 4, size - length - 4)
        if int.from_bytes(data[length:], "little") != google_crc32c.value(data[:length]):
            raise InputError(f"{path} is damaged: its index has another checksum; copy it again or pack again")
        return np.frombuffer(data[:length], "<u8").reshape(-1, 2)

    def _path(self, shard: int) -> Path:
        return self.folder / shard_name(shard, len(self.shape))


def shard_name(shard: int, dimensions: int) -> str:
    """File of a shard of an array that is cut along its first dimension only."""
    return f"c.{shard}" + ".0" * (dimensions - 1)


def open_packed(artifact: Artifact, rows: int) -> PackedPixels | None:
    """Pixels that step=pack has copied into ``cutouts``, if it did.

    Raises
    ------
    InputError
        There are not as many as ``rows``, or they are damaged.
    """
    folder = artifact.path / "pixels.zarr"
    names = [name for name in artifact.manifest["files"] if name.startswith("pixels.zarr/")]
    if not names:
        return None
    sizes = {name.partition("/")[2]: artifact.manifest["files"][name]["size"] for name in names}
    exponents = np.load(artifact.file("exponent.npy")) if "exponent.npy" in artifact.manifest["files"] else None
    packed = PackedPixels(folder, sizes, exponents)
    if packed.shape[0] != rows:
        raise InputError(f"{folder} has {packed.shape[0]} rows, cutouts.parquet beside it {rows}; pack again")
    return packed


def _layout(facts: dict[str, Any]) -> tuple[list[int], list[int], list[str], np.dtype[Any]]:
    """Shard shape, chunk shape, names of the codecs behind ``bytes``, and element type, from ``zarr.json``."""
    sharding = facts["codecs"][0]["configuration"]
    first, *codecs = [codec["name"] for codec in sharding["codecs"]]
    if (first, codecs[-1], sharding["index_location"]) != ("bytes", "crc32c", "end"):
        raise ValueError(f"codecs {[first, *codecs]}")
    if facts["chunk_key_encoding"]["configuration"]["separator"] != ".":
        raise ValueError("chunk keys are not separated by dots")
    outer = facts["chunk_grid"]["configuration"]["chunk_shape"]
    return outer, sharding["chunk_shape"], codecs, np.dtype(facts["data_type"]).newbyteorder("<")
