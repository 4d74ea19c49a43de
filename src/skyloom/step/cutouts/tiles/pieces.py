"""The part of step=cutouts on a grid that is done per tile."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.sky.files.image import Image
from skyloom.sky.survey.facts import Survey
from skyloom.sky.window.grid import tile_windows
from skyloom.step.cutouts.table import cutout_ids, sky_positions
from skyloom.step.cutouts.tiles.columns import BAND_COLUMNS, BAND_IMAGE_COLUMNS
from skyloom.step.cutouts.tiles.images import band_rows, open_bands
from skyloom.step.cutouts.tiles.matches import match_tile
from skyloom.step.cutouts.tiles.tables import Windows, detection_table, truth_table
from skyloom.step.tiles import Tile, TileSet

TABLES = ("truth", "detections", "matches")


@dataclass(frozen=True)
class TileTask:
    """What a worker needs to index one tile."""

    tile: Tile
    recorded: Mapping[str, tuple[str | None, str]]
    """by band, and by role of the tile's other files, how the index refers to the file"""
    others: Mapping[str, tuple[Path, str]]
    """segmentation, detections and truth, as far as the survey has them: path and fingerprint"""
    survey: Survey
    source: str
    """id of the index that is being made"""
    window_px: int
    border_px: int
    max_sep_px: float
    skip_bad: bool

    @property
    def name(self) -> str:
        """Name of the tile."""
        return self.tile.name

    @classmethod
    def of(
        cls, tiles: TileSet, tile: Tile, survey: Survey, source: str, window_px: int, border_px: int,
        max_sep_px: float, skip_bad: bool,
    ) -> Self:  # fmt: skip
        """Gather what belongs to a tile; InputError when a table that the survey has is not there."""
        found = {
            "segmentation": tile.segmentation,
            "detections": tile.detections or tiles.survey_detections,
            "truth": tile.truth or tiles.survey_truth,
        }
        assert survey.tiles is not None
        for role, path in found.items():
            pattern = survey.tiles.pattern(role)
            if path is None and pattern is not None:
                raise InputError(
                    f"tile {tile.name}: expected its {role} as {pattern.replace('{tile}', tile.name)}, found none; add "
                    f"it, or do without for all tiles: survey.tiles.{role}=null"
                )
        others = {role: (path, tiles.prints[path]) for role, path in found.items() if path is not None}
        paths = {**tile.images, **{role: path for role, (path, _) in others.items()}}
        recorded = {key: tiles.recorded_path(path) for key, path in paths.items()}
        return cls(tile, recorded, others, survey, source, window_px, border_px, max_sep_px, skip_bad)


def cut_tile(folder: Path, task: TileTask) -> None:
    """Write the piece of one tile: its cutouts, images and tables, and what was counted; or ``bad.json``."""
    folder.mkdir()
    try:
        with open_bands(task.name, task.tile.images) as images:
            first = next(iter(images.values()))
            windows = _windows(first, task)
            tables = {
                "cutouts": _cutouts(first, windows, task),
                "images": pl.DataFrame(
                    band_rows(task.name, images, task.tile.fingerprints, task.recorded, task.survey),
                    schema=BAND_IMAGE_COLUMNS,
                ),
            }
            found, counts = _object_tables(first, windows, task)
    except InputError as error:
        if not task.skip_bad:
            raise
        (folder / "bad.json").write_text(json.dumps({"image": task.name, "error": str(error)}))
        return
    for name, table in (tables | found).items():
        table.write_parquet(folder / f"{name}.parquet", compression="zstd", statistics=True)
    files = [
        {"tile": task.name, "role": role, "artifact": task.recorded[role][0], "path": task.recorded[role][1],
         "fingerprint": fingerprint}
        for role, (_, fingerprint) in task.others.items()
    ]  # fmt: skip
    (folder / "tile.json").write_text(json.dumps({"tile": task.name, "files": files, "counts": counts}))


def _windows(image: Image, task: TileTask) -> Windows:
    rows, cols = tile_windows(image.path, image.shape, task.window_px, task.border_px)
    row0, col0 = (axis.ravel() for axis in np.meshgrid(rows, cols, indexing="ij"))
    ids = cutout_ids(task.survey.name, task.name, row0, col0, task.window_px)
    return Windows(rows, cols, task.window_px, ids)


def _cutouts(image: Image, windows: Windows, task: TileTask) -> pl.DataFrame:
    row0, col0 = (axis.ravel() for axis in np.meshgrid(windows.rows, windows.cols, indexing="ij"))
    ra, dec, healpix = sky_positions(image, row0, col0, windows.side_px)
    n = len(row0)
    values: dict[str, Any] = {
        "cutout_id": windows.cutout_id, "row0": row0, "col0": col0, "ra_deg": ra, "dec_deg": dec, "healpix": healpix,
        "number": np.arange(n), "file_name": [f"c{k}_{task.name}.npy" for k in range(n)],
    }  # fmt: skip
    same: dict[str, Any] = {
        "survey": task.survey.name, "image": task.name, "tile": task.name, "source": task.source,
        **dict.fromkeys(("size_px", "height_px", "width_px"), windows.side_px),
        **dict.fromkeys(("nan_frac", "rms", "peak", "peak_snr")),  # step=integrity measures pixels
    }  # fmt: skip
    table = pl.DataFrame(values).with_columns(pl.lit(value).alias(key) for key, value in same.items())
    return table.select(*BAND_COLUMNS).cast(BAND_COLUMNS)


def _object_tables(
    image: Image, windows: Windows, task: TileTask
) -> tuple[dict[str, pl.DataFrame], dict[str, dict[str, int]]]:
    """Tables of objects that the survey has, and their counts."""
    tables: dict[str, pl.DataFrame] = {}
    counts: dict[str, dict[str, int]] = {}
    survey = task.survey
    for role, facts, make in (
        ("truth", survey.truth, truth_table),
        ("detections", survey.detections, detection_table),
    ):
        if role in task.others and facts is not None:
            tables[role], counts[role] = make(task.others[role][0], facts, image, windows, survey.bands)
    if len(tables) == 2:
        scale = image.pixel_scale_arcsec or survey.pixel_scale_arcsec
        assert scale is not None  # the image has a WCS
        tables["matches"], counts["matches"] = match_tile(
            tables["detections"], tables["truth"], max_sep_arcsec=task.max_sep_px * scale, pixel_scale_arcsec=scale
        )
    return tables, counts
