"""Writes the tables of a report on detections, and counts what was left out."""

from typing import Any

import numpy as np

from skyloom.report.detections.compare import Compared
from skyloom.report.detections.match import flags_tables, matches_table
from skyloom.report.detections.tables import Sources
from skyloom.store import Build

DROPPED = {
    "no_position": "the row has no valid position (on_bad_position=skip)",
    "repeated": "the object stands in several cutouts and was taken once",
    "beside_cutout": "its centre is not in this cutout (truth_margin_px); a cutout that holds it has it, too",
    "outside_images": "it lies outside the images that every catalogue looked at (common_area=true)",
}


def write_drops(build: Build, tables: list[Sources]) -> None:
    """Count the rows of every table that were left out."""
    for one in tables:
        for reason, why in DROPPED.items():
            if number := one.counts.get(reason, 0):
                build.drop(f"{one.name}: {reason}", number, why=why)


def write_tables(build: Build, result: Compared) -> None:
    """Write all tables as Parquet; ``scores.parquet`` is the main one."""
    tables = dict(result.tables)
    for name, matched in result.matched.items():
        flags = flags_tables(matched)
        tables |= {f"matches_{name}": matches_table(matched), f"flags_truth_{name}": flags[0]}
        tables |= {f"flags_detected_{name}": flags[1]}
    for name, table in tables.items():
        with build.write(f"{name}.parquet") as path:
            table.write_parquet(path, compression="zstd")
    build.table = "scores.parquet"


def finite(value: Any) -> Any:
    """Plain values with null for what is not a finite number, as JSON has no word for it."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
