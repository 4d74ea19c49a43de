"""The pieces of step=integrity and step=stats over bands: the numbers of each plane (one band of one cutout)."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.datamodule.band_index import BandIndex
from skyloom.errors import InputError
from skyloom.store import Artifact
from skyloom.transform.moments import BINS, histogram

PLANE_COLUMNS = {
    "cutout_id": pl.Int64,
    "band": pl.String,
    "nan_count": pl.Int64,
    "inf_count": pl.Int64,
    "all_zero": pl.Boolean,
    "unreadable": pl.Boolean,
    "count": pl.Int64,
    "mean": pl.Float64,
    "m2": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "image_std": pl.Float64,
    "message": pl.String,
}
NOTHING = {"nan_count": 0, "inf_count": 0, "all_zero": False, "count": 0}
BLOCK = 8192  # numbers per dot product: BLAS adds no more than these in an order of its own, whatever its threads
CHUNK = 8 * BLOCK  # pixels brought to float64 at a time: 512 KiB, which stays in the cache of a core
CANCELLED = 1e4  # mean² over variance beyond which the sum of squares has lost too many of its 16 digits


@dataclass(frozen=True)
class Piece:
    """What is needed to measure some rows of an index.

    Attributes
    ----------
    cutouts
        Folder of the artifact.
    image_roots
        Folders in which images that have moved are looked for.
    rows
        int64 (M,), row numbers.
    threads
        Threads that share the rows; changes the time only.
    bins
        Whether the histogram of each band is taken, too.
    """

    cutouts: Path
    image_roots: str | None
    rows: np.ndarray
    threads: int
    bins: bool

    def __str__(self) -> str:
        return f"rows {self.rows[0]} to {self.rows[-1]}"


def plane_numbers(pixels: np.ndarray) -> dict[str, Any]:
    """Measure one plane.

    Sums are taken in float64 over blocks. Where the mean is so large against the spread that the sum of squares has
    cancelled, a second pass takes the squares about the mean (two-pass algorithm with correction, Chan, Golub &
    LeVeque 1983, Am. Stat. 37, 242, eq. 1.7).

    Parameters
    ----------
    pixels
        float32, any shape, C-contiguous.

    Returns
    -------
    dict
        `nan_count`, `inf_count`, `all_zero`, `count` (finite pixels), and of these `mean`, `m2` (sum of squared
        deviations), `low`, `high` and `image_std` (of the population); null without any. Units of the pixels.
    """
    flat = pixels.ravel()
    low, high = float(flat.min()), float(flat.max())  # NaN when any pixel is
    blank = infinite = 0
    if not (math.isfinite(low) and math.isfinite(high)):
        good = np.isfinite(flat)
        blank = int(np.isnan(flat).sum())
        infinite = flat.size - int(good.sum()) - blank
        flat = flat[good]
    if flat.size == 0:
        return {"nan_count": blank, "inf_count": infinite, "all_zero": False, "count": 0}
    if blank or infinite:
        low, high = float(flat.min()), float(flat.max())
    mean, squares = 0.0, 0.0
    if low < high:
        mean, squares = _about(flat, 0.0)
        if mean * mean * flat.size > CANCELLED * squares:
            shift, squares = _about(flat, mean)
            mean += shift
    else:
        mean = low
    return {
        "nan_count": blank, "inf_count": infinite, "all_zero": low == high == 0.0 and flat.size == pixels.size,
        "count": flat.size, "mean": mean, "m2": squares, "low": low, "high": high,
        "image_std": math.sqrt(squares / flat.size),
    }  # fmt: skip


def _about(flat: np.ndarray, centre: float) -> tuple[float, float]:
    """Mean of the values less ``centre``, and the sum of their squared deviations from their mean."""
    exact = np.empty(min(CHUNK, flat.size))
    sums, squares = [], []
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        values = exact[: part.size]
        values[...] = part
        if centre:
            values -= centre
        whole = part.size // BLOCK * BLOCK
        blocks = values[:whole].reshape(-1, BLOCK)
        sums.append(float(values.sum()))
        squares.append(float(np.vecdot(blocks, blocks).sum()) + float(np.dot(values[whole:], values[whole:])))
    total = math.fsum(sums)
    return total / flat.size, max(math.fsum(squares) - total * total / flat.size, 0.0)


def write_piece(folder: Path, piece: Piece) -> None:
    """Measure the rows of a piece; writes ``planes.parquet`` and, if asked for, ``bins.npy`` (C, BINS) int64."""
    index = _index(piece.cutouts, piece.image_roots)
    parts = np.array_split(piece.rows, min(piece.threads, len(piece.rows)))
    # Each thread opens files of its own: neighbouring rows share files, so that hardly any is opened twice.
    indexes = [copy.copy(index) for _ in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        measured = list(pool.map(_measure, indexes, parts, [piece.bins] * len(parts)))
    folder.mkdir()
    pl.concat([frame for frame, _ in measured]).write_parquet(folder / "planes.parquet")
    if piece.bins:
        np.save(folder / "bins.npy", sum(bins for _, bins in measured if bins is not None))


def read_pieces(pieces: list[Path]) -> tuple[pl.DataFrame, np.ndarray | None]:
    """Planes of all pieces in their order, and the sum of their histograms."""
    planes = pl.concat([pl.read_parquet(piece / "planes.parquet") for piece in pieces])
    if not (pieces[0] / "bins.npy").exists():
        return planes, None
    bins = np.load(pieces[0] / "bins.npy")
    for piece in pieces[1:]:
        bins += np.load(piece / "bins.npy")
    return planes, bins


@lru_cache(maxsize=1)
def _index(folder: Path, image_roots: str | None) -> BandIndex:
    """The index, read once per process."""
    return BandIndex(Artifact(folder), image_roots=image_roots)


def _measure(index: BandIndex, rows: np.ndarray, with_bins: bool) -> tuple[pl.DataFrame, np.ndarray | None]:
    """Planes of some rows, row by row and within a row band by band."""
    bins = np.zeros((len(index.bands), BINS), dtype=np.int64) if with_bins else None
    found: list[dict[str, Any]] = []
    space = np.empty((len(index.bands), 0, 0), np.float32)
    for row in rows.tolist():
        if space.shape[1:] != index.shape(row):
            space = np.empty((len(index.bands), *index.shape(row)), np.float32)
        planes = _planes(index, row, space)
        whole = not any(isinstance(values, str) for values in planes)
        for channel, values in enumerate(planes):
            entry = {"cutout_id": int(index.cutout_id[row]), "band": index.bands[channel]}
            if isinstance(values, str):
                found.append({**entry, **NOTHING, "unreadable": True, "message": values})
                continue
            found.append({**entry, **plane_numbers(values), "unreadable": False})
            if bins is not None and whole:
                bins[channel] += histogram(values)
    return pl.DataFrame(found, schema=PLANE_COLUMNS), bins


def _planes(index: BandIndex, row: int, space: np.ndarray) -> list[np.ndarray | str]:
    """The pixels of each band, or the message why they cannot be read."""
    try:
        return list(index.read(row, out=space))
    except InputError:
        return [_one(index, row, band) for band in index.bands]


def _one(index: BandIndex, row: int, band: str) -> np.ndarray | str:
    try:
        return np.asarray(index.read(row, [band])[0])
    except InputError as error:
        return str(error)
