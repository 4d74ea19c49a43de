"""Reads the tables of cutouts artifacts and writes those of a new one, for the steps that reshape an index."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.sky.geometry.sphere import local_scale_arcsec, unit_vectors
from skyloom.store import Artifact, Build
from skyloom.store.fingerprint import sha256_file

TABLES = ("cutouts.parquet", "images.parquet")


def read_tables(cutouts: Artifact) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read ``cutouts.parquet`` and ``images.parquet`` after checking that they are whole and fit together.

    Raises
    ------
    InputError
        A file is missing, damaged or changed, has fewer rows than the manifest says, or names an image that is not
        listed.
    """
    for name in TABLES:  # only these: verifying the pixels of packed cutouts would take hours
        entry, path = cutouts.manifest["files"].get(name), cutouts.path / name
        if entry is None or not path.exists() or sha256_file(path) != entry["sha256"]:
            raise InputError(f"cutouts {cutouts.id} are damaged: {path} is missing or not what the manifest says; "
                             "delete the folder and make them again")  # fmt: skip
    table, images = (cutouts.table(name) for name in TABLES)
    if len(table) != cutouts.counts["kept"]:
        raise InputError(f"cutouts {cutouts.id} have {len(table)} rows, the manifest says {cutouts.counts['kept']}")
    if lost := sorted(set(table["image"].unique()) - set(images["image"])):
        raise InputError(f"cutouts {cutouts.id} name the image {lost[0]}, which images.parquet does not list")
    return table, images


def refuse_bands(cutouts: Artifact, step: str) -> None:
    """Refuse cutouts of surveys with bands, whose objects and pieces ``step`` would lose.

    Raises
    ------
    InputError
        The images of the cutouts have several bands.
    """
    if "pieces.parquet" in cutouts.manifest["files"]:
        raise InputError(
            f"step={step}: cutouts {cutouts.id} are of a survey with bands; expected cutouts of one image each. Index "
            "all tiles in one step=cutouts instead (images=[FOLDER,FOLDER])"
        )


def write_tables(build: Build, **tables: pl.DataFrame) -> None:
    """Write each table as ``<name>.parquet``; ``cutouts`` becomes the main one."""
    for name, table in tables.items():
        with build.write(f"{name}.parquet") as path:
            table.write_parquet(path, compression="zstd", statistics=True)
    build.table = "cutouts.parquet"


def window_scales(table: pl.DataFrame, images: pl.DataFrame) -> np.ndarray:
    """Largest sky extent of a pixel per window, in arcsec: that of the header or that measured on its image.

    Parameters
    ----------
    table
        Rows of an index, all with a position.
    images
        Its ``images.parquet``.

    Returns
    -------
    ndarray
        float64 (N,); NaN where neither is known.
    """
    header = table.select("image").join(
        images.group_by("image").agg(pl.col("pixel_scale_arcsec").cast(pl.Float64).max()), on="image", how="left",
        maintain_order="left",
    )["pixel_scale_arcsec"].to_numpy()  # fmt: skip
    scale = np.array(header, dtype=np.float64)
    row0, col0, size = (table[c].to_numpy().astype(np.int64) for c in ("row0", "col0", "size_px"))
    vectors = unit_vectors(table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy())
    for rows in rows_by(table, "image"):
        measured = local_scale_arcsec(row0[rows], col0[rows], size[rows], vectors[rows])
        scale[rows] = np.fmax(scale[rows], measured if measured > 0 else np.nan)
    return scale


def rows_by(table: pl.DataFrame, column: str) -> list[np.ndarray]:
    """Row numbers of each value of a column, in the order of the values."""
    codes = table[column].rank("dense").to_numpy()
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []


def carried_notes(artifacts: Sequence[Artifact], table: pl.DataFrame) -> dict[str, Any]:
    """Facts that all of the artifacts agree on, and the window sizes of the new index."""
    first = artifacts[0].notes
    same = {name: value for name, value in first.items() if all(a.notes.get(name) == value for a in artifacts)}
    sizes = table["size_px"].value_counts().sort("size_px").rows()
    same["window_px"] = sizes[0][0] if len(sizes) == 1 else None
    for name in ("sizes_px", "packed"):  # of the rows that were; the new index reads the images, not packed pixels
        same.pop(name, None)
    return same | ({"sizes_px": {str(size): number for size, number in sizes}} if len(sizes) > 1 else {})
