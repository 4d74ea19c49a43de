"""The patches that cutouts are taken from: their images opened once, checked, listed, and sorted into grids."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from skyloom.errors import InputError
from skyloom.sky.geometry.patch_grid import PatchGrid, patch_grids
from skyloom.sky.survey.facts import Survey
from skyloom.step.cutouts.tiles.columns import BAND_IMAGE_COLUMNS
from skyloom.step.cutouts.tiles.images import band_rows, open_bands
from skyloom.step.tiles import Tile, TileSet
from skyloom.store import Build


@dataclass(frozen=True)
class PatchTask:
    """What a worker needs to list one patch."""

    tile: Tile
    recorded: Mapping[str, tuple[str | None, str]]
    """by band how the index refers to the file"""
    survey: Survey
    skip_bad: bool


@dataclass(frozen=True)
class Patches:
    """All patches that can be used.

    Attributes
    ----------
    images : polars.DataFrame
        ``images.parquet``, a row per patch and band.
    grids : list of PatchGrid
        The patches by grid.
    """

    images: pl.DataFrame
    grids: list[PatchGrid]

    def paths(self, tiles: TileSet) -> dict[str, Mapping[str, Path]]:
        """Files of each patch by band, where they lie now."""
        used = set(self.images["image"])
        return {tile.name: tile.images for tile in tiles.tiles if tile.name in used}


def list_patch(path: Path, task: PatchTask) -> None:
    """Write the piece of one patch: its rows of ``images.parquet``, or why it cannot be used, as JSON."""
    try:
        with open_bands(task.tile.name, task.tile.images) as images:
            rows = band_rows(task.tile.name, images, task.tile.fingerprints, task.recorded, task.survey)
            found: dict[str, object] = {"rows": rows}
    except InputError as error:
        if not task.skip_bad:
            raise
        found = {"patch": task.tile.name, "error": str(error)}
    path.write_text(json.dumps(found))


def read_patches(build: Build, tiles: TileSet, survey: Survey, *, skip_bad: bool, workers: int) -> Patches:
    """List all patches, several at a time.

    Raises
    ------
    InputError
        A patch cannot be used and ``skip_bad`` is not set, or none is left.
    """
    tasks = {
        f"patch-{i:06d}": PatchTask(
            tile, {band: tiles.recorded_path(path) for band, path in tile.images.items()}, survey, skip_bad
        )
        for i, tile in enumerate(tiles.tiles)
    }
    pieces = build.shards_in_parallel(tasks, list_patch, workers=workers, describe=lambda task: task.tile.name)
    told = [json.loads(piece.read_text()) for piece in pieces]
    bad = [item for item in told if "error" in item]
    build.drop("bad tile", len(bad), why="the tile cannot be used (on_bad_image=skip)",
               examples=[f"{item['patch']}: {item['error']}" for item in bad])  # fmt: skip
    if len(bad) == len(told):
        raise InputError(
            f"none of the {len(told)} tiles of survey {survey.name} can be used; the first: {bad[0]['error']}"
        )
    images = pl.DataFrame([row for item in told for row in item.get("rows", [])], schema=BAND_IMAGE_COLUMNS)
    first = images.unique("image", keep="first", maintain_order=True)
    shapes = list(zip(first["height_px"].to_list(), first["width_px"].to_list(), strict=True))
    return Patches(images, patch_grids(first["image"].to_list(), first["fits_header"].to_list(), shapes))
