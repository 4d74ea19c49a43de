"""Simulates a tile of a survey that ships images, a segmentation map and tables with each tile, as Roman does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.sky.drawing.psf import fwhm_arcsec
from skyloom.sky.simulated.detected import Found, find_objects
from skyloom.sky.simulated.joint_layout import Field, place_of
from skyloom.sky.simulated.joint_tables import facts_of, named, truth_columns
from skyloom.sky.simulated.optical_files import write_map, write_planes, write_table
from skyloom.sky.simulated.optical_scene import band_scene, near, noise
from skyloom.sky.survey.bands import Band
from skyloom.sky.survey.facts import Survey

NAN_FROM, NAN_TO = 0.285, 0.315  # rows and columns without a value in the first band, as parts of the tile's side
EMPTY_FROM = 0.6  # rows and columns from here on hold zeros in the last but one band, as a part of the tile's side


def write_tile(
    folder: Path,
    field: Field,
    sky: pl.DataFrame,
    survey: Survey,
    *,
    depth_mag: Mapping[str, float],
    seed: int,
    blemishes: bool,
    more_bands: Sequence[Band] = (),
) -> dict[str, int]:
    """Draw a tile and write its images, segmentation map, detections and truth.

    Parameters
    ----------
    folder
        The survey's folder.
    field
        The tile.
    sky
        Sources.
    survey
        Says how files and columns are called.
    depth_mag
        By band: magnitude of a point source with a signal-to-noise ratio of 5.
    seed
        Of the noise.
    blemishes
        Leave a square without values in the first band, and a corner of zeros in the last but one.
    more_bands
        Bands of which the truth has magnitudes, and that have no images.

    Returns
    -------
    dict
        How many true objects (``truth``) and detections (``detections``) the tile has.
    """
    sources = near(sky, field)
    images: dict[str, NDArray[np.float32]] = {}
    for c, band in enumerate(survey.bands):
        scene = band_scene(band, field.scale_arcsec, depth_mag[band.name])
        pixels = scene.draw(sources, field) + noise(seed, field, band.name, scene.sigma)
        if blemishes:
            _spoil(pixels, c, len(survey.bands))
        weight = np.isfinite(pixels).astype(np.float32)
        images[band.name] = pixels
        path = folder / place_of(survey, "image", tile=field.name, band=band.name)
        write_planes(path, field, {"SCI": pixels, "WHT": weight})
    found = find_objects(pixels, scene.sigma, fwhm_arcsec(scene.psf) / field.scale_arcsec)  # of the last band
    write_map(folder / place_of(survey, "segmentation", tile=field.name), field, found.segments)
    write_table(folder / place_of(survey, "detections", tile=field.name), _detections(found, images, field, survey))
    x, y = (sources[name].to_numpy() for name in ("x_px", "y_px"))
    inside = sources.filter(pl.Series(field.holds(x, y)))
    write_table(folder / place_of(survey, "truth", tile=field.name), _truth(inside, survey, more_bands))
    return {"truth": len(inside), "detections": len(found)}


def _spoil(pixels: NDArray[np.float32], channel: int, channels: int) -> None:
    side = np.array(pixels.shape)
    if channel == 0:
        low, high = np.floor(NAN_FROM * side).astype(int), np.ceil(NAN_TO * side).astype(int)
        pixels[low[0] : high[0], low[1] : high[1]] = np.nan
    elif channel == channels - 2:
        low = np.floor(EMPTY_FROM * side).astype(int)
        pixels[low[0] :, low[1] :] = 0.0


def _detections(
    found: Found, images: Mapping[str, NDArray[np.float32]], field: Field, survey: Survey
) -> dict[str, Any]:
    """Columns of Source Extractor's table; positions count from 1, magnitudes are those of the segments."""
    facts = facts_of(survey, "detections")
    number = np.arange(1, len(found) + 1)
    ra, dec = field.wcs().all_pix2world(found.x_px, found.y_px, 0) if len(found) else (np.empty(0), np.empty(0))
    columns: dict[str, Any] = {"number": number}
    columns |= named(facts, {"object_id": number, "ra_deg": ra, "dec_deg": dec}, {})
    columns |= {
        "xwin_image": found.x_px + 1,
        "ywin_image": found.y_px + 1,
        "isoarea_image": np.bincount(found.segments.ravel(), minlength=len(found) + 1)[1:].astype(np.int32),
        "flags": (2 * (found.parent > 0)).astype(np.int16),  # 2: was one with another object
    }
    for band in survey.bands:
        flux = ndimage.sum_labels(np.nan_to_num(images[band.name], nan=0.0), found.segments, number)
        columns[f"mag_auto_{band.name}"] = magnitude(np.asarray(flux), band.zero_point_mag).astype(np.float32)
    return columns


def _truth(inside: pl.DataFrame, survey: Survey, more_bands: Sequence[Band]) -> dict[str, Any]:
    """Columns of the index of true objects: what the survey's file names, and what Roman's index has besides."""
    zeros = np.zeros(len(inside), np.int32)
    columns = {name: np.asarray(values) for name, values in truth_columns(inside, survey).items()}
    for band in more_bands:
        columns |= named(facts_of(survey, "truth"), {}, {band.name: {"mag": inside[f"mag_{band.name}"].to_numpy()}})
    for band in (*survey.bands, *more_bands):
        columns[f"dered_{band.name}"] = inside[f"mag_true_{band.name}"].to_numpy()
    x, y = (inside[name].to_numpy() for name in ("x_px", "y_px"))
    return columns | {"sca": zeros + 1, "dither": zeros, "x": x + 1, "y": y + 1, "stamp": zeros, "start_row": zeros}


def magnitude(flux: NDArray[np.float64], zero_point_mag: float) -> NDArray[np.float64]:
    """AB magnitudes; NaN where there is no light."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mag = zero_point_mag - 2.5 * np.log10(flux)
    return np.where(flux > 0, mag, np.nan)
