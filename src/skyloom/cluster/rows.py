"""Feature rows as the cluster code sees them: checked once, float32, optionally unit length, read in blocks."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from skyloom.cluster.guide import Guide
from skyloom.cluster.tiles import Tiles
from skyloom.errors import ConfigError, InputError, unknown_choice

Metric = Literal["l2", "cosine"]
METRICS = ("l2", "cosine")
# All arithmetic runs on this grid of rows, counted from row 0, whatever number of rows is read at once. Sums are
# therefore added in the same order and a result does not depend on the size of the reads.
BLOCK_ROWS = 4096
_USUAL_BYTES = 10**9
_SHIFT_ROWS = 1024  # whose mean is taken off all rows in matrix products
_FEW = 2000  # so many single rows are picked one by one; more are cheaper by reading all there is between them


class Picked:
    """Some rows of a lazy (N, D) source, themselves a lazy source.

    Parameters
    ----------
    source
        As for :class:`Rows`.
    indices
        (M,) increasing row numbers.
    """

    def __init__(self, source: Any, indices: np.ndarray) -> None:
        self._source, self._indices = source, indices
        self.shape = (len(indices), int(source.shape[1]))
        self.dtype = source.dtype

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        return _pick(self._source, self._indices[key])


def _pick(source: Any, indices: np.ndarray) -> np.ndarray:
    """Rows of a lazy source at increasing indices."""
    if len(indices) <= _FEW or isinstance(source, np.memmap | Picked):
        return np.asarray(source[indices])
    found = np.empty((len(indices), source.shape[1]), dtype=source.dtype)
    start = 0
    while start < len(indices):
        first = int(indices[start])
        stop = int(np.searchsorted(indices, first + BLOCK_ROWS))
        found[start:stop] = source[first : int(indices[stop - 1]) + 1][indices[start:stop] - first]
        start = stop
    return found


class Rows:
    """An (N, D) source of features: an array in memory, or anything that is sliced by rows (memmap, HDF5, Zarr).

    An array in memory is converted once; any other source stays where it is and is converted block by block.

    Parameters
    ----------
    source
        (N, D) real numbers. ``np.memmap`` and other array-likes with ``shape``, ``dtype`` and row slicing are read
        lazily; lists and plain arrays are held in memory as float32.
    metric
        ``cosine`` scales every row to unit length, ``l2`` leaves it as it is.
    read_rows
        Rows read from a lazy source at once, rounded up to a multiple of ``BLOCK_ROWS``; None reads 1/16 of
        ``memory_bytes``. It has no effect on results.
    memory_bytes
        A lazy source is held in memory when twice its size in float32 fits into this; it has no effect on results.
        0 never holds it.
    check
        Look at every value once. Only rows that come from another ``Rows`` may skip this.

    Raises
    ------
    InputError
        Not two-dimensional, empty, not real numbers, a value that is not finite (also after conversion to float32),
        or, for ``cosine``, a row of zeros.
    ConfigError
        Unknown metric, or ``read_rows`` below 1.
    """

    def __init__(self, source: Any, metric: Metric = "l2", *, read_rows: int | None = None,
                 memory_bytes: int = 0, check: bool = True) -> None:  # fmt: skip
        if metric not in METRICS:
            raise unknown_choice("metric", metric, METRICS)
        if read_rows is not None and read_rows < 1:
            raise ConfigError(f"read_rows must be at least 1, found {read_rows}; give the rows to read at once")
        # Only numpy's own dtype marks a lazy array; a torch tensor, for one, is already in memory.
        stored = not isinstance(source, np.ndarray) and isinstance(getattr(source, "dtype", None), np.dtype)
        lazy = stored or isinstance(source, np.memmap)
        if not lazy:
            source = np.asarray(source)
        if len(source.shape) != 2 or 0 in source.shape:
            raise InputError(f"features must be a non-empty (N, D) array, found shape {tuple(source.shape)}")
        if np.dtype(source.dtype).kind not in "fiu":
            raise InputError(f"features must be real numbers, found dtype {source.dtype}; convert them to float32")
        self.metric = metric
        self.guide: Guide | None = None  # groups of the rows, which spare distances
        self._tiles: Tiles | None = None
        self.shape: tuple[int, int] = (int(source.shape[0]), int(source.shape[1]))
        self._source, self._lazy, self._check = source, lazy, check
        self.memory_bytes = memory_bytes
        read_rows = read_rows or max(1, (memory_bytes or _USUAL_BYTES) // 16 // (4 * self.shape[1]))
        self._read_rows = -(-read_rows // BLOCK_ROWS) * BLOCK_ROWS
        if lazy and 8 * self.shape[0] * self.shape[1] <= memory_bytes:
            held = np.empty(self.shape, dtype=np.float32)
            for start in range(0, len(held), self._read_rows):
                stop = min(start + self._read_rows, len(held))
                held[start:stop] = self.read(start, stop)
            self._source, self._lazy = held, False
        elif not lazy:
            self._source = self._convert(source, 0) if check else source
        elif check:
            for _ in self.blocks():
                pass
        self._check = False
        self.shift = self.read(0, min(len(self), _SHIFT_ROWS)).mean(axis=0, dtype=np.float64).astype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def in_memory(self) -> bool:
        """Whether the rows are held as one float32 array."""
        return not self._lazy

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop`` (exclusive) as float32 (stop - start, D)."""
        block = self._source[start:stop]
        return self._convert(np.asarray(block), start) if self._lazy else block

    def reads(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, float32 rows) over all rows, as many as are read at once: all where tiles are kept."""
        step = len(self) if self._tiles is not None else self._read_rows
        for start in range(0, len(self), step):
            yield start, self.read(start, min(start + step, len(self)))

    @staticmethod
    def grid(first: int, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Cut rows that were read at once into (first row, rows) on the fixed grid of ``BLOCK_ROWS``."""
        for offset in range(0, len(rows), BLOCK_ROWS):
            yield first + offset, rows[offset : offset + BLOCK_ROWS]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, float32 rows) over all rows, on the fixed grid."""
        for first, rows in self.reads():
            yield from self.grid(first, rows)

    def tiles(self, first: int, rows: np.ndarray) -> Tiles:
        """Tiles of rows that :meth:`reads` gave: the kept ones, or such of these rows alone."""
        if self._tiles is not None:
            return self._tiles
        guide = None if self.guide is None else self.guide.subset(slice(first, first + len(rows)))
        return Tiles(rows, self.shift, guide)

    def keep_tiles(self) -> Tiles:
        """Make tiles of all rows, by the present guide, and keep them: as much memory again."""
        if self._tiles is None or self._tiles.guide is not self.guide:
            self._tiles = Tiles(self.read(0, len(self)), self.shift, self.guide)
        return self._tiles

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the rows at ``indices`` (M,), in that order, as float32 (M, D)."""
        if not self._lazy:
            return self._source[indices]
        unique, inverse = np.unique(indices, return_inverse=True)  # HDF5 wants increasing, unique indices
        return self._convert(_pick(self._source, unique), 0)[inverse]

    def subset(self, indices: np.ndarray) -> "Rows":
        """Return the rows at the increasing ``indices`` as new ``Rows``, without checking them again.

        They are gathered in memory unless twice their size, for the arrays that a k-means start needs beside them, is
        more than ``memory_bytes``; then they stay where they are.
        """
        if self._lazy and 8 * len(indices) * self.shape[1] > self.memory_bytes:
            picked = Rows(Picked(self._source, indices), self.metric, memory_bytes=self.memory_bytes, check=False)
        else:
            picked = Rows(self.take(indices), "l2", check=False)
            picked.metric = self.metric  # they are already of unit length where the metric asks for it
        picked.guide, picked.shift = None if self.guide is None else self.guide.subset(indices), self.shift
        return picked

    def _convert(self, block: np.ndarray, start: int) -> np.ndarray:
        with np.errstate(over="ignore"):  # a float64 beyond the range of float32 is reported below
            rows = np.ascontiguousarray(block, dtype=np.float32)
        if self._check and not np.isfinite(rows).all():
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            raise InputError(
                f"features must be finite in float32, found {len(bad)} bad row(s), the first is row {start + bad[0]}; "
                "drop or repair them before clustering"
            )
        return unit_rows(rows, start) if self.metric == "cosine" else rows


def as_rows(x: Any, metric: Metric) -> Rows:
    """Return ``x`` itself when it is already ``Rows`` of this metric, else wrap and check it."""
    if not isinstance(x, Rows):
        return Rows(x, metric)
    if x.metric != metric:
        raise ConfigError(f"metric={metric} but the rows were opened with metric={x.metric}; use the same for both")
    return x


def unit_rows(rows: np.ndarray, start: int = 0) -> np.ndarray:
    """Scale float32 rows (N, D) to unit length.

    Raises
    ------
    InputError
        A row of zeros has no direction; ``start`` is added to its number in the message.
    """
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    if not length.all():
        row = start + int(np.flatnonzero(length == 0)[0])
        raise InputError(f"row {row} of the features is all zeros and has no direction; drop it or use metric=l2")
    return (rows / length[:, None]).astype(np.float32)
