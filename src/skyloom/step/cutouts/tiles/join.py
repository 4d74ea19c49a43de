"""Joins the pieces of all tiles to an index of band cutouts and tells what was left out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from skyloom.errors import InputError
from skyloom.sky.survey.facts import Survey
from skyloom.step.cutouts.tiles.columns import FILE_COLUMNS, PIECE_COLUMNS
from skyloom.step.cutouts.tiles.pieces import TABLES
from skyloom.store import Build

REASONS = {
    "no_position": ("{} without position", "the position is missing or impossible"),
    "elsewhere": ("{} off the tile", "the position is not on the tile; a table of the whole survey is read for each"),
    "outside": ("{} outside cutouts", "the position is in the border of the tile or in a gap between cutouts"),
    "repeated": ("{} repeated", "an object of the same id stands before it in the table of the tile"),
    "other_class": ("{} of other class", "the class is neither a galaxy nor a star (survey.truth.classes)"),
}
ONE = {"truth": "true object", "detections": "detection"}


def join_tiles(build: Build, pieces: list[Path], *, survey: Survey, window_px: int) -> None:
    """Write the artifact from the pieces of the tiles, in the order of their names.

    Raises
    ------
    InputError
        No tile can be used, units differ, or two cutouts have one id.
    """
    bad = [json.loads((p / "bad.json").read_text()) for p in pieces if (p / "bad.json").exists()]
    good = [p for p in pieces if not (p / "bad.json").exists()]
    build.drop("bad tile", len(bad), why="the tile cannot be used (on_bad_image=skip)",
               examples=[f"{item['image']}: {item['error']}" for item in bad])  # fmt: skip
    if not good:
        raise InputError(f"none of the {len(pieces)} tiles can be used; the first one: {bad[0]['error']}")
    told = [json.loads((p / "tile.json").read_text()) for p in good]
    cutouts = pl.concat([pl.read_parquet(p / "cutouts.parquet") for p in good])
    if cutouts["cutout_id"].n_unique() != len(cutouts):
        raise InputError("two cutouts have the same cutout_id; rename one of the tiles and index again")
    images = pl.concat([pl.read_parquet(p / "images.parquet") for p in good])
    unit = one_unit(images)
    _count(build, told)
    build.count(cutouts=len(cutouts), kept=len(cutouts))
    build.note(
        survey=survey.name,
        strategy="grid",
        match=None,
        window_px=window_px,
        bands=[band.name for band in survey.bands],
        unit=unit,
        pixel_scale_arcsec=survey.pixel_scale_arcsec or images["pixel_scale_arcsec"][0],
        zero_point_mag={band.name: band.zero_point_mag for band in survey.bands},
    )
    whole = cutouts.select(
        "cutout_id", "image", "row0", "col0", height="height_px", width="width_px", to_row=pl.lit(0), to_col=pl.lit(0)
    )
    files = pl.DataFrame([file for item in told for file in item["files"]], schema=FILE_COLUMNS)
    tables = {"cutouts": cutouts, "images": images, "pieces": whole.cast(PIECE_COLUMNS), "files": files}
    for name, table in tables.items():
        with build.write(f"{name}.parquet") as path:
            table.write_parquet(path, compression="zstd", statistics=True)
    for name in TABLES:
        _tables_of_tiles(build, name, good, [item["tile"] for item in told])
    build.table = "cutouts.parquet"


def one_unit(images: pl.DataFrame) -> str | None:
    """The unit of all images; InputError when they differ."""
    units = images["unit"].drop_nulls().unique().sort().to_list()
    if len(units) > 1:
        first = {unit: images.filter(pl.col("unit") == unit)["image"][0] for unit in units}
        raise InputError(f"the images have different units ({first}); index them apart")
    return units[0] if units else None


def _count(build: Build, told: list[dict[str, Any]]) -> None:
    """Sums over the tiles: what was read, kept and left out of each table."""
    for table in TABLES:
        total: Counter[str] = Counter()
        where: dict[str, list[str]] = {}
        for item in told:
            counts = item["counts"].get(table, {})
            total.update(counts)
            for reason, number in counts.items():
                where.setdefault(reason, []).extend([f"tile {item['tile']}: {number}"] if number else [])
        if table == "matches":  # of the detections that are kept: matched + beaten + unmatched
            build.count(**{f"detections_{verb}": number for verb, number in total.items()})
            continue
        build.count(**{f"{table}_{verb}": total[verb] for verb in ("read", "kept") if verb in total})
        for reason, (label, why) in REASONS.items():
            build.drop(label.format(ONE[table]), total[reason], why=why, examples=where.get(reason))


def _tables_of_tiles(build: Build, name: str, pieces: list[Path], tiles: list[str]) -> None:
    """Give the tables of the pieces their place; the pieces themselves go when the artifact is whole."""
    sources = [(piece / f"{name}.parquet", tile) for piece, tile in zip(pieces, tiles, strict=True)]
    if not any(source.exists() for source, _ in sources):
        return
    with build.write(name) as folder:
        folder.mkdir()
        for source, tile in sources:
            (folder / f"{tile}.parquet").hardlink_to(source)
