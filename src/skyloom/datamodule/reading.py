"""Batches of raw pixels for work that goes through a cutout index once, in order, reading ahead."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.errors import InputError
from skyloom.store import Artifact


@dataclass
class Pixels:
    """What was read of some rows.

    Attributes
    ----------
    places
        int64 (M,): where the rows stand among all that were asked for.
    values
        float32 (M, S, S), NaN where blank.
    failed
        Place and message of each row that could not be read.
    """

    places: np.ndarray
    values: np.ndarray
    failed: list[tuple[int, str]] = field(default_factory=list)


def selected_rows(index: CutoutIndex, selection: Artifact | None) -> np.ndarray:
    """Rows of the index, all or those of a selection, each once and ascending."""
    if selection is None:
        return np.arange(len(index))
    return np.unique(index.rows_of(selection.table()["cutout_id"].to_numpy()))


def read_ahead(index: CutoutIndex, rows: np.ndarray, batch_size: int, *, skip: bool = False) -> Iterator[Pixels]:
    """Read rows batch by batch; the next batch is read while the caller works on this one.

    Parameters
    ----------
    index
        The cutouts.
    rows
        int64 (N,), row numbers.
    batch_size
        Most rows at a time; cutouts of different sizes come in different batches.
    skip
        False: the first row that cannot be read ends it. True: such rows are reported in ``failed``.

    Raises
    ------
    InputError
        A row cannot be read; the message names the image.
    """
    sizes = index.sizes[rows]
    batches = [
        places[i : i + batch_size]
        for places in (np.flatnonzero(sizes == size) for size in np.unique(sizes))
        for i in range(0, len(places), batch_size)
    ]
    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(_read, index, rows, places, skip) for places in batches[:1]]
        for following in batches[1:]:
            pixels = ahead.pop().result()
            ahead.append(reader.submit(_read, index, rows, following, skip))
            yield pixels
        for last in ahead:
            yield last.result()


def _read(index: CutoutIndex, rows: np.ndarray, places: np.ndarray, skip: bool) -> Pixels:
    try:
        return Pixels(places, index.read(rows[places]))
    except InputError:
        if not skip:
            raise
    kept, values, failed = [], [], []
    for place in places.tolist():
        try:
            values.append(index.read(rows[[place]]))
            kept.append(place)
        except InputError as error:
            failed.append((place, str(error)))
    size = int(index.sizes[rows[places[0]]])
    return Pixels(
        np.array(kept, dtype=np.int64), np.concatenate(values) if values else np.empty((0, size, size), "f4"), failed
    )
