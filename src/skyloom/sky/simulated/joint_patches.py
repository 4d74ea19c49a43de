"""Where the patches of a simulated survey lie: tracts with pixels of their own that cover the tiles of another one."""

from collections.abc import Sequence

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from skyloom.sky.simulated.joint_layout import Field, scale_of, sky_around
from skyloom.sky.survey.facts import Survey

FIRST_TRACT = 3256  # a tract of DC2
MARGIN_ARCSEC = 1.5  # of patches around the tiles: a cutout at the edge of a tile has LSST pixels around it
POINTS = 17  # per side of a tile, with which the area to cover is measured


def lay_patches(
    survey: Survey, tiles: Sequence[Field], tracts: int, *, inner_px: int, border_px: int, ra_deg: float, dec_deg: float
) -> list[Field]:
    """Patches of square inner areas with borders that cover all tiles.

    Parameters
    ----------
    survey
        Gives the pixel scale.
    tiles
        What they cover.
    tracts
        The sky is shared out to this many tracts from east to west, each with a tangent point and pixels of its own.
    inner_px, border_px
        Side of a patch's own area, and width of the border around it that neighbours show as well.
    ra_deg, dec_deg
        Centre of the survey.

    Returns
    -------
    list of Field
        Called ``tract3256_patch0_1`` after tract, column and row. Patches of one tract have pixels in common.
    """
    scale = scale_of(survey)
    ra, dec = np.concatenate([_points(tile) for tile in tiles], axis=1)
    moved = SkyCoord(ra, dec, unit="deg").transform_to(SkyCoord(ra_deg, dec_deg, unit="deg").skyoffset_frame())
    lon, lat = moved.lon.wrap_at(180 * u.deg).deg, moved.lat.deg
    ends = np.linspace(lon.min(), lon.max(), tracts + 1)
    spacing = max(tile.shape[0] * tile.scale_arcsec for tile in tiles) / 3600 / (POINTS - 1)
    fields = []
    for k in range(tracts):
        centre = sky_around(
            np.array([(ends[k] + ends[k + 1]) / 2]), np.array([(lat.min() + lat.max()) / 2]), ra_deg, dec_deg
        )
        tangent = (float(centre[0][0]), float(centre[1][0]))
        near = (lon >= ends[k] - 2 * spacing) & (lon <= ends[k + 1] + 2 * spacing)
        plane = Field("", *tangent, (1.0, 1.0), scale, (0, 0), (0, 0), (0, 0, 0, 0))
        places = plane.positions(ra[near], dec[near])
        low, high = (f(axis=1) + sign * MARGIN_ARCSEC / scale for f, sign in ((places.min, -1), (places.max, 1)))
        columns, rows = (max(1, int(np.ceil(length / inner_px))) for length in high - low)
        # the middle of the grid lies over the middle of what it covers, on whole pixels of the tract
        start = np.rint((low + high - np.array([columns, rows]) * inner_px) / 2).astype(int)
        for i, j in np.ndindex(columns, rows):
            col0, row0 = i * inner_px - border_px, j * inner_px - border_px
            side = inner_px + 2 * border_px
            own = (border_px, border_px + inner_px) * 2
            crpix = (1.0 - start[0] - col0, 1.0 - start[1] - row0)
            tract = FIRST_TRACT + k
            name = f"tract{tract}_patch{i}_{j}"
            fields.append(Field(name, *tangent, crpix, scale, (side, side), (row0, col0), own, tract, f"{i},{j}"))
    return fields


def _points(tile: Field) -> NDArray[np.float64]:
    """RA and Dec of points all over a tile, shape (2, n)."""
    x, y = np.meshgrid(*(np.linspace(-0.5, side - 0.5, POINTS) for side in tile.shape[::-1]))
    return np.asarray(tile.wcs().all_pix2world(x.ravel(), y.ravel(), 0))
