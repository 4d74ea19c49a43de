"""Simulates a patch of a survey with tables for the whole survey: images of all bands, and its detected objects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.sky.drawing.psf import fwhm_arcsec
from skyloom.sky.simulated.detected import Found, aperture_flux, disc_of, find_objects, psf_flux
from skyloom.sky.simulated.joint_layout import Field, place_of
from skyloom.sky.simulated.joint_tables import facts_of, named
from skyloom.sky.simulated.optical_files import write_planes
from skyloom.sky.simulated.optical_scene import BandScene, band_scene, near, noise
from skyloom.sky.simulated.roman_scene import magnitude
from skyloom.sky.survey.facts import Survey

DETECTION_NM = 754.6  # objects are found in the band nearest to this wavelength: i
APERTURE_ARCSEC = 1.5  # radius of the circle whose light stands in for a model's
EXTENDED_MAG = 0.0164  # PSF minus model magnitude from which an object is extended in DC2
NO_DATA = 1 << 8  # bit of the mask for pixels that no exposure has seen
MAG_ERROR = 2.5 / np.log(10)


def write_patch(
    folder: Path,
    field: Field,
    sky: pl.DataFrame,
    survey: Survey,
    *,
    depth_mag: Mapping[str, float],
    seed: int,
    hole: tuple[float, float, float] | None = None,
) -> pl.DataFrame:
    """Draw a patch, write its images, and measure its objects.

    Parameters
    ----------
    folder
        The survey's folder.
    field
        The patch.
    sky
        Sources.
    survey
        Says how files and columns are called.
    depth_mag
        By band: magnitude of a point source with a signal-to-noise ratio of 5.
    seed
        Of the noise.
    hole
        RA, Dec and half side (degrees, degrees, arcsec) of a square without values in the first band.

    Returns
    -------
    polars.DataFrame
        Objects whose position lies in the patch's own area, in the columns of DC2's object table.
    """
    sources = near(sky, field)
    scenes, images = {}, {}
    row0, col0 = field.origin_px
    for c, band in enumerate(survey.bands):
        scene = band_scene(band, field.scale_arcsec, depth_mag[band.name])
        pixels = scene.draw(sources, field) + noise(seed, field, band.name, scene.sigma)
        if hole and c == 0:
            _cut(pixels, field, hole)
        lost = ~np.isfinite(pixels)
        planes = {
            "IMAGE": pixels,
            "MASK": (NO_DATA * lost).astype(np.int32),
            "VARIANCE": np.where(lost, np.nan, scene.sigma**2).astype(np.float32),
        }
        path = folder / place_of(survey, "image", tile=field.name, band=band.name)
        write_planes(path, field, planes, {"LTV1": -col0, "LTV2": -row0})
        scenes[band.name], images[band.name] = scene, pixels
    chosen = min(survey.bands, key=lambda band: abs(band.wavelength_nm - DETECTION_NM)).name
    fwhm_px = fwhm_arcsec(scenes[chosen].psf) / field.scale_arcsec
    found = find_objects(images[chosen], scenes[chosen].sigma, fwhm_px)
    return _objects(found, images, scenes, field, survey, chosen)


def _cut(pixels: NDArray[np.float32], field: Field, hole: tuple[float, float, float]) -> None:
    x, y = field.positions(np.array(hole[:1]), np.array(hole[1:2]))[:, 0]
    if np.isfinite(x):
        half = hole[2] / field.scale_arcsec
        rows, cols = (slice(max(int(np.floor(v - half)), 0), max(int(np.ceil(v + half)) + 1, 0)) for v in (y, x))
        pixels[rows, cols] = np.nan


def _objects(
    found: Found,
    images: Mapping[str, NDArray[np.float32]],
    scenes: Mapping[str, BandScene],
    field: Field,
    survey: Survey,
    chosen: str,
) -> pl.DataFrame:
    """Measured objects of the patch's own area.

    PSF magnitudes are those of the best filter for a point; where the Science Pipelines fit a galaxy model (cModel),
    here is the light in a circle, corrected for what a point source has outside it.
    """
    row0, row1, col0, col1 = field.inner
    x, y = found.x_px, found.y_px
    own = (x >= col0 - 0.5) & (x < col1 - 0.5) & (y >= row0 - 0.5) & (y < row1 - 0.5)
    x, y, parent = x[own], y[own], found.parent[own]
    ra, dec = field.wcs().all_pix2world(x, y, 0) if len(x) else (np.empty(0), np.empty(0))
    column, row = (int(part) for part in field.patch.split(","))
    first = (field.tract << 40) | (column << 32) | (row << 24)
    number = first + 1 + np.flatnonzero(own)
    by_band: dict[str, dict[str, Any]] = {}
    extra: dict[str, Any] = {}
    for band in survey.bands:
        scene, image = scenes[band.name], images[band.name]
        point = psf_flux(image, x, y, scene.filter)
        circle, pixels = aperture_flux(image, x, y, APERTURE_ARCSEC / field.scale_arcsec)
        model = circle / _inside(scene, APERTURE_ARCSEC / field.scale_arcsec)
        error = scene.sigma * np.sqrt(pixels)
        by_band[band.name] = {"mag": magnitude(point, band.zero_point_mag)}
        extra[f"magerr_{band.name}"] = _error(point, scene.sigma / np.sqrt((scene.filter**2).sum()))
        extra[f"mag_{band.name}_cModel"] = magnitude(model, band.zero_point_mag)
        extra[f"magerr_{band.name}_cModel"] = _error(model, error)
        extra[f"snr_{band.name}_cModel"] = circle / error
        extra[f"psf_fwhm_{band.name}"] = np.full(len(x), fwhm_arcsec(scene.psf))
    difference = by_band[chosen]["mag"] - extra[f"mag_{chosen}_cModel"]
    lost = ~np.isfinite(np.stack([image[np.rint(y).astype(int), np.rint(x).astype(int)] for image in images.values()]))
    clean = ~lost.any(axis=0)
    columns = named(facts_of(survey, "detections"), {"object_id": number, "ra_deg": ra, "dec_deg": dec}, by_band)
    columns |= {
        "parentObjectId": np.where(parent > 0, first + (1 << 23) + parent, 0),
        "x": x + field.origin_px[1],
        "y": y + field.origin_px[0],
        "extendedness": (np.nan_to_num(difference, nan=0.0) > EXTENDED_MAG).astype(float),
        **extra,
        "good": clean,
        "clean": clean,
        "blendedness": np.where(parent > 0, 0.5, 0.0),
        "tract": np.full(len(x), field.tract, np.int64),
        "patch": [field.patch] * len(x),
    }
    schema = {"patch": pl.String, "good": pl.Boolean, "clean": pl.Boolean}
    return pl.DataFrame(columns, schema_overrides=schema, nan_to_null=True)


def _inside(scene: BandScene, radius_px: float) -> float:
    """Part of a star's light in a circle."""
    disc = disc_of(radius_px)
    wide = np.zeros_like(scene.filter)
    at = (len(wide) - len(disc)) // 2
    wide[at : at + len(disc), at : at + len(disc)] = disc
    return float((scene.filter * wide).sum())


def _error(flux: NDArray[np.float64], error: float) -> NDArray[np.float64]:
    """Error of a magnitude; NaN where there is no light."""
    return np.where(flux > 0, MAG_ERROR * error / np.where(flux > 0, flux, 1.0), np.nan)
