"""Which true object each detection of a cutout is, by position, and how sure that is."""

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from skyloom.sky.geometry.sphere import angle_arcsec, chord, unit_vectors
from skyloom.step.cutouts.tiles.columns import MATCH_COLUMNS


def match_tile(
    detections: pl.DataFrame, truth: pl.DataFrame, *, max_sep_arcsec: float, pixel_scale_arcsec: float
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Match detections to true objects of the same cutout.

    Every detection claims the nearest true object within ``max_sep_arcsec`` on the sky; of several detections that
    claim one object, the closest has it (at the same distance the one with the lower id).

    Parameters
    ----------
    detections, truth
        Tables of one tile, as `skyloom.step.cutouts.tiles.tables` makes them.
    max_sep_arcsec
        Largest separation, included.
    pixel_scale_arcsec
        Side of a pixel, for ``sep_px``.

    Returns
    -------
    table, counts
        One row per matched detection, sorted by cutout and detection: ``n_competing`` detections claimed the object,
        this one included; ``is_ambiguous`` when there are several; ``match_quality`` is ``unique`` or
        ``closest_of_multiple``. Counts: ``matched``, ``beaten`` (a closer detection has the object), ``unmatched``.
    """
    pairs = _pairs(detections, truth, max_sep_arcsec)
    claims = pairs.sort("sep_arcsec", "object", maintain_order=True).unique("detection", keep="first")
    contested = claims.with_columns(n_competing=pl.len().over("object").cast(pl.Int32))
    winners = contested.sort("sep_arcsec", "detection_id").unique("object", keep="first")
    several = pl.col("n_competing") > 1
    table = winners.with_columns(
        sep_px=pl.col("sep_arcsec") / pixel_scale_arcsec,
        is_ambiguous=several,
        match_quality=pl.when(several).then(pl.lit("closest_of_multiple")).otherwise(pl.lit("unique")),
    )
    table = table.sort("cutout_id", "detection_id").select(*MATCH_COLUMNS).cast(MATCH_COLUMNS)
    counts = {
        "matched": len(table),
        "beaten": len(claims) - len(table),
        "unmatched": len(detections) - len(claims),
    }
    return table, counts


def _pairs(detections: pl.DataFrame, truth: pl.DataFrame, max_sep_arcsec: float) -> pl.DataFrame:
    """All pairs of one cutout within the largest separation."""
    vectors = [unit_vectors(*(table[c].to_numpy() for c in ("ra_deg", "dec_deg"))) for table in (detections, truth)]
    if not len(detections) or not len(truth):
        found = np.empty(0, [("i", np.intp), ("j", np.intp), ("v", np.float64)])
    else:
        trees = [cKDTree(points) for points in vectors]
        reach = float(chord(max_sep_arcsec)) * (1 + 1e-9)
        found = trees[0].sparse_distance_matrix(trees[1], reach, output_type="ndarray")
    pairs = pl.DataFrame(
        {"detection": found["i"], "object": found["j"], "sep_arcsec": angle_arcsec(found["v"])},
        schema={"detection": pl.Int64, "object": pl.Int64, "sep_arcsec": pl.Float64},
    )
    pairs = pairs.with_columns(
        cutout_id=detections["cutout_id"].gather(pairs["detection"]),
        detection_id=detections["detection_id"].gather(pairs["detection"]),
        object_id=truth["object_id"].gather(pairs["object"]),
        other=truth["cutout_id"].gather(pairs["object"]),
    )
    return pairs.filter(pl.col("cutout_id") == pl.col("other"), pl.col("sep_arcsec") <= max_sep_arcsec + 1e-9).drop(
        "other"
    )
