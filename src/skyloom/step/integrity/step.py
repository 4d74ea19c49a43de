"""step=integrity: what is wrong with the pixels of band cutouts, and the numbers that step=stats needs, in one pass."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import Field, PositiveInt

from skyloom.datamodule.band_index import BandIndex
from skyloom.errors import InputError
from skyloom.progress import progress, say
from skyloom.step.integrity.gate import WHY, corrupt_of
from skyloom.step.integrity.pieces import PLANE_COLUMNS, Piece, read_pieces, write_piece
from skyloom.step.integrity.report import report_of, summary_text
from skyloom.store import Artifact, Build, builds, of_kind

COLUMNS = (
    "cutout_id", "band", "nan_count", "inf_count", "all_zero", "unreadable", "wrong_shape", "wrong_dtype",
    "count", "mean", "m2", "low", "high", "image_std", "message",
)  # fmt: skip


@builds(
    "integrity",
    version=1,
    inputs={"cutouts": of_kind("cutouts")},
    free=("shard_rows", "threads", "workers", "image_roots"),
    pieces=True,
)
def integrity(
    build: Build,
    *,
    cutouts: Artifact,
    shape_px: PositiveInt | None,
    dtypes: Annotated[list[Literal["float32", "float64", "int16", "int32", "uint8"]], Field(min_length=1)],
    shard_rows: PositiveInt,
    threads: PositiveInt,
    workers: PositiveInt,
    image_roots: str | None,
) -> None:
    """Examine every band of every cutout.

    Writes ``integrity.parquet`` (a row per cutout and band, in the order of the index), ``report.json`` in the form of
    the predecessor, and ``summary.txt``. Nothing is removed: later steps ask
    :func:`skyloom.step.integrity.gate.corrupt_cutouts`.

    Parameters
    ----------
    build
        Where to write.
    cutouts
        Artifact of kind ``cutouts`` of a survey with bands.
    shape_px
        Side that every cutout must have in pixels; None takes the sides that the index gives.
    dtypes
        Types of pixels in the files that are right.
    shard_rows
        Cutouts per resumable piece.
    threads
        Threads per process.
    workers
        Processes.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    InputError
        The cutouts have no bands, an id is there twice, or not one image can be read.
    """
    index = BandIndex(cutouts, image_roots=image_roots)
    if len(again := index.table.filter(pl.col("cutout_id").is_duplicated())):
        raise InputError(
            f"cutouts {cutouts.id}: cutout_id {again['cutout_id'][0]} is there more than once; make the cutouts again"
        )
    planes = measure(build, index, np.arange(len(index)), image_roots, shard_rows, threads, workers, bins=False)[0]
    planes = planes.join(_of_layout(cutouts, shape_px, dtypes), on=["cutout_id", "band"], how="left",
                         maintain_order="left")  # fmt: skip
    planes = planes.select(COLUMNS)
    corrupt = corrupt_of(planes)
    report = report_of(cutouts, index, planes, corrupt)
    with build.write("integrity.parquet") as path:
        planes.write_parquet(path, compression="zstd", statistics=True)
    build.write_json("report.json", report)
    text = summary_text(report["summary"])
    with build.write("summary.txt") as path:
        path.write_text(text)
    build.table = "integrity.parquet"
    reasons = dict(corrupt.group_by("reason").len().iter_rows())
    build.count(read=len(index), kept=len(index), corrupt=len(corrupt), sound=len(index) - len(corrupt))
    build.note(bands=index.bands, unit=index.unit, reasons={name: reasons[name] for name in WHY if name in reasons})
    say(text.rstrip())


def measure(
    build: Build, index: BandIndex, rows: np.ndarray, image_roots: str | None, shard_rows: int, threads: int,
    workers: int, *, bins: bool,
) -> tuple[pl.DataFrame, np.ndarray | None]:  # fmt: skip
    """Measure rows of an index in resumable pieces.

    Returns
    -------
    tuple
        A row per cutout and band with `PLANE_COLUMNS`, and the histograms int64 (C, BINS) if ``bins`` is set.

    Raises
    ------
    InputError
        Not one plane can be read.
    """
    tasks = {
        f"{start:09d}-{shard_rows}": Piece(
            index.artifact.path, image_roots, rows[start : start + shard_rows], threads, bins
        )
        for start in range(0, len(rows), shard_rows)
    }
    if not tasks:
        return pl.DataFrame(schema=PLANE_COLUMNS), None
    with progress(len(tasks), f"{build.request.step}: reading", "pieces") as bar:
        pieces = build.shards_in_parallel(tasks, write_piece, workers=workers, done=bar.advance)
    planes, totals = read_pieces(pieces)
    if planes["unreadable"].all():
        raise InputError(f"none of {len(rows)} cutouts can be read; the first: {planes['message'][0]}")
    return planes, totals


def _of_layout(cutouts: Artifact, shape_px: int | None, dtypes: Sequence[str]) -> pl.DataFrame:
    """Wrong shapes and dtypes by cutout and band, from the tables: the fingerprints say that the files are those."""
    images = cutouts.table("images.parquet")
    bands = cutouts.notes["bands"]
    first = images.filter(pl.col("band") == bands[0])
    images = images.join(first.select("image", height0="height_px", width0="width_px"), on="image", how="left")
    right = {np.dtype(name) for name in dtypes}
    wrong = [np.dtype(name).newbyteorder("=") not in right for name in images["dtype"]]
    images = images.select(
        "image", "band", "height_px", "width_px",
        odd=pl.col("height_px").ne_missing(pl.col("height0")) | pl.col("width_px").ne_missing(pl.col("width0")),
        wrong_dtype=pl.Series(wrong, dtype=pl.Boolean),
    )  # fmt: skip
    sides = cutouts.table("cutouts.parquet").select("cutout_id", side_h="height_px", side_w="width_px")
    wrong_side = (pl.col("side_h") != shape_px) | (pl.col("side_w") != shape_px) if shape_px else pl.lit(False)
    pieces = cutouts.table("pieces.parquet").join(images, on="image", how="left")
    beyond = (
        (pl.min_horizontal("row0", "col0", "to_row", "to_col") < 0)
        | (pl.col("row0") + pl.col("height") > pl.col("height_px"))
        | (pl.col("col0") + pl.col("width") > pl.col("width_px"))
        | (pl.col("to_row") + pl.col("height") > pl.col("side_h"))
        | (pl.col("to_col") + pl.col("width") > pl.col("side_w"))
    )
    found = (
        pieces.join(sides, on="cutout_id", how="left")
        .group_by("cutout_id", "band")
        .agg(odd=(pl.col("odd") | beyond).fill_null(True).any(), wrong_dtype=pl.col("wrong_dtype").any())
    )
    every = sides.join(pl.DataFrame({"band": bands}), how="cross").join(found, on=["cutout_id", "band"], how="left")
    return every.select(
        "cutout_id", "band", wrong_shape=wrong_side | pl.col("odd").fill_null(False),
        wrong_dtype=pl.col("wrong_dtype").fill_null(False),
    )  # fmt: skip
