"""step=deduplicate: one cutout where several show the same pixels of an image or the same place on the sky."""

from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import Field

from skyloom.errors import ConfigError
from skyloom.sky.geometry.sphere import angle_arcsec, unit_vectors
from skyloom.sky.window.overlap import keep_best, nonoverlapping, sky_pairs
from skyloom.step.indexes import carried_notes, read_tables, refuse_bands, rows_by, write_tables
from skyloom.store import Artifact, Build, builds, of_kind

DROPPED = {
    "cutout_id": pl.Int64,
    "reason": pl.String,
    "duplicate_of": pl.Int64,
    "separation_arcsec": pl.Float64,
    "image": pl.String,
}

WHY = {
    "overlap": "shares pixels with another cutout of its image that is kept there",
    "sky": "its centre is near that of a cutout of another image, with a lower rms",
}


@builds("cutouts", version=1, inputs={"cutouts": of_kind("cutouts")})
def deduplicate(
    build: Build,
    *,
    cutouts: Artifact,
    within: Literal["nonoverlapping"] | None,
    across: Literal["sky"] | None,
    min_separation: Annotated[float, Field(gt=0, le=1)],
) -> None:
    """Remove cutouts that show what another one shows.

    Writes ``cutouts.parquet`` (the rows that are kept, in the order they had), ``images.parquet`` and
    ``dropped.parquet``: ``cutout_id``, ``reason`` (``overlap`` or ``sky``), ``duplicate_of``, ``separation_arcsec``
    between the centres (null for ``overlap``), ``image``.

    Parameters
    ----------
    build
        Where to write.
    cutouts
        Artifact of kind ``cutouts``.
    within
        ``nonoverlapping``: within an image keep cutouts that share no pixel, as many as a grid allows; None keeps all.
    across
        ``sky``: of cutouts of different images whose centres are near, keep that with the lowest rms; None keeps all.
        Done after ``within``, on what that has kept. Cutouts without a position are kept and counted.
    min_separation
        Centres nearer than this many window sides are duplicates; of two different sides the smaller counts.

    Raises
    ------
    ConfigError
        Both parts are switched off.
    InputError
        A table of the input is damaged.
    """
    if within is None and across is None:
        raise ConfigError("within and across are both null, so nothing would be done; set one of them")
    refuse_bands(cutouts, "deduplicate")
    table, images = read_tables(cutouts)
    table = table.with_row_index("place")
    # All work is done in the order of the ids: the result cannot depend on the order of the rows.
    work = table.sort("cutout_id")
    rank = quality_rank(work, images)
    ids = work["cutout_id"].to_numpy()
    kept = np.ones(len(work), dtype=bool)
    lost = []
    if within:
        lost_to = _within(work, rank)
        lost.append(_drop_rows(work, ids, lost_to, "overlap", np.full(len(work), np.nan)))
        kept &= lost_to < 0
    without = 0
    if across:
        rows = np.flatnonzero(kept)
        lost_to, apart, without = _across(work[rows], images, rank[rows], min_separation)
        lost.append(_drop_rows(work[rows], ids[rows], lost_to, "sky", apart))
        kept[rows[lost_to >= 0]] = False
    places = np.sort(work["place"].to_numpy()[kept])
    dropped = pl.concat(lost).sort("cutout_id")
    write_tables(build, cutouts=table[places].drop("place"), images=images, dropped=dropped)
    build.count(read=len(table), kept=len(places), without_sky_position=without)
    for reason, why in WHY.items():
        build.drop(f"{reason} duplicate", int((dropped["reason"] == reason).sum()),
                   why=f"{why}; all are listed in dropped.parquet")  # fmt: skip
    build.note(**carried_notes([cutouts], table[places]))


def quality_rank(table: pl.DataFrame, images: pl.DataFrame) -> np.ndarray:
    """Rank of each cutout, 0 is the best: low rms, few blank pixels, far from the edge of the image, low id.

    Parameters
    ----------
    table
        Rows of an index, shape (N, ...).
    images
        Its ``images.parquet``.

    Returns
    -------
    ndarray
        int64 (N,), all different.
    """
    shape = images.select("image", "height_px", "width_px")
    far = table.select("image", "row0", "col0", "size_px").join(shape, on="image", how="left", maintain_order="left")
    edge = far.select(
        pl.min_horizontal(
            "row0", "col0", pl.col("height_px") - pl.col("row0") - pl.col("size_px"),
            pl.col("width_px") - pl.col("col0") - pl.col("size_px"),
        )
    ).to_series()  # fmt: skip
    keys = (
        table["cutout_id"].to_numpy(),
        -edge.cast(pl.Float64).fill_null(0).to_numpy(),
        *(table[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("nan_frac", "rms")),
    )
    rank = np.empty(len(table), dtype=np.int64)
    rank[np.lexsort(keys)] = np.arange(len(table))  # NaN is sorted last
    return rank


def _within(table: pl.DataFrame, rank: np.ndarray) -> np.ndarray:
    """Per row the row it overlaps, or -1 when it is kept."""
    lost_to = np.full(len(table), -1, dtype=np.int64)
    row0, col0, size = (table[name].to_numpy() for name in ("row0", "col0", "size_px"))
    for rows in rows_by(table, "image"):
        own = nonoverlapping(row0[rows], col0[rows], size[rows], rank[rows])
        lost_to[rows] = np.where(own >= 0, rows[own], -1)
    return lost_to


def _across(
    table: pl.DataFrame, images: pl.DataFrame, rank: np.ndarray, min_separation: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Per row the row it duplicates or -1, their distance in arcsec, and the number of rows without position."""
    number = len(table)
    lost_to, apart = np.full(number, -1, dtype=np.int64), np.full(number, np.nan)
    facts = table.select("image").join(
        images.select("image", "pixel_scale_arcsec"), on="image", how="left", maintain_order="left"
    )
    scale = facts["pixel_scale_arcsec"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    ra, dec = (table[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("ra_deg", "dec_deg"))
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec) & np.isfinite(scale))
    radius = min_separation * table["size_px"].to_numpy()[placed] * scale[placed]
    image = table["image"].rank("dense").to_numpy().astype(np.int64)[placed]
    vectors = unit_vectors(ra[placed], dec[placed])
    pairs = list(sky_pairs(vectors, image, radius))
    if pairs:
        first, second = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
        own = keep_best(len(placed), first, second, rank[placed])
        out = np.flatnonzero(own >= 0)
        lost_to[placed[out]] = placed[own[out]]
        apart[placed[out]] = angle_arcsec(np.linalg.norm(vectors[out] - vectors[own[out]], axis=1))
    return lost_to, apart, number - len(placed)


def _drop_rows(
    table: pl.DataFrame, ids: np.ndarray, lost_to: np.ndarray, reason: str, apart: np.ndarray
) -> pl.DataFrame:
    out = np.flatnonzero(lost_to >= 0)
    return pl.DataFrame(
        {
            "cutout_id": ids[out],
            "reason": [reason] * len(out),
            "duplicate_of": ids[lost_to[out]],
            "separation_arcsec": pl.Series(apart[out]).fill_nan(None),
            "image": table["image"][out],
        },
        schema=DROPPED,
    )
