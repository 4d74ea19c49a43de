"""Reads a table of scores over a grid of thresholds, from a file or an artifact."""

import numpy as np
import polars as pl

from skyloom.datamodule.table_input import TableInput
from skyloom.errors import InputError

SWEEP_KINDS = ("sweep",)
KEYS = ("score", "nms")


def read_sweep(given: TableInput) -> pl.DataFrame:
    """All columns of numbers of a sweep, Float64, one row per pair of thresholds.

    Raises
    ------
    InputError
        It is empty, or lacks one of the thresholds.
    """
    table, _ = given.open("sweep")
    if lost := [name for name in KEYS if name not in table.names]:
        raise InputError(f"{table.path}: the sweep has no column {', '.join(lost)}; it has {', '.join(table.names)}")
    columns = {name: np.ma.filled(table.column(name)[0], np.nan) for name in table.names}
    frame = pl.DataFrame({n: v.astype(np.float64) for n, v in columns.items() if v.dtype.kind in "iufb"})
    if frame.is_empty():
        raise InputError(f"{table.path}: the sweep has no rows; expected one per pair of score and nms")
    if frame.select((pl.col(KEYS).is_nan() | pl.col(KEYS).is_null()).any()).row(0) != (False, False):
        raise InputError(f"{table.path}: the sweep has rows without score or nms; remove them")
    return frame
