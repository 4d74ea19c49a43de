"""Feature rows as the cluster code sees them: checked once, float32, optionally unit length, read in blocks."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from skyloom.errors import ConfigError, InputError, unknown_choice

Metric = Literal["l2", "cosine"]
METRICS = ("l2", "cosine")
# All arithmetic runs on this grid of rows, counted from row 0, whatever number of rows is read at once. Sums are
# therefore added in the same order and a result does not depend on the size of the reads.
BLOCK_ROWS = 8192


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
        Rows read from a lazy source at once, rounded up to a multiple of ``BLOCK_ROWS``. It has no effect on results.
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

    def __init__(self, source: Any, metric: Metric = "l2", *, read_rows: int = 65536, check: bool = True) -> None:
        if metric not in METRICS:
            raise unknown_choice("metric", metric, METRICS)
        if read_rows < 1:
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
        self.shape: tuple[int, int] = (int(source.shape[0]), int(source.shape[1]))
        self._source, self._lazy, self._check = source, lazy, check
        self._read_rows = -(-read_rows // BLOCK_ROWS) * BLOCK_ROWS
        if not lazy:
            self._source = self._convert(source, 0) if check else source
        elif check:
            for _ in self.blocks():
                pass
        self._check = False

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

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, float32 rows) over all rows, on the fixed grid of ``BLOCK_ROWS``."""
        for start in range(0, len(self), self._read_rows):
            rows = self.read(start, min(start + self._read_rows, len(self)))
            for offset in range(0, len(rows), BLOCK_ROWS):
                yield start + offset, rows[offset : offset + BLOCK_ROWS]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the rows at ``indices`` (M,), in that order, as float32 (M, D)."""
        if not self._lazy:
            return self._source[indices]
        unique, inverse = np.unique(indices, return_inverse=True)  # HDF5 wants increasing, unique indices
        return self._convert(np.asarray(self._source[unique]), 0)[inverse]

    def subset(self, indices: np.ndarray) -> "Rows":
        """Return the rows at ``indices`` as new ``Rows`` in memory, without checking them again."""
        picked = Rows(self.take(indices), "l2", check=False)
        picked.metric = self.metric  # they are already of unit length where the metric asks for it
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
