"""Tables of true objects that simulated surveys ship, under the names of their files' columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.errors import ConfigError
from skyloom.sky.simulated.joint_sources import GALAXY, STAR
from skyloom.sky.survey.bands import Band, TableFacts
from skyloom.sky.survey.facts import Survey

NJY_MAG = 31.4  # AB magnitude of 1 nJy (Oke & Gunn 1983, ApJ 266, 713)


def truth_columns(sky: pl.DataFrame, survey: Survey) -> dict[str, Any]:
    """Columns of a table of true objects that the survey's file names, by column.

    Parameters
    ----------
    sky
        As from :func:`skyloom.sky.simulated.joint_sources.make_sky`.
    survey
        ``truth`` says what the columns are called; what it does not name is not written.
    """
    facts = facts_of(survey, "truth")
    galaxy = sky["kind"].to_numpy() == GALAXY
    known: dict[str, Any] = {
        "object_id": sky["number"].to_numpy(),
        "ra_deg": sky["ra_deg"].to_numpy(),
        "dec_deg": sky["dec_deg"].to_numpy(),
        "class": classes(sky, facts),
        "redshift": sky["redshift"].fill_null(0.0).to_numpy(),
        "size_disk_arcsec": sky["disk_arcsec"],
        "size_minor_disk_arcsec": sky["disk_minor_arcsec"],
        "size_bulge_arcsec": sky["bulge_arcsec"],
        "size_minor_bulge_arcsec": sky["bulge_minor_arcsec"],
        "position_angle_deg": sky["angle_deg"],
        "shear_1": sky["shear_1"],
        "shear_2": sky["shear_2"],
    }

    def per_band(band: Band) -> dict[str, Any]:
        seen, true = sky[f"mag_{band.name}"], sky[f"mag_true_{band.name}"]
        return {
            "mag": seen,
            "mag_star": seen,
            "mag_galaxy": pl.select(pl.when(pl.Series(galaxy)).then(true)).to_series(),
            "flux_njy": 10 ** (0.4 * (NJY_MAG - seen)),
            "bulge_fraction": sky[f"bulge_{band.name}"],
        }

    return named(facts, known, {band.name: per_band(band) for band in survey.bands})


def lsst_extras(sky: pl.DataFrame, tract: NDArray[np.int64], patch: Sequence[str]) -> dict[str, Any]:
    """Further columns of the truth tables of DC2: numbers of cosmoDC2, sizes and ellipticities of the whole galaxy."""
    galaxy = sky["kind"].to_numpy() == GALAXY
    disk, minor = (sky[name].to_numpy() for name in ("disk_arcsec", "disk_minor_arcsec"))
    q = minor / disk
    ellipticity = (1 - q) / (1 + q)
    angle = 2 * np.radians(sky["angle_deg"].to_numpy())
    return {
        "cosmodc2_id": np.where(galaxy, sky["number"].to_numpy(), -1),
        "is_pointsource": (~galaxy).astype(np.int64),
        "size_true": pl.Series(disk, nan_to_null=True),
        "size_minor_true": pl.Series(minor, nan_to_null=True),
        "ellipticity_true": pl.Series(ellipticity, nan_to_null=True),
        "ellipticity_1_true": pl.Series(ellipticity * np.cos(angle), nan_to_null=True),
        "ellipticity_2_true": pl.Series(ellipticity * np.sin(angle), nan_to_null=True),
        "tract": tract,
        "patch": list(patch),
    }


def classes(sky: pl.DataFrame, facts: TableFacts) -> NDArray[np.int64]:
    """Class of each object in the numbers of a survey; what is neither galaxy nor star has the next free number."""
    if not facts.classes.get("galaxy") or not facts.classes.get("star"):
        raise ConfigError(
            "survey.truth.classes: expected numbers for galaxy and star; give them to simulate the survey."
        )
    kind = sky["kind"].to_numpy()
    galaxy, star = facts.classes["galaxy"][0], facts.classes["star"][0]
    other = max(value for values in facts.classes.values() for value in values) + 1
    return np.where(kind == GALAXY, galaxy, np.where(kind == STAR, star, other)).astype(np.int64)


def named(facts: TableFacts, known: Mapping[str, Any], of_bands: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Columns by the names of the file: those standard names that the survey's file translates."""
    out: dict[str, Any] = {facts.column(name): value for name, value in known.items() if name in facts.columns}
    for band, values in of_bands.items():
        for name, value in values.items():
            if name in facts.columns:
                out[facts.column(name, band=band)] = value
    return out


def facts_of(survey: Survey, table: str) -> TableFacts:
    """Columns of the survey's ``truth`` or ``detections``.

    Raises
    ------
    ConfigError
        The survey's file says nothing of this table.
    """
    facts: TableFacts | None = getattr(survey, table)
    if facts is None:
        raise ConfigError(
            f"survey={survey.name} says nothing of its {table}; give survey.{table} to simulate the survey."
        )
    return facts
