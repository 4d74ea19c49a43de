"""Strategy footprints of step=cutouts: what another survey shows of the cutouts of a survey with bands."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.progress import progress
from skyloom.sky.survey.facts import Survey
from skyloom.step.cutouts.footprints.check import write_check
from skyloom.step.cutouts.footprints.join import count_objects, cutout_table, write_tables
from skyloom.step.cutouts.footprints.patches import Patches, read_patches
from skyloom.step.cutouts.footprints.pieces import BoxTask, Placed, find_boxes, place, with_side
from skyloom.step.cutouts.footprints.regions import Regions, select_rows
from skyloom.step.cutouts.footprints.tile import TABLES, FootprintTask, describe_tile
from skyloom.step.tiles import TileSet
from skyloom.store import Artifact, Build

OUTSIDE, PARTLY = "no image", "partly covered"


def footprint_cutouts(
    build: Build,
    *,
    tiles: TileSet,
    match: Artifact,
    survey: Survey,
    shape: Literal["constant", "footprint"],
    side_px: int | None,
    min_coverage: float,
    max_offset_px: float | None,
    truth_margin_px: int,
    workers: int,
    skip_bad: bool = False,
) -> None:
    """Write the index of what a survey shows of cutouts of another one; no pixel is copied.

    Writes ``cutouts.parquet`` (ids, tiles, numbers and file names are those of ``match``), ``images.parquet``,
    ``pieces.parquet``, ``truth/<tile>.parquet``, ``detections/<tile>.parquet`` and ``check.json``.

    Parameters
    ----------
    build
        Where to write.
    tiles
        Patches of the survey.
    match
        Cutouts of a survey with bands.
    survey
        Facts of the survey.
    shape
        ``constant``: squares of one side, each around its footprint; ``footprint``: the smallest rectangle of whole
        pixels that holds it.
    side_px
        Side of ``constant`` in pixels; None: the longest side of a footprint.
    min_coverage
        Cutouts of which patches fill a smaller part of the area are dropped and counted.
    max_offset_px
        Largest median distance of bright objects of a tile from their catalogue positions; None: report only.
    truth_margin_px
        True objects up to this many pixels outside of a cutout are in its table, too, with ``centre_outside``.
    workers
        Patches, parts of tables and tiles worked on at the same time, each by a process of its own.
    skip_bad
        Whether patches that cannot be used are left out and counted; otherwise the first one is an error.

    Raises
    ------
    InputError
        A file is missing, damaged or does not fit; no cutout lies on a patch; or positions are off.
    ConfigError
        A footprint is larger than ``side_px``.
    """
    patches = read_patches(build, tiles, survey, skip_bad=skip_bad, workers=workers)
    matched = match.table("cutouts.parquet").with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    placed = _place(build, match, matched, patches, survey, shape, side_px, min_coverage, workers)
    table = cutout_table(placed, matched, patches, survey, build.request.id)
    kept = table.filter(pl.col("covered") >= min_coverage)
    there = set(table["cutout_id"])
    left_out = {
        OUTSIDE: matched.filter(~pl.col("cutout_id").is_in(list(there)))["file_name"].to_list(),
        PARTLY: table.filter(pl.col("covered") < min_coverage)["file_name"].to_list(),
    }
    why = {
        OUTSIDE: f"no image of survey {survey.name} shows any of it",
        PARTLY: f"images of one pixel grid fill less than min_coverage={min_coverage} of it",
    }
    for reason, names in left_out.items():
        build.drop(reason, len(names), why=why[reason], examples=names)
    if kept.is_empty():
        shown = ", ".join(f"{len(names)} {reason}" for reason, names in left_out.items() if names)
        raise InputError(
            f"none of the {len(matched)} cutouts of {match.id} lies on the images of survey {survey.name} ({shown}); "
            "check that both show the same sky, or lower min_coverage"
        )
    pieces = placed.pieces.join(kept.select("row", "cutout_id"), on="row", maintain_order="left")
    told = _describe(build, tiles, kept, pieces, patches, survey, max_offset_px, truth_margin_px, workers)
    write_tables(build, kept, pieces, patches.images, told)
    write_check(build, {tile: json.loads((p / "tile.json").read_text()) for tile, p in told.items()}, kept, left_out)
    build.count(read=len(matched), kept=len(kept), joined=kept.filter(pl.col("parts") > 1).height)
    build.note(
        survey=survey.name, strategy="footprints", match=match.id, shape=shape,
        window_px=int(kept["size_px"][0]) if shape == "constant" else None,
        bands=[band.name for band in survey.bands],
        pixel_scale_arcsec=survey.pixel_scale_arcsec or patches.images["pixel_scale_arcsec"][0],
        zero_point_mag={band.name: band.zero_point_mag for band in survey.bands},
    )  # fmt: skip


def _place(
    build: Build, match: Artifact, matched: pl.DataFrame, patches: Patches, survey: Survey, shape: str,
    side_px: int | None, min_coverage: float, workers: int,
) -> Placed:  # fmt: skip
    """Find the footprints, image by image, and what fills them."""
    images = match.table("images.parquet").unique("image", keep="first", maintain_order=True)
    cards = dict(zip(images["image"], images["fits_header"], strict=True))
    tasks = {
        f"box-{i:06d}": BoxTask(str(group["image"][0]), cards[group["image"][0]], group, patches.grids)
        for i, group in enumerate(
            matched.select("row", "image", "row0", "col0", "height_px", "width_px").partition_by(
                "image", maintain_order=True
            )
        )
    }
    found = build.shards_in_parallel(tasks, find_boxes, workers=workers, describe=lambda task: task.image)
    boxes = pl.concat([pl.read_parquet(piece) for piece in found])
    placed = place(boxes, patches.grids)
    enough = Placed(placed.table.filter(pl.col("covered") >= min_coverage), placed.pieces)
    if shape == "footprint" or enough.table.is_empty():
        return placed
    return place(with_side(boxes, enough, side_px), patches.grids)


def _describe(
    build: Build, tiles: TileSet, kept: pl.DataFrame, pieces: pl.DataFrame, patches: Patches, survey: Survey,
    max_offset_px: float | None, truth_margin_px: int, workers: int,
) -> dict[str, Path]:  # fmt: skip
    """Make the tables of all tiles and look at their pixels; the pieces by tile."""
    names = kept["tile"].unique(maintain_order=True).to_list()
    number = {name: i for i, name in enumerate(names)}
    scale = max(patches.images["pixel_scale_arcsec"])
    sides = kept.select("height_px", "width_px").max().to_numpy()[0] / 2 + truth_margin_px
    regions = Regions.around(
        kept["ra_deg"].to_numpy(), kept["dec_deg"].to_numpy(), np.array([number[name] for name in kept["tile"]]),
        float(np.hypot(*sides) * scale * 1.1),
    )  # fmt: skip
    rows: dict[str, list[Path]] = {}
    read: dict[str, int] = {}
    for name in TABLES:
        own = [path for tile in tiles.tiles if (path := getattr(tile, name)) is not None]
        whole = getattr(tiles, f"survey_{name}")
        paths = [whole] if whole is not None else own
        if (facts := getattr(survey, name)) and paths:
            rows[name], read[name] = select_rows(build, name, paths, facts, survey.bands, regions, workers)
    files = patches.paths(tiles)
    tasks = {
        f"tile-{number[name]:06d}": FootprintTask(
            name, number[name], group, part, patches.grids, rows, {i: files[i] for i in part["image"].unique()},
            survey, max_offset_px, truth_margin_px,
        )
        for name in names
        for group in [kept.filter(pl.col("tile") == name)]
        for part in [pieces.filter(pl.col("row").is_in(group["row"].to_list()))]
    }  # fmt: skip
    with progress(len(tasks), "cutouts", "tiles") as bar:
        done = build.shards_in_parallel(
            tasks, describe_tile, workers=workers, done=bar.advance, describe=lambda task: task.tile
        )
    told = dict(zip(names, done, strict=True))
    count_objects(build, told, read)
    return told
