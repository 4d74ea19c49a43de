"""The part of step=cutouts match=ID that is done per tile: tables of objects, and a look at the pixels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from skyloom.sky.geometry.patch_grid import PatchGrid
from skyloom.sky.survey.facts import Survey
from skyloom.step.cutouts.footprints.check import PieceReader, check_tile, gate_offset, offset_summary
from skyloom.step.cutouts.footprints.tables import detections_in, rows_of_tile, truth_in, within
from skyloom.step.cutouts.tiles.columns import PIECE_COLUMNS

TABLES = {"truth": truth_in, "detections": detections_in}


@dataclass(frozen=True)
class FootprintTask:
    """What a worker needs to describe the cutouts of one tile."""

    tile: str
    number: int
    """of the tile in the pieces of tables"""
    cutouts: pl.DataFrame
    """kept ones: cutout_id, file_name, grid, grid_row0, grid_col0, height_px, width_px"""
    pieces: pl.DataFrame
    """PIECE_COLUMNS of these"""
    grids: list[PatchGrid]
    rows: Mapping[str, Sequence[Path]]
    """by table the pieces that hold its rows near cutouts"""
    paths: Mapping[str, Mapping[str, Path]]
    """image files by patch and band"""
    survey: Survey
    max_offset_px: float | None
    truth_margin_px: int


def describe_tile(folder: Path, task: FootprintTask) -> None:
    """Write the piece of one tile: ``truth.parquet``, ``detections.parquet``, rows used of each, and ``tile.json``."""
    folder.mkdir()
    found: dict[str, pl.DataFrame] = {}
    for name, pieces in task.rows.items():
        facts = getattr(task.survey, name)
        margin = {"margin_px": task.truth_margin_px} if name == "truth" else {}
        objects = TABLES[name](task.cutouts, task.grids, rows_of_tile(pieces, task.number), facts, **margin)
        found[name] = within(objects.table)
        objects.table.write_parquet(folder / f"{name}.parquet", compression="zstd", statistics=True)
        np.savez(folder / f"{name}.npz", kept=objects.rows, **objects.left_out)  # type: ignore[arg-type]
    bands = [band.name for band in task.survey.bands]
    middle = bands[len(bands) // 2]
    objects_name = next((n for n in found if "mag" in getattr(task.survey, n).columns), None)
    mag = None if objects_name is None else getattr(task.survey, objects_name).column("mag", band=middle)
    told = check_tile(
        task.cutouts, task.pieces.select(*PIECE_COLUMNS), found.get(objects_name or ""), mag, middle, bands,
        PieceReader(task.paths),
    )  # fmt: skip
    gate_offset(task.tile, offset_summary(told["offsets"]), task.max_offset_px)
    (folder / "tile.json").write_text(json.dumps(told))
