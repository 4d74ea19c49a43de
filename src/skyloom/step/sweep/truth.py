"""The truth of a sweep: the positions of a table that lie in the images of candidates."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from skyloom.datamodule.table_input import TableInput
from skyloom.errors import InputError
from skyloom.match.points import Points, sky_points
from skyloom.sky.catalog import catalog_of, column_of, numbers_of
from skyloom.sky.geometry.footprint import pixels_of, sky_of
from skyloom.sky.geometry.sphere import unit_vectors
from skyloom.sky.geometry.wcs_cards import wcs_of


@dataclass(frozen=True)
class Truth:
    """True objects.

    Attributes
    ----------
    points
        Unit vectors, shape (N, 3).
    mag
        float64 (N,), NaN where nobody knows.
    outside
        Rows that were left out.
    """

    points: Points
    mag: np.ndarray
    outside: int


def read_truth(given: TableInput, images: pl.DataFrame, columns: Mapping[str, str | None]) -> Truth:
    """Read the true objects in images.

    Parameters
    ----------
    given
        A table; where it says the cutout of each object (``cutout_id``), only those of the images are taken, else those
        whose position lies in an image. An object in several cutouts counts once.
    images
        Images of candidates.
    columns
        ``ra``, ``dec``, ``mag``; None or missing: usual names of positions, no magnitude.

    Raises
    ------
    InputError
        A position is not valid, or none lies in the images.
    """
    table, _ = given.open("truth")
    ra, dec = columns.get("ra"), columns.get("dec")
    if given.artifact is not None and ra is None and {"ra_deg", "dec_deg"} <= set(table.names):
        ra, dec = "ra_deg", "dec_deg"
    read = catalog_of(table, ra=ra, dec=dec, option="columns")
    mag = columns.get("mag")
    values = np.full(len(read), np.nan) if mag is None else numbers_of(table, column_of(table, "columns.mag", mag))[0]
    if "cutout_id" in table.names and images["cutout_id"].null_count() == 0:
        inside = np.isin(table.column("cutout_id")[0], images["cutout_id"].to_numpy())
    else:
        inside = _in_images(read.ra_deg, read.dec_deg, images)
    frame = pl.DataFrame({"ra": read.ra_deg, "dec": read.dec_deg, "mag": values}).filter(pl.Series(inside))
    outside = len(read) - len(frame)
    frame = frame.unique(["ra", "dec"], keep="first", maintain_order=True)
    if frame.is_empty():
        raise InputError(f"{table.path}: none of {len(read)} objects lies in the {len(images)} images")
    points = sky_points(frame["ra"].to_numpy(), frame["dec"].to_numpy(), name=str(table.path))
    return Truth(points, frame["mag"].to_numpy(), outside)


def _in_images(ra_deg: np.ndarray, dec_deg: np.ndarray, images: pl.DataFrame) -> np.ndarray:
    """Whether each position lies in one of the images, bool (N,)."""
    inside = np.zeros(len(ra_deg), dtype=bool)
    valid = np.flatnonzero(np.isfinite(ra_deg) & np.isfinite(dec_deg))
    if not len(valid):
        return inside
    tree = cKDTree(unit_vectors(ra_deg[valid], dec_deg[valid]))
    for cards, height, width in images.select("fits_header", "height_px", "width_px").iter_rows():
        wcs = wcs_of(cards)
        corners = sky_of(wcs, np.array([(width - 1) / 2, -0.5, width - 0.5]), np.array([(height - 1) / 2, -0.5, -0.5]))
        vectors = unit_vectors(*corners)
        radius = np.linalg.norm(vectors[1:] - vectors[0], axis=1).max() * 1.1  # images are nearly flat
        near = valid[tree.query_ball_point(vectors[0], radius)]
        x, y = pixels_of(wcs, ra_deg[near], dec_deg[near])
        inside[near[(x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)]] = True
    return inside
