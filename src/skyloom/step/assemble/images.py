"""Which cutouts become images of a data set, in which order, and why the others do not."""

from collections.abc import Sequence

import polars as pl

from skyloom.datamodule.band_index import BandIndex
from skyloom.errors import InputError
from skyloom.progress import progress
from skyloom.step.integrity.gate import corrupt_cutouts
from skyloom.store import Artifact

DROPPED = "_dropped"
WHY = {
    "not annotated": "the annotations have no such image",
    "no partner": "the cutouts of match have none with this id",
    "corrupt cutout": "an integrity report says so; dropped.parquet tells in which way",
    "border cutout": "it reaches, or may reach, into a cell of another part",
}
_KEPT = ("cutout_id", "tile", "number", "file_name", "height_px", "width_px", "split", "ra_deg", "dec_deg", "healpix")


def marked(
    cutouts: Artifact, annotated: pl.DataFrame, match: Artifact | None, integrity: Sequence[Artifact]
) -> pl.DataFrame:
    """The index of cutouts, each with the first reason to leave it out, or null.

    Parameters
    ----------
    cutouts
        Artifact of kind ``cutouts`` of a survey with bands.
    annotated
        The images of the annotations.
    match
        Cutouts of which each image needs one of the same id.
    integrity
        Integrity reports of ``cutouts`` or ``match``.

    Returns
    -------
    DataFrame
        ``cutouts.parquet`` with the columns ``_dropped`` and ``detail``, String.

    Raises
    ------
    InputError
        Cutouts without tiles, annotations of other cutouts, repeated ids, a report of other cutouts.
    """
    table = cutouts.table("cutouts.parquet")
    if lost := [name for name in ("tile", "number", "file_name", "height_px", "width_px") if name not in table.columns]:
        raise InputError(
            f"cutouts {cutouts.id} have no column {lost[0]}; expected cutouts of a survey with bands, made by "
            "step=cutouts survey=roman or survey=lsst"
        )
    for name, frame in ((f"cutouts {cutouts.id}", table), ("images.parquet of the annotations", annotated)):
        if (again := frame.filter(pl.col("cutout_id").is_duplicated())).height:
            raise InputError(f"{name}: cutout_id {again['cutout_id'][0]} is there {len(again)} times; make them again")
    if len(stray := annotated.join(table, on="cutout_id", how="anti")):
        raise InputError(
            f"{len(stray)} images of the annotations are not in cutouts {cutouts.id} (cutout_id "
            f"{stray['cutout_id'][0]}); the annotations are damaged, make them again"
        )
    table = table.with_columns(
        pl.when(~pl.col("cutout_id").is_in(annotated["cutout_id"].implode())).then(pl.lit("not annotated"))
        .alias(DROPPED), detail=pl.lit(None, pl.String),
    )  # fmt: skip
    if match is not None:
        partners = match.table("cutouts.parquet")["cutout_id"].implode()
        table = _mark(table, ~pl.col("cutout_id").is_in(partners), "no partner")
    for report in integrity:
        table = _mark_corrupt(table, report, [one.id for one in (cutouts, match) if one is not None])
    return table


def kept_images(table: pl.DataFrame, annotated: pl.DataFrame) -> pl.DataFrame:
    """Rows that have a part, by tile and number, with image_id from 1 and what the annotations know of the images."""
    kept = table.filter(pl.col("split").is_not_null()).sort("tile", "number", "cutout_id")
    kept = kept.select(name for name in _KEPT if name in kept.columns)
    more = [name for name in annotated.columns if name not in kept.columns and name != "annotations"]
    kept = kept.join(annotated.select("cutout_id", *more), on="cutout_id", how="left", maintain_order="left")
    number = pl.int_range(1, len(kept) + 1, dtype=pl.Int64)
    return kept.select(number.alias("image_id"), pl.all())


def headers_of(cutouts: Artifact, ids: pl.Series) -> pl.Series:
    """World coordinates of cutouts as FITS cards, String (N,)."""
    index = BandIndex(cutouts)
    headers = []
    with progress(len(ids), "headers", "images") as bar:
        for row in index.rows_of(ids.to_numpy()):
            headers.append(index.header(int(row)))
            bar.advance()
    return pl.Series("fits_header", headers, dtype=pl.String)


def _mark_corrupt(table: pl.DataFrame, report: Artifact, known: Sequence[str]) -> pl.DataFrame:
    examined = report.inputs["cutouts"].id
    if examined not in known:
        raise InputError(
            f"integrity {report.id} is about cutouts {examined}; expected one about {' or '.join(known)} (the cutouts "
            "of the annotations, or match)"
        )
    reasons = corrupt_cutouts(report).select("cutout_id", _why="detail")
    table = table.join(reasons, on="cutout_id", how="left", maintain_order="left")
    table = table.with_columns(
        pl.when(pl.col(DROPPED).is_null()).then(pl.col("_why")).otherwise("detail").alias("detail")
    )
    return _mark(table, pl.col("_why").is_not_null(), "corrupt cutout").drop("_why")


def _mark(table: pl.DataFrame, where: pl.Expr, reason: str) -> pl.DataFrame:
    return table.with_columns(
        pl.when(pl.col(DROPPED).is_null() & where).then(pl.lit(reason)).otherwise(DROPPED).alias(DROPPED)
    )
