"""Joins the tables of finished pieces into one Parquet file by streaming."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq


def write_row_groups(path: Path, tables: Sequence[Path], schema: dict[str, Any], number: str | None = None) -> int:
    """Join Parquet files of one schema into one file, a row group for each that has rows; returns the rows.

    ``number`` is a column that the file gets beside those of the tables: the number of the row.
    """
    rows = 0
    form: pa.Schema = pl.DataFrame(schema=schema).to_arrow().schema
    with pq.ParquetWriter(path, form, compression="zstd") as writer:
        for table in tables:
            frame = pl.read_parquet(table)
            if number is not None:
                frame = frame.with_columns(pl.int_range(rows, rows + len(frame), dtype=pl.Int64).alias(number))
            frame = frame.select(list(schema))
            if len(frame):
                writer.write_table(frame.to_arrow().cast(form), row_group_size=len(frame))
            rows += len(frame)
    return rows
