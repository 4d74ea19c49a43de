"""What is left when the truth is taken from a measurement: offsets on the sky, and residuals in bins."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.errors import ConfigError, InputError
from skyloom.sky.geometry.sphere import ARCSEC, unit_vectors

MAD_TO_SIGMA = 1.4826  # a normal distribution's standard deviation over its median absolute deviation


def position_offsets(
    true_ra_deg: np.ndarray, true_dec_deg: np.ndarray, ra_deg: np.ndarray, dec_deg: np.ndarray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets of measured from true positions towards east and north.

    The difference of the unit vectors is taken along the east and north directions at the true position, so that
    neither RA 0 nor a pole is special; at 1 arcmin this differs from the offset on the tangent plane by 1 part in 10^7.

    Parameters
    ----------
    true_ra_deg, true_dec_deg, ra_deg, dec_deg
        Degrees, shape (N,).

    Returns
    -------
    east_arcsec, north_arcsec : ndarray
        float64, shape (N,); measured minus true.
    """
    ra, dec = np.radians(np.asarray(true_ra_deg, np.float64)), np.radians(np.asarray(true_dec_deg, np.float64))
    moved = unit_vectors(ra_deg, dec_deg) - unit_vectors(true_ra_deg, true_dec_deg)
    east = np.column_stack([-np.sin(ra), np.cos(ra), np.zeros_like(ra)])
    north = np.column_stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    return (moved * east).sum(1) / ARCSEC, (moved * north).sum(1) / ARCSEC


def centre_and_spread(values: np.ndarray) -> dict[str, float | int]:
    """``number``, ``median`` and ``spread`` (1.4826 median absolute deviations) of the finite values; NaN without."""
    good = np.asarray(values, dtype=np.float64)
    good = good[np.isfinite(good)]
    if not len(good):
        return {"number": 0, "median": float("nan"), "spread": float("nan")}
    median = float(np.median(good))
    return {"number": len(good), "median": median, "spread": MAD_TO_SIGMA * float(np.median(np.abs(good - median)))}


def binned_residuals(residual: np.ndarray, by: np.ndarray, edges: np.ndarray | list[float]) -> pl.DataFrame:
    """Centre and spread of residuals in bins of another quantity.

    Parameters
    ----------
    residual
        Measured minus true, shape (N,); what is not finite is left out.
    by
        The quantity, such as the true magnitude, shape (N,).
    edges
        Rising, shape (B + 1,); bins are [low, high), the last one includes its end.

    Returns
    -------
    polars.DataFrame
        One row per bin: ``low``, ``high``, ``number``, ``median``, ``spread`` (1.4826 MAD) and ``error`` of the median
        (1.2533 spread / sqrt(number), as for a normal distribution); NaN in empty bins.
    """
    limits = np.asarray(edges, dtype=np.float64)
    if limits.ndim != 1 or len(limits) < 2 or not (np.diff(limits) > 0).all():
        raise ConfigError("edges: expected two or more rising numbers")
    residual, by = np.asarray(residual, dtype=np.float64), np.asarray(by, dtype=np.float64)
    if residual.shape != by.shape:
        raise InputError(f"{residual.size} residuals and {by.size} values to bin them by; expected as many")
    good = np.isfinite(residual) & np.isfinite(by)
    at = np.searchsorted(limits, by, side="right") - 1
    at = np.where(by == limits[-1], len(limits) - 2, at)
    rows = [centre_and_spread(residual[good & (at == i)]) for i in range(len(limits) - 1)]
    table = pl.DataFrame(rows, schema={"number": pl.Int64, "median": pl.Float64, "spread": pl.Float64})
    error = 1.2533 * pl.col("spread") / pl.col("number").sqrt()
    return table.select(
        pl.Series("low", limits[:-1]), pl.Series("high", limits[1:]), "number", "median", "spread", error=error
    )
