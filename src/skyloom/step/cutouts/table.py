"""The table of a cutout index: its columns, ids and sky positions."""

import hashlib

import numpy as np
import polars as pl

from skyloom.sky.files.image import Image
from skyloom.sky.window.sliding import WindowStats

HEALPIX_LEVEL = 12  # nested cells of 0.86': coarser cells follow by dropping two bits per level

COLUMNS = {
    "cutout_id": pl.Int64,
    "survey": pl.String,
    "image": pl.String,
    "row0": pl.Int32,
    "col0": pl.Int32,
    "size_px": pl.Int32,
    "ra_deg": pl.Float64,
    "dec_deg": pl.Float64,
    "nan_frac": pl.Float32,
    "rms": pl.Float32,
    "peak": pl.Float32,
    "peak_snr": pl.Float32,
    "healpix": pl.Int64,
    "source": pl.String,
}

MASK_COLUMNS = {"island": pl.Int64, "extent_px": pl.Int32, "size_rule": pl.String}

IMAGE_COLUMNS = {
    "image": pl.String,
    "artifact": pl.String,
    "path": pl.String,
    "fingerprint": pl.String,
    "height_px": pl.Int32,
    "width_px": pl.Int32,
    "dtype": pl.String,
    "unit": pl.String,
    "pixel_scale_arcsec": pl.Float64,
    "has_wcs": pl.Boolean,
    "mask_fingerprint": pl.String,
}


def window_table(stats: WindowStats, image: Image, name: str, source: str, survey: str) -> pl.DataFrame:
    """Table of windows of one image, with the columns ``COLUMNS``."""
    ra, dec, healpix = sky_positions(image, stats.row0, stats.col0, stats.size_px)
    number = len(stats)
    return pl.DataFrame(
        {
            "cutout_id": cutout_ids(survey, name, stats.row0, stats.col0, stats.size_px),
            "survey": [survey] * number,
            "image": [name] * number,
            "row0": stats.row0,
            "col0": stats.col0,
            "size_px": stats.size_px,
            "ra_deg": ra,
            "dec_deg": dec,
            "nan_frac": stats.nan_frac,
            "rms": stats.rms,
            "peak": stats.peak,
            "peak_snr": stats.peak_snr,
            "healpix": healpix,
            "source": [source] * number,
        },
        schema=COLUMNS,
    )


def sky_positions(
    image: Image, row0: np.ndarray, col0: np.ndarray, size_px: np.ndarray | int
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Positions of window centres.

    Parameters
    ----------
    image
        Image with or without WCS.
    row0, col0
        First pixel of each window, 0-based, shape (N,).
    size_px
        Side of the windows, one for all or shape (N,).

    Returns
    -------
    ra_deg, dec_deg, healpix
        ICRS degrees and nested HEALPix cell of level 12, each (N,); None without a WCS.
    """
    if image.wcs is None:
        return None, None, None
    import astropy.units as u
    from astropy_healpix import HEALPix

    centre = (np.asarray(size_px) - 1) / 2
    sky = image.wcs.pixel_to_world(col0 + centre, row0 + centre).icrs
    cells = HEALPix(nside=2**HEALPIX_LEVEL, order="nested")
    healpix = cells.lonlat_to_healpix(sky.ra.to(u.deg), sky.dec.to(u.deg))
    return sky.ra.deg, sky.dec.deg, np.asarray(healpix, dtype=np.int64)


def cutout_ids(survey: str, image: str, row0: np.ndarray, col0: np.ndarray, size_px: np.ndarray | int) -> np.ndarray:
    """Ids of windows that any machine and any run gives to the same window of the same image.

    A 63-bit hash: the finaliser of splitmix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195) over
    the image's hash, row, column and size. Among 4 million windows two share an id with a probability of 1e-6;
    the step checks that none do.

    Parameters
    ----------
    survey, image
        Names.
    row0, col0
        First pixel of each window, shape (N,).
    size_px
        Side of the windows, one for all or shape (N,).

    Returns
    -------
    ndarray
        int64, shape (N,), not negative.
    """
    seed = hashlib.blake2b(f"{survey}\0{image}".encode(), digest_size=8).digest()
    state = np.full(len(row0), int.from_bytes(seed, "little"), dtype=np.uint64)
    for part in (row0, col0, np.broadcast_to(size_px, len(row0))):
        state = _mix(state ^ part.astype(np.uint64))
    return (state >> np.uint64(1)).astype(np.int64)


def _mix(value: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
