"""The single pass over an image behind `measure_windows`: strips in, one number per window out.

Rows and columns are cut wherever a window starts or ends. Maxima and blank pixels are collected per cell of that grid
while the strips go by, and combined to windows at the end; that is exact for any stride. Only the pixels on which the
noise is estimated are kept until the last row of their windows has been read.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from skyloom.sky.files.image import Image
from skyloom.sky.noise import robust_rms

STRIP_BYTES = 4 << 20  # measured best of 0.5 to 8 MB: smaller ones pay for Python, larger ones leave the cache
BATCH_BYTES = 1 << 20  # samples that are sorted together stay in the second-level cache

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Axis:
    """Windows along one axis, the cells that they are made of and the pixels sampled for the noise."""

    first_cell: NDArray[np.int64]
    """(windows,)"""
    last_cell: NDArray[np.int64]
    """(windows,) one past the last cell"""
    edges: NDArray[np.int64]
    """(cells + 1,) every pixel at which a window starts or ends"""
    sampled: NDArray[np.int64]
    """every pixel that some window samples, in order"""
    picks: NDArray[np.int64]
    """(windows, samples per window) positions in `sampled`"""

    @classmethod
    def of(cls, starts: NDArray[np.int64], window_px: int, sample_step: int) -> "Axis":
        """Cut the axis at the windows `starts` to ``starts + window_px``, sampled every `sample_step` pixels."""
        stops = starts + window_px
        edges = np.unique(np.concatenate([starts, stops]))
        wanted = starts[:, None] + np.arange(0, window_px, sample_step)
        sampled = np.unique(wanted)
        return cls(
            np.searchsorted(edges, starts),
            np.searchsorted(edges, stops),
            edges,
            sampled,
            np.searchsorted(sampled, wanted),
        )


class _Strip(NamedTuple):
    """What one strip contributes: per touched row of cells its maxima and blanks, and the sampled pixels."""

    stop: int
    pieces: list[tuple[int, NDArray[np.float32], NDArray[np.int64]]]
    samples: NDArray[np.float32]


def scan(
    image: Image, rows: Axis, cols: Axis, *, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Go once through the image.

    Parameters
    ----------
    image
        An open image.
    rows, cols
        The windows along both axes.
    threads
        Number of threads that read and reduce strips; each holds one strip of the image.

    Returns
    -------
    tuple
        Largest finite pixel (float32, NaN without one), number of blank pixels (int64) and robust rms (float32), each
        of shape (window rows, window columns).
    """
    cells = len(rows.edges) - 1, len(cols.edges) - 1
    cell_peak = np.full(cells, -np.inf, np.float32)
    cell_blanks = np.zeros(cells, np.int64)
    rms = np.empty((len(rows.picks), len(cols.picks)), np.float32)
    kept = np.empty((0, len(cols.sampled)), np.float32)
    kept_from = done = 0  # position of kept[0] among the sampled rows; window rows whose noise is under way
    jobs: deque[Future[None]] = deque()

    def estimate(i: int, samples: NDArray[np.float32], picks: NDArray[np.int64]) -> None:
        rms[i] = _window_rms(samples[picks], cols.picks)

    with ThreadPoolExecutor(threads) as pool:
        for strip in _strips(pool, image, rows, cols, threads):
            for cell, peak, blanks in strip.pieces:
                np.maximum(cell_peak[cell], peak, out=cell_peak[cell])
                cell_blanks[cell] += blanks
            kept = np.concatenate([kept, strip.samples])
            while done < len(rms) and rows.edges[rows.last_cell[done]] <= strip.stop:
                jobs.append(pool.submit(estimate, done, kept, rows.picks[done] - kept_from))
                done += 1
            needed_from = rows.picks[done, 0] if done < len(rms) else kept_from + len(kept)
            if needed_from > kept_from:
                kept, kept_from = kept[needed_from - kept_from :], needed_from
            while len(jobs) > threads + 1 or (done == len(rms) and jobs):
                jobs.popleft().result()
    peak = _combine(np.maximum, _combine(np.maximum, cell_peak, rows, axis=0), cols, axis=1)
    blanks = _combine(np.add, _combine(np.add, cell_blanks, rows, axis=0), cols, axis=1)
    peak[np.isneginf(peak)] = np.nan
    return peak, blanks, rms


def _strips(pool: ThreadPoolExecutor, image: Image, rows: Axis, cols: Axis, threads: int) -> Iterator[_Strip]:
    """Yield what the strips contribute, in order, with few of them under way: memory stays bounded."""
    height = max(1, STRIP_BYTES // (4 * image.shape[1]))
    height = -(-height // image.block_rows) * image.block_rows
    stop = int(rows.edges[-1])
    buffers: SimpleQueue[NDArray[np.float32]] = SimpleQueue()
    for _ in range(threads):  # fresh memory for every strip would cost as much in page faults as the arithmetic does
        buffers.put(np.empty((height, image.shape[1]), np.float32))

    def reduce(row0: int) -> _Strip:
        buffer = buffers.get()
        try:
            rows_here = min(height, stop - row0)
            return _reduce_strip(image.strip(row0, rows_here, out=buffer[:rows_here]), row0, rows, cols)
        finally:
            buffers.put(buffer)

    under_way: deque[Future[_Strip]] = deque()
    for row0 in range(0, stop, height):
        under_way.append(pool.submit(reduce, row0))
        if len(under_way) > threads + 1:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _reduce_strip(strip: NDArray[np.float32], row0: int, rows: Axis, cols: Axis) -> _Strip:
    stop = row0 + len(strip)
    finite = np.isfinite(strip)
    first, last = np.searchsorted(rows.edges, [row0, stop - 1], side="right") - 1
    pieces = []
    for cell in range(first, last + 1):
        part = slice(max(rows.edges[cell] - row0, 0), rows.edges[cell + 1] - row0)
        pieces.append((cell, *_reduce_piece(strip[part], finite[part], cols.edges)))
    low, high = np.searchsorted(rows.sampled, [row0, stop])
    return _Strip(stop, pieces, np.take(strip[rows.sampled[low:high] - row0], cols.sampled, axis=1))


def _reduce_piece(
    values: NDArray[np.float32], finite: NDArray[np.bool_], col_edges: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the maximum and the number of blanks of every cell in a piece of one row of cells."""
    # numpy adds bytes six times as fast as it adds them up in a wider type; 255 rows still fit.
    sum_type = np.uint8 if len(values) < 256 else np.int64
    blanks = len(values) - np.add.reduce(finite.view(np.uint8), axis=0, dtype=sum_type).astype(np.int64)
    peak = np.fmax.reduce(values, axis=0)  # leaves NaN out, but not infinity
    if np.isposinf(peak).any():
        peak = np.max(values, axis=0, where=finite, initial=-np.inf)
    peak = np.fmax(peak, np.float32(-np.inf))
    inside = slice(col_edges[0], col_edges[-1])
    at = col_edges[:-1] - col_edges[0]
    return np.maximum.reduceat(peak[inside], at), np.add.reduceat(blanks[inside], at)


def _combine(reduce: np.ufunc, cells: NDArray[Number], axis_: Axis, *, axis: int) -> NDArray[Number]:
    """Reduce the cells of every window along one axis."""
    # reduceat takes pairs (first, one past the last); the second must exist, hence one more cell, which no window uses
    padded = np.concatenate([cells, np.take(cells, [0], axis=axis)], axis=axis)
    pairs = np.stack([axis_.first_cell, axis_.last_cell], axis=1).ravel()
    return np.take(reduce.reduceat(padded, pairs, axis=axis), np.arange(0, len(pairs), 2), axis=axis)


def _window_rms(sample_rows: NDArray[np.float32], picks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Robust rms of a row of windows: `sample_rows` are its sampled rows, `picks` the columns of each window."""
    out = np.empty(len(picks), np.float32)
    batch = max(1, BATCH_BYTES // (4 * len(sample_rows) * picks.shape[1]))
    for start in range(0, len(picks), batch):
        samples = sample_rows[:, picks[start : start + batch]].transpose(1, 0, 2)
        out[start : start + batch] = robust_rms(samples.reshape(len(samples), -1))
    return out
