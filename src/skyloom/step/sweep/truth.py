"""The truth of a sweep: the positions of a table that lie in the images of candidates."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from skyloom.datamodule.table_input import TableInput, centre_outside
from skyloom.errors import InputError
from skyloom.match.points import Points, sky_points
from skyloom.sky.catalog import catalog_of, column_of, numbers_of
from skyloom.sky.geometry.footprint import in_images


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
        places = images.select("fits_header", "height_px", "width_px").iter_rows()
        inside = in_images(read.ra_deg, read.dec_deg, places)
    inside &= ~centre_outside(table).to_numpy()
    frame = pl.DataFrame({"ra": read.ra_deg, "dec": read.dec_deg, "mag": values}).filter(pl.Series(inside))
    outside = len(read) - len(frame)
    frame = frame.unique(["ra", "dec"], keep="first", maintain_order=True)
    if frame.is_empty():
        raise InputError(f"{table.path}: none of {len(read)} objects lies in the {len(images)} images")
    points = sky_points(frame["ra"].to_numpy(), frame["dec"].to_numpy(), name=str(table.path))
    return Truth(points, frame["mag"].to_numpy(), outside)
