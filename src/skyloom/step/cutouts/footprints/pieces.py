"""Where the cutouts of another survey lie on the patches of this one, and which patches fill each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from skyloom.errors import ConfigError, InputError
from skyloom.sky.geometry.footprint import outline, pixel_boxes, pixels_of, sky_of
from skyloom.sky.geometry.patch_grid import Filling, PatchGrid, fill
from skyloom.sky.geometry.wcs_cards import wcs_of
from skyloom.step.cutouts.tiles.columns import PIECE_COLUMNS

BOX_COLUMNS = {
    "row": pl.Int64, "grid": pl.Int64, "row0": pl.Int64, "col0": pl.Int64, "height": pl.Int64, "width": pl.Int64,
}  # fmt: skip


@dataclass(frozen=True)
class BoxTask:
    """What a worker needs to find the footprints of the cutouts on one image."""

    image: str
    cards: str
    """FITS cards of the image's WCS"""
    cutouts: pl.DataFrame
    """row (in the index that is matched), row0, col0, height_px, width_px"""
    grids: list[PatchGrid]


@dataclass(frozen=True)
class Placed:
    """Cutouts on patches.

    Attributes
    ----------
    table : polars.DataFrame
        One row per cutout that patches reach: ``row`` of the index that is matched, ``grid``, ``image`` (the patch with
        most of it), ``row0``, ``col0`` in that patch, ``height_px``, ``width_px``, ``covered`` (part of the area that
        patches fill), ``parts`` (number of pieces).
    pieces : polars.DataFrame
        Rectangles of patches that fill them, ``PIECE_COLUMNS`` with ``row`` in the place of ``cutout_id``.
    """

    table: pl.DataFrame
    pieces: pl.DataFrame


def find_boxes(path: Path, task: BoxTask) -> None:
    """Write the piece of one image: the rectangle of pixels of each grid that shows each of its cutouts."""
    x, y = outline(*(task.cutouts[name].to_numpy() for name in ("row0", "col0", "height_px", "width_px")))
    ra, dec = sky_of(wcs_of(task.cards), x, y)
    if not np.isfinite(ra).all():
        raise InputError(f"image {task.image} of the cutouts to match: its WCS gives no position for some pixels")
    found = []
    for number, grid in enumerate(task.grids):
        boxes = pixel_boxes(*pixels_of(grid.wcs, ra, dec))
        first, last = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
        start, end = grid.rectangles[:, :2], grid.rectangles[:, :2] + grid.rectangles[:, 2:]
        on = ((first < end) & (last > start)).all(axis=2).any(axis=1) & (boxes[:, 2] > 0)
        columns = [task.cutouts["row"].to_numpy()[on], np.full(on.sum(), number), *boxes[on].T]
        found.append(pl.DataFrame(dict(zip(BOX_COLUMNS, columns, strict=True)), schema=BOX_COLUMNS))
    pl.concat(found).write_parquet(path)


def with_side(boxes: pl.DataFrame, placed: Placed, side_px: int | None) -> pl.DataFrame:
    """Square boxes of one side that each hold the old one in their middle.

    Parameters
    ----------
    boxes
        ``BOX_COLUMNS``; those larger than the side (on a grid that is not the best one) are left out.
    placed
        The best place of each cutout; their footprints must fit.
    side_px
        Side of all; None: the longest side of a footprint.

    Raises
    ------
    ConfigError
        A footprint is larger than ``side_px``.
    """
    longest = int(np.max(placed.table.select("height_px", "width_px").to_numpy()))
    if side_px is not None and side_px < longest:
        raise ConfigError(
            f"side_px={side_px}: the longest side of a footprint is {longest} px; choose at least that, or null"
        )
    side = longest if side_px is None else side_px
    return boxes.filter(pl.max_horizontal("height", "width") <= side).with_columns(
        row0=pl.col("row0") - (side - pl.col("height")) // 2,
        col0=pl.col("col0") - (side - pl.col("width")) // 2,
        height=pl.lit(side, pl.Int64),
        width=pl.lit(side, pl.Int64),
    )


def place(boxes: pl.DataFrame, grids: list[PatchGrid]) -> Placed:
    """Choose for each cutout the grid and the patches that fill it best.

    See :class:`skyloom.sky.geometry.patch_grid.Filling`. Of grids that do equally well the first is taken.
    """
    rows: list[dict[str, object]] = []
    pieces: list[np.ndarray] = []
    names: list[list[str]] = []
    for (row,), group in boxes.sort("row", "grid").group_by("row", maintain_order=True):
        options = [(fill(grids[box[1]], np.array(box[2:])), box) for box in group.iter_rows()]
        filling, box = max(options, key=lambda option: option[0].rank)  # the first of equals
        if not len(filling.pieces):
            continue
        grid = grids[box[1]]
        rows.append({"row": row, **_row(filling, box, grid)})
        pieces.append(np.column_stack([np.full(len(filling.pieces), row), filling.pieces[:, 1:]]))
        names.append([grid.names[patch] for patch in filling.pieces[:, 0]])
    table = pl.DataFrame(rows, schema=_PLACED)
    keys = ["row", *list(PIECE_COLUMNS)[2:]]
    numbers = np.concatenate(pieces) if pieces else np.empty((0, len(keys)), np.int64)
    parts = pl.DataFrame({key: numbers[:, i] for i, key in enumerate(keys)})
    parts = parts.insert_column(1, pl.Series("image", [name for one in names for name in one], dtype=pl.String))
    return Placed(table, parts)


_PLACED = {
    "row": pl.Int64, "grid": pl.Int64, "image": pl.String, "row0": pl.Int64, "col0": pl.Int64, "height_px": pl.Int64,
    "width_px": pl.Int64, "covered": pl.Float64, "parts": pl.Int64,
}  # fmt: skip


def _row(filling: Filling, box: tuple[int, ...], grid: PatchGrid) -> dict[str, object]:
    """What the table says of one cutout."""
    most = int(filling.pieces[(filling.pieces[:, 3] * filling.pieces[:, 4]).argmax(), 0])
    return {
        "grid": box[1],
        "image": grid.names[most],
        "row0": box[2] - int(grid.rectangles[most, 0]),
        "col0": box[3] - int(grid.rectangles[most, 1]),
        "height_px": box[4],
        "width_px": box[5],
        "covered": filling.covered,
        "parts": len(filling.pieces),
    }
