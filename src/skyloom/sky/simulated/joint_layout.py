"""Where the tiles of a simulated survey lie on the sky, and what their files are called."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.errors import ConfigError
from skyloom.sky.survey.facts import Survey

MAX_HALF_EXTENT_DEG = 5.0  # from the survey's centre: tiles stay nearly parallel to each other


@dataclass(frozen=True)
class Field:
    """One image of the sky: a tile, or a patch of a tract.

    Attributes
    ----------
    name
        Of the tile or patch.
    ra_deg, dec_deg
        Tangent point (ICRS): of the tile or the tract.
    crpix
        Its place in the image as (x, y), counted from 1.
    scale_arcsec
        Side of a pixel.
    shape
        Rows and columns.
    origin_px
        First row and column in the pixels of the tract; (0, 0) for a tile.
    inner
        First and last rows and columns (row0, row1, col0, col1; ends excluded) that are this field's alone.
    tract, patch
        Number of the tract and ``i,j`` of the patch; 0 and '' for a tile.
    """

    name: str
    ra_deg: float
    dec_deg: float
    crpix: tuple[float, float]
    scale_arcsec: float
    shape: tuple[int, int]
    origin_px: tuple[int, int]
    inner: tuple[int, int, int, int]
    tract: int = 0
    patch: str = ""

    def wcs(self) -> WCS:
        """Tangent plane, at the tangent point north is up and east to the left."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crval = [self.ra_deg, self.dec_deg]
        wcs.wcs.crpix = list(self.crpix)
        wcs.wcs.cdelt = [-self.scale_arcsec / 3600, self.scale_arcsec / 3600]
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        return wcs

    def positions(self, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (x, y), shape (2, n), the centre of the first is 0; NaN on the far side of the sky."""
        ra, dec = np.radians(ra_deg - self.ra_deg), np.radians(dec_deg)
        dec0 = np.radians(self.dec_deg)
        near = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(ra) > 0
        out = np.full((2, len(ra_deg)), np.nan)
        out[:, near] = self.wcs().all_world2pix(ra_deg[near], dec_deg[near], 0)
        return out

    def holds(self, x_px: NDArray[np.float64], y_px: NDArray[np.float64], margin_px: float = 0) -> NDArray[np.bool_]:
        """Which positions lie on the pixels, or at most ``margin_px`` beside them."""
        height, width = self.shape
        low = -0.5 - margin_px
        return (x_px >= low) & (x_px < width - 0.5 + margin_px) & (y_px >= low) & (y_px < height - 0.5 + margin_px)


def lay_tiles(
    survey: Survey, number: int, side_px: int, *, overlap_px: int, ra_deg: float, dec_deg: float
) -> list[Field]:
    """Tiles on a nearly square grid around a place on the sky, row by row from the south.

    The grid is laid in a frame centred on the survey, so it may cross RA 0 or hold a pole.

    Parameters
    ----------
    survey
        Gives the pixel scale.
    number
        Of tiles.
    side_px
        Of a tile.
    overlap_px
        Width of the strip that neighbours share.
    ra_deg, dec_deg
        Centre of the survey.

    Returns
    -------
    list of Field
        Called ``RA_Dec`` of their centres, like ``50.94_-39.9``; with more decimals where those would not differ.

    Raises
    ------
    ConfigError
        The overlap is not below the side, or the tiles reach too far from the centre.
    """
    if overlap_px >= side_px:
        raise ConfigError(f"overlap_px={overlap_px}: expected less than a tile's side, tile_px={side_px}.")
    scale = scale_of(survey)
    step_deg = (side_px - overlap_px) * scale / 3600
    columns = int(np.ceil(np.sqrt(number)))
    row, column = np.divmod(np.arange(number), columns)
    lat = (row - row.max() / 2) * step_deg
    lon = (column - column.max() / 2) * step_deg
    if max(np.abs(lat).max(), np.abs(lon).max()) > MAX_HALF_EXTENT_DEG:
        raise ConfigError(
            f"tiles={number} of tile_px={side_px} reach more than {MAX_HALF_EXTENT_DEG:.0f} deg from the survey's "
            "centre; choose fewer or smaller tiles."
        )
    sky = sky_around(lon / np.cos(np.radians(lat)), lat, ra_deg, dec_deg)
    crpix = ((side_px + 1) / 2,) * 2
    return [
        Field(name, ra, dec, crpix, scale, (side_px, side_px), (0, 0), (0, side_px, 0, side_px))
        for name, ra, dec in zip(_names(*sky), *(axis.tolist() for axis in sky), strict=True)
    ]


def place_of(survey: Survey, role: str, *, tile: str = "", band: str = "") -> Path:
    """Path of a file below the survey's folder: as on its server when that is known, else as its pattern says."""
    assert survey.tiles is not None
    pattern = survey.tiles.remote.get(role) or survey.tiles.pattern(role)
    if pattern is None:
        raise ConfigError(f"survey={survey.name} says no name for the {role} of a tile; give survey.tiles.{role}.")
    return Path(pattern.replace("**/", "").replace("*", "").replace("{tile}", tile).replace("{band}", band))


def scale_of(survey: Survey) -> float:
    """Side of a survey's pixels in arcsec.

    Raises
    ------
    ConfigError
        The survey says none.
    """
    if survey.pixel_scale_arcsec is None:
        raise ConfigError(f"survey={survey.name} says no pixel_scale_arcsec; give it to simulate the survey.")
    return survey.pixel_scale_arcsec


def sky_around(
    lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64], ra_deg: float, dec_deg: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """RA and Dec of offsets from a place, all in degrees, each (n,)."""
    frame = SkyCoord(ra_deg, dec_deg, unit="deg").skyoffset_frame()
    sky = SkyCoord(lon_deg * u.deg, lat_deg * u.deg, frame=frame).icrs
    return sky.ra.deg, sky.dec.deg


def _names(ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> list[str]:
    for more in range(6):
        names = [f"{ra:.{2 + more}f}_{dec:.{1 + more}f}" for ra, dec in zip(ra_deg, dec_deg, strict=True)]
        if len(set(names)) == len(names):
            break
    return names
