"""Rows of a catalogue: from the detections of some images to columns that others read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from skyloom.datamodule.candidate_table import BOX, placed, spans
from skyloom.product.catalog_photometry import Photometer
from skyloom.sky.geometry.footprint import sky_of
from skyloom.sky.geometry.wcs_cards import wcs_of
from skyloom.sky.mask.placed import PlacedMask
from skyloom.sky.mask.rle import encode

EDGE, BLANK, EMPTY, CUT, SHARED = 1, 2, 4, 8, 16
"""Bits of ``flags``: the mask or the box touches the edge of the image; the mask has pixels without data in some band
(known with photometry only); the mask has no pixel; the object may go on beyond the tile that it was found in;
less than half of the mask has counted for its fluxes, as its pixels are blank or of better detections (known with
photometry only)."""

FIRST: dict[str, Any] = {
    "id": pl.Int64, "cutout_id": pl.Int64, "image": pl.String, "ra_deg": pl.Float64, "dec_deg": pl.Float64,
    "ra_box_deg": pl.Float64, "dec_box_deg": pl.Float64, "x_px": pl.Float64, "y_px": pl.Float64,
    "x_box_px": pl.Float64, "y_box_px": pl.Float64, **dict.fromkeys(BOX, pl.Float64), "class": pl.Int8,
    "class_name": pl.String, "score": pl.Float32, "area_px": pl.Int32, "rle": pl.String, "rle_row0": pl.Int32,
    "rle_col0": pl.Int32, "rle_height_px": pl.Int32, "rle_width_px": pl.Int32, "flags": pl.Int16,
}  # fmt: skip
"""Columns of every catalogue, before those of the bands."""

PSF_POSITION = ("x_psf_px", "y_psf_px", "ra_psf_deg", "dec_psf_deg")
"""With photometry: where the PSFs were fitted, in pixels of the whole image and on the sky."""


def catalog_rows(
    found: pl.DataFrame,
    beside: dict[int, pl.DataFrame],
    images: pl.DataFrame,
    *,
    classes: Sequence[str],
    photometer: Photometer | None,
) -> pl.DataFrame:
    """Columns of the catalogue of detections.

    Parameters
    ----------
    found
        Detections, image by image, the best of each first: columns of candidates and ``cut``.
    beside
        By image row detections of neighbouring tiles that reach into it and share its pixels.
    images
        All images.
    classes
        Names by number.
    photometer
        Measures fluxes; None: no columns of bands, and no image is read.

    Returns
    -------
    polars.DataFrame
        ``FIRST`` but for ``id``, and the columns of the bands.
    """
    parts = []
    positions, whole = placed(found, images), _extents(images)
    for row, start, stop in spans(found):
        own, image = found[start:stop], images.row(row, named=True)
        shape = image["height_px"], image["width_px"]
        masks = [_mask(counts, shape) for counts in own["rle"]]
        table = _geometry(own, positions[start:stop], masks, image, whole.get(image["name"]))
        if photometer is not None:
            others = beside.get(row)
            order, every = _by_score(own, masks, others, image, images)
            xy = positions.select("x_px", "y_px").to_numpy()[start:stop]
            found_out = photometer.measure(row, every, order, xy)
            columns = _psf_position(found_out.xy_psf_px, image) | found_out.columns
            table = table.with_columns(pl.Series(name, values, pl.Float64) for name, values in columns.items())
            flags = BLANK * found_out.blank + SHARED * found_out.shared
            table = table.with_columns(flags=pl.col("flags") + pl.Series(flags, dtype=pl.Int16))
        parts.append(table)
    if not parts:
        bands = [] if photometer is None else [*PSF_POSITION, *photometer.columns]
        kinds = {**{name: kind for name, kind in FIRST.items() if name != "id"}, **dict.fromkeys(bands, pl.Float64)}
        return pl.DataFrame(schema=kinds)
    frame = pl.concat(parts)
    names = pl.DataFrame({"class": range(len(classes)), "class_name": list(classes)}).cast({"class": pl.Int8})
    frame = frame.join(names, on="class", how="left", maintain_order="left")
    bands = [name for name in frame.columns if name not in FIRST]
    frame = frame.select(*(name for name in FIRST if name != "id"), pl.col(bands).fill_nan(None))
    return frame.cast({name: kind for name, kind in FIRST.items() if name != "id"})


def _geometry(
    own: pl.DataFrame,
    at: pl.DataFrame,
    masks: Sequence[PlacedMask],
    image: dict[str, Any],
    whole: tuple[int, int] | None,
) -> pl.DataFrame:
    """Everything but fluxes of the detections of one image, in pixels of the whole image that it may be a tile of."""
    row0, col0, number, tiled = image["row0"], image["col0"], len(own), whole is not None
    height, width = whole or (image["height_px"], image["width_px"])
    boxes = own.select(pl.col(BOX).cast(pl.Float64)).to_numpy() + np.array([col0, row0, col0, row0])
    corner = np.array([[m.row0 + row0, m.col0 + col0, *m.pixels.shape] for m in masks], dtype=np.int64).reshape(-1, 4)
    area = np.array([m.pixels.sum() for m in masks], dtype=np.int64)
    first = np.where(area > 0, corner[:, :2].T, np.floor(boxes[:, [1, 0]].T))
    last = np.where(area > 0, (corner[:, :2] + corner[:, 2:]).T, np.ceil(boxes[:, [3, 2]].T))
    edge = (first <= 0).any(axis=0) | (last[0] >= height) | (last[1] >= width)
    if not tiled:
        corner = np.tile([row0, col0, image["height_px"], image["width_px"]], (number, 1))
    return own.select("class", "score").with_columns(
        *at.with_columns(pl.col("x_px", "x_box_px") + col0, pl.col("y_px", "y_box_px") + row0).get_columns(),
        cutout_id=pl.lit(image["cutout_id"], pl.Int64), image=pl.lit(image["name"], pl.String),
        **{name: pl.Series(boxes[:, place]) for place, name in enumerate(BOX)},
        area_px=pl.Series(area),
        rle=pl.Series([encode(mask.pixels) for mask in masks]) if tiled else own["rle"],
        rle_row0=pl.Series(corner[:, 0]), rle_col0=pl.Series(corner[:, 1]),
        rle_height_px=pl.Series(corner[:, 2]), rle_width_px=pl.Series(corner[:, 3]),
        flags=pl.Series(EDGE * edge + EMPTY * (area == 0), dtype=pl.Int16) + CUT * own["cut"].cast(pl.Int16),
    )  # fmt: skip


def _psf_position(xy_px: np.ndarray, image: dict[str, Any]) -> dict[str, np.ndarray]:
    """Columns of `PSF_POSITION`, float64 (n,), of places in an image, which may be a tile of the whole one."""
    sky = np.full((2, len(xy_px)), np.nan)
    if image["fits_header"] is not None:
        sky[:] = sky_of(wcs_of(image["fits_header"]), *xy_px.T)
    values = (xy_px[:, 0] + image["col0"], xy_px[:, 1] + image["row0"], *sky)
    return dict(zip(PSF_POSITION, values, strict=True))


def _mask(counts: str, shape: tuple[int, int]) -> PlacedMask:
    """A mask in its box; one pixel that is not in it where there is none, so that it has a size."""
    mask = PlacedMask.from_rle(counts, shape)
    return mask if mask.pixels.size else PlacedMask(np.zeros((1, 1), dtype=bool), 0, 0)


def _extents(images: pl.DataFrame) -> dict[str, tuple[int, int]]:
    """Height and width of each whole image that lies in several tiles."""
    tiles = images.filter(pl.col("cutout_id").is_null(), pl.len().over("name") > 1)
    ends = tiles.group_by("name").agg(
        (pl.col("row0") + pl.col("height_px")).max().alias("height"),
        (pl.col("col0") + pl.col("width_px")).max().alias("width"),
    )
    return {name: (height, width) for name, height, width in ends.iter_rows()}


def _by_score(
    own: pl.DataFrame, masks: Sequence[PlacedMask], others: pl.DataFrame | None, image: dict[str, Any],
    images: pl.DataFrame,
) -> tuple[np.ndarray, list[PlacedMask]]:  # fmt: skip
    """Masks of an image and of what reaches into it, the best first, and where among them its own stand."""
    scores, every = own["score"].to_list(), list(masks)
    for other in [] if others is None else others.iter_rows(named=True):
        tile = images.row(other["image_row"], named=True)
        shape, corner = (tile["height_px"], tile["width_px"]), (tile["row0"], tile["col0"])
        every.append(
            PlacedMask.from_rle(other["rle"], shape, row0=corner[0] - image["row0"], col0=corner[1] - image["col0"])
        )
        scores.append(other["score"])
    order = np.argsort(-np.array(scores, dtype=np.float64), kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place[: len(own)], [every[number] for number in order]
