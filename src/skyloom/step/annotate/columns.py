"""Columns of the tables of annotations, and a row of them from a mask."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.errors import StoreError
from skyloom.sky.drawing.truth_galaxy import NJY_MAG, STAR
from skyloom.sky.mask import rle
from skyloom.sky.survey.bands import Band, TableFacts

ANNOTATION_COLUMNS = {
    "cutout_id": pl.Int64,
    "object_id": pl.String,
    "category_id": pl.Int8,
    "bbox_x_px": pl.Float32,
    "bbox_y_px": pl.Float32,
    "bbox_w_px": pl.Float32,
    "bbox_h_px": pl.Float32,
    "area_px": pl.Int32,
    "rle": pl.String,
    "keypoint_x_px": pl.Float64,
    "keypoint_y_px": pl.Float64,
    "clipped": pl.Boolean,
    "ra_deg": pl.Float64,
    "dec_deg": pl.Float64,
}
MASK_COLUMNS = ("bbox_x_px", "bbox_y_px", "bbox_w_px", "bbox_h_px", "area_px", "rle", "clipped")
REJECTED_COLUMNS = {"cutout_id": pl.Int64, "object_id": pl.String, "reason": pl.String, "detail": pl.String}
IMAGE_COLUMNS = {
    "cutout_id": pl.Int64,
    "tile": pl.String,
    "number": pl.Int32,
    "file_name": pl.String,
    "height_px": pl.Int32,
    "width_px": pl.Int32,
    "annotations": pl.Int32,
    "rejected": pl.Int32,
}


def mask_row(
    mask: NDArray[np.bool_], row0: int, col0: int, shape: tuple[int, int], min_area_px: int
) -> dict[str, Any] | tuple[str, str]:
    """`MASK_COLUMNS` of a mask that is cut at the edge of its image, or why it is none.

    Parameters
    ----------
    mask
        Shape (h, w).
    row0, col0
        Pixel of the image under the first pixel of the mask; may lie outside.
    shape
        (H, W) of the image.
    min_area_px
        Masks with fewer pixels in the image are none.

    Returns
    -------
    dict or tuple
        The columns, or reason and detail of a rejection.
    """
    inside = mask[max(-row0, 0) : max(shape[0] - row0, 0), max(-col0, 0) : max(shape[1] - col0, 0)]
    area = int(np.count_nonzero(inside))
    if area == 0:
        return "empty_mask", "all of the mask lies outside of the image"
    if area < min_area_px:
        return "small_mask", f"{area} px, expected at least {min_area_px}"
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    top, left = max(row0, 0) + int(rows[0]), max(col0, 0) + int(cols[0])
    cut = inside[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    values = (
        left, top, cut.shape[1], cut.shape[0], area, rle.encode_at(cut, top, left, shape), area < np.count_nonzero(mask)
    )  # fmt: skip
    return dict(zip(MASK_COLUMNS, values, strict=True))


def annotation_table(
    truth: pl.DataFrame, masks: Sequence[Mapping[str, Any]], facts: TableFacts, bands: Sequence[Band]
) -> pl.DataFrame:
    """Annotations of objects: `ANNOTATION_COLUMNS`, magnitude and flux per band, then all columns of the truth.

    Parameters
    ----------
    truth
        One row per annotation.
    masks
        `MASK_COLUMNS` per annotation.
    facts
        What the columns of ``truth`` are called.
    bands
        Bands whose magnitudes are there.
    """
    schema = {name: ANNOTATION_COLUMNS[name] for name in MASK_COLUMNS}
    shapes = pl.DataFrame([tuple(mask.values()) for mask in masks], schema=schema, orient="row")
    own = truth.rename({"x_px": "keypoint_x_px", "y_px": "keypoint_y_px"})
    own = pl.concat([own, shapes], how="horizontal").with_columns(**_light(truth, facts, bands))
    rest = [name for name in own.columns if name not in ANNOTATION_COLUMNS]
    return own.select(*ANNOTATION_COLUMNS, *rest).cast(ANNOTATION_COLUMNS)  # type: ignore[arg-type]


def _light(truth: pl.DataFrame, facts: TableFacts, bands: Sequence[Band]) -> dict[str, pl.Expr]:
    """``mag_<band>`` and ``flux_<band>_njy``, as the table tells them or by the AB system; null: it does not."""
    found: dict[str, pl.Expr] = {}
    for band in bands:
        names = {
            name: facts.column(name, band=band.name)
            for name in ("mag", "mag_star", "mag_galaxy", "flux_njy")
            if name in facts.columns
        }
        names = {name: column for name, column in names.items() if column in truth.columns}
        mag = pl.lit(None, pl.Float64)
        if "mag" in names:
            mag = pl.col(names["mag"]).cast(pl.Float64)
        elif {"mag_star", "mag_galaxy"} <= names.keys():
            star = pl.col("category_id") == STAR
            mag = pl.when(star).then(names["mag_star"]).otherwise(names["mag_galaxy"]).cast(pl.Float64)
        flux = pl.col(names["flux_njy"]).cast(pl.Float64) if "flux_njy" in names else 10 ** ((NJY_MAG - mag) / 2.5)
        found |= {f"mag_{band.name}": mag, f"flux_{band.name}_njy": flux}
    return found


def image_row(
    place: Mapping[str, Any], annotations: int, rejected: int, noise: Mapping[str, float | None]
) -> dict[str, Any]:
    """`IMAGE_COLUMNS` of a cutout from its row of the index, and the noise per band."""
    same = {name: place[name] for name in IMAGE_COLUMNS if name not in ("annotations", "rejected")}
    levels = {f"noise_{band}": level for band, level in noise.items()}
    return {**same, "annotations": annotations, "rejected": rejected, **levels}


def require_table(names: Sequence[str], folder: str, tile: str, what: str) -> None:
    """Check that cutouts have a table of a tile; StoreError that says which and what to do."""
    if f"{folder}/{tile}.parquet" not in names:
        raise StoreError(
            f"{what} have no {folder}/{tile}.parquet; make them with step=cutouts of a survey whose file names "
            f"survey.tiles.{'truth' if folder == 'truth' else 'detections'} and its columns"
        )
