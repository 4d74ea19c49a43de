"""Columns of the tables of band cutouts: cutouts of surveys whose images have one file per band."""

import polars as pl

from skyloom.step.cutouts.table import COLUMNS

BAND_COLUMNS = pl.Schema(
    COLUMNS
    | {
        "height_px": pl.Int32,
        "width_px": pl.Int32,
        "tile": pl.String,
        "number": pl.Int32,
        "file_name": pl.String,
    }
)

BAND_IMAGE_COLUMNS = pl.Schema(
    {
        "image": pl.String,
        "band": pl.String,
        "artifact": pl.String,
        "path": pl.String,
        "fingerprint": pl.String,
        "height_px": pl.Int32,
        "width_px": pl.Int32,
        "dtype": pl.String,
        "unit": pl.String,
        "pixel_scale_arcsec": pl.Float64,
        "zero_point_mag": pl.Float64,
        "fits_header": pl.String,
    }
)

PIECE_COLUMNS = pl.Schema(
    {
        "cutout_id": pl.Int64,
        "image": pl.String,
        "row0": pl.Int32,
        "col0": pl.Int32,
        "height": pl.Int32,
        "width": pl.Int32,
        "to_row": pl.Int32,
        "to_col": pl.Int32,
    }
)

FILE_COLUMNS = pl.Schema(
    {
        "tile": pl.String,
        "role": pl.String,
        "artifact": pl.String,
        "path": pl.String,
        "fingerprint": pl.String,
    }
)

TRUTH_COLUMNS = pl.Schema(
    {
        "cutout_id": pl.Int64,
        "object_id": pl.String,
        "category_id": pl.Int8,
        "ra_deg": pl.Float64,
        "dec_deg": pl.Float64,
        "x_px": pl.Float64,
        "y_px": pl.Float64,
    }
)

DETECTION_COLUMNS = pl.Schema(
    {
        "cutout_id": pl.Int64,
        "detection_id": pl.Int64,
        "ra_deg": pl.Float64,
        "dec_deg": pl.Float64,
        "x_px": pl.Float64,
        "y_px": pl.Float64,
    }
)

MATCH_COLUMNS = pl.Schema(
    {
        "cutout_id": pl.Int64,
        "detection_id": pl.Int64,
        "object_id": pl.String,
        "sep_arcsec": pl.Float64,
        "sep_px": pl.Float64,
        "n_competing": pl.Int32,
        "is_ambiguous": pl.Boolean,
        "match_quality": pl.String,
    }
)

CATEGORIES = {"galaxy": 0, "star": 1}
