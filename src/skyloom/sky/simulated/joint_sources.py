"""One sky for several optical surveys: galaxies that cluster, with bulges and disks, stars and supernovae."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.sky.simulated.joint_colours import extinctions, galaxy_colours, star_colours
from skyloom.sky.simulated.joint_layout import Field
from skyloom.sky.simulated.joint_shapes import Box, clustered, magnitudes, shapes, uniform
from skyloom.sky.survey.bands import Band

GALAXY, STAR, SUPERNOVA = 0, 1, 2
COUNTS_AT_25, COUNTS_SLOPE = 46.0, 0.31  # galaxies per square arcmin with i < 25 (LSST Science Book 2009, eq. 3.7)
BRIGHTEST_GALAXY_MAG, BRIGHTEST_STAR_MAG = 18.0, 17.0
STAR_SLOPE = 0.12  # of the logarithm of star counts per magnitude, away from the plane of the Milky Way
FIRST_GALAXY, FIRST_STAR, FIRST_SUPERNOVA = 10_000_000_000, 31_000_000_000, 22_000_000_000


def make_sky(
    rng: np.random.Generator,
    fields: Sequence[Field],
    bands: Sequence[Band],
    *,
    faintest_mag: float,
    crowding: float,
    stars_per_arcmin2: float,
    supernovae: int,
    ebv_mag: float,
) -> pl.DataFrame:
    """Draw the sources of the sky that some images show.

    Parameters
    ----------
    rng
        Random stream.
    fields
        The images; sources fill a box around all of them.
    bands
        Bands in which sources have magnitudes.
    faintest_mag
        Faintest i magnitude of galaxies and stars.
    crowding
        Number of galaxies relative to the real sky.
    stars_per_arcmin2
        Density of stars down to the faintest magnitude.
    supernovae
        Number of point sources of a third class, each in a galaxy.
    ebv_mag
        Dust of the Milky Way.

    Returns
    -------
    polars.DataFrame
        One row per source: ``number``, ``kind`` (0 galaxy, 1 star, 2 supernova), ``ra_deg``, ``dec_deg``, ``redshift``,
        half-light semi-axes ``disk_arcsec``, ``disk_minor_arcsec``, ``bulge_arcsec``, ``bulge_minor_arcsec``,
        ``angle_deg``, ``shear_1``, ``shear_2``, and per band ``mag_true_<band>`` (before dust), ``mag_<band>`` (seen),
        ``bulge_<band>`` (part of the light).

    Notes
    -----
    Counts and redshifts (``p(z)`` a Gamma distribution whose scale grows with magnitude) follow eqs. 3.7 and 3.8 of the
    LSST Science Book (2009); sizes shrink with magnitude as in deep fields; groups are a Neyman-Scott process.
    """
    box = Box.around(fields)
    area = box.area_arcmin2
    nm = [band.wavelength_nm for band in bands]
    galaxies = rng.poisson(COUNTS_AT_25 * 10 ** (COUNTS_SLOPE * (faintest_mag - 25)) * crowding * area)
    stars = rng.poisson(stars_per_arcmin2 * area)
    place = clustered(rng, galaxies, box)
    mag = magnitudes(rng, galaxies, BRIGHTEST_GALAXY_MAG, faintest_mag, COUNTS_SLOPE)
    redshift = rng.gamma(3.0, np.maximum(0.0417 * mag - 0.744, 0.03))
    share = np.clip(rng.beta(0.7, 2.0, galaxies), 0.0, 0.95)  # of the bulge in i
    parts = [w[:, None] * galaxy_colours(redshift, nm, bulge=b) for w, b in ((1 - share, False), (share, True))]
    total = parts[0] + parts[1]
    galaxy = shapes(rng, mag, share) | {
        "redshift": redshift,
        "mag": mag[:, None] - 2.5 * np.log10(total),
        "bulge": parts[1] / total,
    }
    star_mag = magnitudes(rng, stars, BRIGHTEST_STAR_MAG, faintest_mag, STAR_SLOPE)
    point = {
        "mag": star_mag[:, None] - 2.5 * np.log10(star_colours(rng.uniform(2800, 7500, stars), nm)),
    }
    hosts = rng.integers(0, galaxies, min(supernovae, galaxies)) if galaxies else np.empty(0, np.int64)
    bang = {
        "redshift": redshift[hosts],
        "mag": (mag[hosts] + 0.5)[:, None] - 2.5 * np.log10(star_colours(np.full(len(hosts), 9000.0), nm)),
    }
    around = place[:, hosts] + rng.normal(0, 0.3, (2, len(hosts)))
    tables = [
        _table(GALAXY, FIRST_GALAXY, place, galaxy, bands),
        _table(STAR, FIRST_STAR, uniform(rng, stars, box), point, bands),
        _table(SUPERNOVA, FIRST_SUPERNOVA, around, bang, bands),
    ]
    table = pl.concat(tables)
    ra, dec = box.sky(table.select("east", "north").to_numpy().T)
    dust = extinctions(list(bands)) * ebv_mag
    return table.drop("east", "north").with_columns(
        pl.Series("ra_deg", ra),
        pl.Series("dec_deg", dec),
        *(pl.col(f"mag_true_{b.name}").add(float(a)).alias(f"mag_{b.name}") for b, a in zip(bands, dust, strict=True)),
    )


def _table(
    kind: int, first: int, place: NDArray[np.float64], known: dict[str, NDArray[np.float64]], bands: Sequence[Band]
) -> pl.DataFrame:
    n = place.shape[1]
    numbers = [
        "redshift", "disk_arcsec", "disk_minor_arcsec", "bulge_arcsec", "bulge_minor_arcsec", "angle_deg", "shear_1",
        "shear_2",
    ]  # fmt: skip
    columns: dict[str, pl.Series] = {
        "number": pl.Series(np.arange(first, first + n)),
        "kind": pl.Series([kind] * n, dtype=pl.Int8),
        "east": pl.Series(place[0]),
        "north": pl.Series(place[1]),
    }
    for name in numbers:
        columns[name] = pl.Series(known[name]) if name in known else pl.Series([None] * n, dtype=pl.Float64)
    for c, band in enumerate(bands):
        columns[f"mag_true_{band.name}"] = pl.Series(known["mag"][:, c])
        columns[f"bulge_{band.name}"] = (
            pl.Series(known["bulge"][:, c]) if "bulge" in known else pl.Series([None] * n, dtype=pl.Float64)
        )
    return pl.DataFrame(columns)
