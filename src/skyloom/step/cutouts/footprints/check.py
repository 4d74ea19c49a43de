"""What is wrong with cutouts of footprints: empty bands, and objects that are not where catalogue and WCS put them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.sky.centroid import centroid, lone
from skyloom.sky.files.image import Image, open_image
from skyloom.store import Artifact, Build

APART_PX = 12.0  # no neighbour within this, so that its light does not pull the centre
FAINTER_MAG = 3.0  # neighbours fainter by more than this pull by less than 0.1 px
MEASURED = 40  # brightest lone objects per tile; their median is good to 0.02 px
FEWEST = 5  # a median of fewer says nothing
EMPTY = "empty band"


class PieceReader:
    """Reads cutouts of one tile from the files of patches, which stay open."""

    def __init__(self, paths: Mapping[str, Mapping[str, Path]]) -> None:
        self._paths = paths
        self._open: dict[tuple[str, str], Image] = {}

    def part(self, band: str, image: str, row0: int, col0: int, height: int, width: int) -> np.ndarray:
        """A rectangle of a patch, float32 (height, width)."""
        key = image, band
        if key not in self._open:
            self._open[key] = open_image(self._paths[image][band])
        return self._open[key].read(row0, col0, height, width)

    def whole(self, band: str, pieces: pl.DataFrame, shape: tuple[int, int]) -> np.ndarray:
        """A cutout, float32 of ``shape``; NaN where no patch reaches."""
        pixels = np.full(shape, np.nan, np.float32)
        for piece in pieces.iter_rows(named=True):
            rows = slice(piece["to_row"], piece["to_row"] + piece["height"])
            cols = slice(piece["to_col"], piece["to_col"] + piece["width"])
            pixels[rows, cols] = self._piece(band, piece)
        return pixels

    def is_empty(self, band: str, pieces: pl.DataFrame) -> bool:
        """Whether all pixels are blank or zero: of a cutout that has light, one row of pixels is read."""
        named = list(pieces.iter_rows(named=True))
        middle = [{**p, "row0": p["row0"] + p["height"] // 2, "height": 1} for p in named]
        return not any(_has_light(self._piece(band, piece)) for piece in (*middle, *named))

    def _piece(self, band: str, piece: Mapping[str, Any]) -> np.ndarray:
        return self.part(band, *(piece[key] for key in ("image", "row0", "col0", "height", "width")))


def check_tile(
    cutouts: pl.DataFrame, pieces: pl.DataFrame, objects: pl.DataFrame | None, mag: str | None, band: str,
    bands: Sequence[str], reader: PieceReader,
) -> dict[str, Any]:  # fmt: skip
    """Look at the pixels of one tile.

    Parameters
    ----------
    cutouts
        cutout_id, file_name, height_px, width_px.
    pieces
        ``PIECE_COLUMNS`` of these.
    objects
        Objects in the cutouts with x_px, y_px and the column ``mag``; None: there are none.
    mag, band
        Magnitude and band that are used to measure positions.
    bands
        Bands that are looked at for light.
    reader
        Where pixels come from.

    Returns
    -------
    dict
        ``empty``: bands without light by cutout_id; ``offsets``: x and y [px] by which bright, lone objects lie from
        where catalogue and WCS put them.
    """
    of = {int(str(key[0])): group for key, group in pieces.group_by("cutout_id", maintain_order=True)}
    empty = {}
    for cutout_id in cutouts["cutout_id"]:
        if found := [one for one in bands if reader.is_empty(one, of[cutout_id])]:
            empty[cutout_id] = found
    offsets: list[tuple[float, float]] = []
    if objects is not None and mag is not None:
        shapes = {row[0]: row[1:] for row in cutouts.select("cutout_id", "height_px", "width_px").iter_rows()}
        for cutout_id, x, y in _bright(objects, mag):
            where = centroid(reader.whole(band, of[cutout_id], shapes[cutout_id]), x, y)
            if where is not None:
                offsets.append((where[0] - x, where[1] - y))
            if len(offsets) == MEASURED:
                break
    return {"empty": empty, "offsets": offsets}


def offset_summary(offsets: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Number, median and scatter (1.4826 times the median absolute deviation) of offsets (N, 2) in pixels."""
    values = np.array(offsets, np.float64).reshape(-1, 2)
    if len(values) < FEWEST:
        return {"objects": len(values), "median_x_px": None, "median_y_px": None, "scatter_px": None}
    middle = np.median(values, axis=0)
    scatter = 1.4826 * float(np.median(np.abs(values - middle)))
    return {
        "objects": len(values),
        "median_x_px": float(middle[0]),
        "median_y_px": float(middle[1]),
        "scatter_px": scatter,
    }


def gate_offset(tile: str, summary: Mapping[str, Any], max_offset_px: float | None) -> None:
    """Stop at a tile whose catalogue does not fit its images; InputError with the numbers."""
    if max_offset_px is None or summary["median_x_px"] is None:
        return
    offset = float(np.hypot(summary["median_x_px"], summary["median_y_px"]))
    if offset > max_offset_px:
        raise InputError(
            f"tile {tile}: {summary['objects']} bright objects lie {offset:.2f} px from where catalogue and WCS put "
            f"them, more than max_offset_px={max_offset_px}; check that the table belongs to these images, and the WCS"
        )


def write_check(
    build: Build, told: Mapping[str, dict[str, Any]], table: pl.DataFrame, left_out: Mapping[str, list[str]]
) -> None:
    """Write ``check.json``: what is missing, what is empty, and how well positions fit, of all and by tile.

    Parameters
    ----------
    build
        Where to write.
    told
        By tile what `check_tile` found.
    table
        Kept cutouts with file_name, covered and parts.
    left_out
        By reason the file names of cutouts that were left out.
    """
    files = dict(zip(table["cutout_id"].to_list(), table["file_name"].to_list(), strict=True))
    empty = {files[int(one)]: bands for item in told.values() for one, bands in item["empty"].items()}
    every = [offset for item in told.values() for offset in item["offsets"]]
    joined = table.filter(pl.col("parts") > 1)
    build.write_json(
        "check.json",
        {
            "cutouts": len(table) + sum(len(names) for names in left_out.values()),
            "kept": len(table),
            "missing": dict(left_out),
            "joined_from_several_images": joined["file_name"].to_list(),
            "partly_covered": dict(table.filter(pl.col("covered") < 1).select("file_name", "covered").iter_rows()),
            "empty_bands": empty,
            "position_offsets": {
                "all": offset_summary(every),
                "tiles": {tile: offset_summary(item["offsets"]) for tile, item in told.items()},
            },
        },
    )
    several = [f"{name}: {', '.join(bands)}" for name, bands in empty.items()]
    build.note(
        empty_bands={"number": len(empty), "names": several[:20], "meaning": "a band of the cutout has no light"}
    )
    build.note(position_offsets=offset_summary(every))


def empty_cutouts(artifact: Artifact) -> pl.DataFrame:
    """Cutouts that no later step should take: cutout_id and reason, ``empty band u, g``.

    Raises
    ------
    StoreError
        The cutouts were not made with ``match``.
    """
    empty = json.loads(artifact.file("check.json").read_text())["empty_bands"]
    names = pl.DataFrame(
        [(name, f"{EMPTY} {', '.join(bands)}") for name, bands in empty.items()],
        schema={"file_name": pl.String, "reason": pl.String}, orient="row",
    )  # fmt: skip
    return artifact.table().join(names, on="file_name").select("cutout_id", "reason")


def _has_light(pixels: np.ndarray) -> bool:
    return bool((np.isfinite(pixels) & (pixels != 0)).any())


def _bright(objects: pl.DataFrame, mag: str) -> list[tuple[int, float, float]]:
    """Objects without near neighbours, brightest first: cutout_id, x_px, y_px."""
    found = []
    known = objects.with_columns(pl.col(mag).cast(pl.Float64).fill_nan(None)).drop_nulls(mag)
    for group in known.partition_by("cutout_id"):
        x, y, brightness = (group[name].to_numpy() for name in ("x_px", "y_px", mag))
        alone = lone(x, y, brightness, apart_px=APART_PX, fainter_mag=FAINTER_MAG)
        found.append(group.filter(pl.Series(alone)))
    if not found:
        return []
    best = pl.concat(found).sort(mag, "cutout_id").head(4 * MEASURED)
    return list(best.select("cutout_id", "x_px", "y_px").iter_rows())
