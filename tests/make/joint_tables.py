"""Catalogue columns of a tiny sky that Roman and LSST both see, under the names of the true files."""

from typing import Any

import numpy as np
import polars as pl

ROMAN_BANDS = ("Y106", "J129", "H158")
LSST_BANDS = tuple("ugrizy")
ZERO_POINT_MAG = {"Y106": 31.824, "J129": 31.841, "H158": 31.875, **dict.fromkeys(LSST_BANDS, 27.0)}
GALAXY, STAR, OTHER = 0, 1, 2


def sky_sources(
    rng: np.random.Generator, ra_deg: np.ndarray, dec_deg: np.ndarray, kind: np.ndarray, mag: np.ndarray, start: int
) -> pl.DataFrame:
    """One row per object: number, position, kind, magnitude (the same in all bands), shape."""
    n = len(ra_deg)
    disk = rng.uniform(0.2, 0.8, n)
    return pl.DataFrame(
        {
            "number": np.arange(start, start + n),
            "ra": ra_deg,
            "dec": dec_deg,
            "kind": kind,
            "mag": mag,
            "redshift": rng.uniform(0.1, 2.0, n),
            "disk": disk,
            "disk_minor": disk * rng.uniform(0.3, 1.0, n),
            "bulge": disk * 0.4,
            "bulge_minor": disk * 0.4 * rng.uniform(0.5, 1.0, n),
            "angle": rng.uniform(0, 180, n),
            "shear_1": rng.normal(0, 0.01, n),
            "shear_2": rng.normal(0, 0.01, n),
            "bulge_share": rng.uniform(0, 0.6, n),
        }
    )


def roman_truth(sources: pl.DataFrame) -> dict[str, Any]:
    """Columns of ``dc2_index_*.fits.gz``; gal_star is 0 for galaxies, 1 for stars, 2 for supernovae."""
    zeros = np.zeros(len(sources), np.int32)
    mag = sources["mag"].to_numpy().astype(np.float32)
    return {
        "ind": sources["number"].to_numpy().astype(np.int64),
        "sca": zeros + 1,
        "dither": zeros,
        "ra": sources["ra"].to_numpy(),
        "dec": sources["dec"].to_numpy(),
        **{f"mag_{band}": mag for band in (*ROMAN_BANDS, "F184")},
        **{f"dered_{band}": mag - np.float32(0.01) for band in (*ROMAN_BANDS, "F184")},
        "gal_star": sources["kind"].to_numpy().astype(np.int32),
        "stamp": zeros + 32,
        "start_row": zeros,
    }


def lsst_truth(sources: pl.DataFrame) -> pl.DataFrame:
    """Columns of the DC2 truth summary joined with cosmoDC2: stars have null shapes; truth_type 1, 2 and 3."""
    galaxy = pl.col("kind") == GALAXY
    number = pl.col("number")
    shapes = {
        "size_disk_true": "disk", "size_minor_disk_true": "disk_minor", "size_bulge_true": "bulge",
        "size_minor_bulge_true": "bulge_minor", "position_angle_true_dc2": "angle", "shear_1": "shear_1",
        "shear_2": "shear_2",
    }  # fmt: skip
    flux = 10 ** ((31.4 - pl.col("mag")) / 2.5)
    return sources.select(
        id=pl.when(galaxy).then(number.cast(pl.String)).otherwise(pl.format("star_{}", number)),
        cosmodc2_id=pl.when(galaxy).then(number).otherwise(-1),
        truth_type=pl.col("kind").replace_strict({GALAXY: 1, STAR: 2, OTHER: 3}, return_dtype=pl.Int64),
        ra="ra",
        dec="dec",
        redshift=pl.when(galaxy).then("redshift").otherwise(0.0),
        **{name: pl.when(galaxy).then(column) for name, column in shapes.items()},
        **{f"bulge_to_total_ratio_{b}": pl.when(galaxy).then("bulge_share") for b in LSST_BANDS},
        **{f"mag_true_{b}": pl.when(galaxy).then("mag") for b in LSST_BANDS},
        **{f"mag_{b}": pl.col("mag") for b in LSST_BANDS},
        **{f"flux_{b}": flux for b in LSST_BANDS},
    )


def lsst_objects(sources: pl.DataFrame, tract: int, patch: list[str]) -> pl.DataFrame:
    """Columns of the DC2 object table; one object per source, at its place."""
    return sources.select(
        objectId=pl.col("number") + 10_000_000,
        parentObjectId=pl.lit(0, pl.Int64),
        ra="ra",
        dec="dec",
        x=pl.lit(0.0),
        y=pl.lit(0.0),
        extendedness=pl.when(pl.col("kind") == GALAXY).then(1.0).otherwise(0.0),
        **{f"mag_{b}": pl.col("mag") for b in LSST_BANDS},
        **{f"mag_{b}_cModel": pl.col("mag") for b in LSST_BANDS},
        **{f"snr_{b}_cModel": pl.lit(20.0) for b in LSST_BANDS},
        **{f"psf_fwhm_{b}": pl.lit(0.8) for b in LSST_BANDS},
        good=pl.lit(True),
        clean=pl.lit(True),
        blendedness=pl.lit(0.0),
        tract=pl.lit(tract, pl.Int64),
        patch=pl.Series(patch),
    )
