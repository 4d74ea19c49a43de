"""Colours of simulated stars and galaxies: simple spectra seen through bands that are one wavelength each."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.sky.survey.bands import Band

PIVOT_NM = 754.6  # the i band, in which magnitudes are drawn
DISK, BULGE = (0.9, 1.35), (1.5, 2.2)  # per part: slope of the spectrum with wavelength, and step at 400 nm
BREAK_NM, BREAK_WIDTH_NM = 400.0, 15.0
LYMAN_NM, LYMAN_WIDTH_NM, LYMAN_LEFT = 121.6, 4.0, 0.03  # hydrogen between the galaxies takes what is below
INFRARED_SLOPE = 1.61  # of extinction with wavelength, where a survey says none (Cardelli et al. 1989, ApJ 345, 245)
PLANCK_NM_K = 1.438777e7  # h c / k_B


def galaxy_colours(redshift: NDArray[np.float64], wavelength_nm: ArrayLike, *, bulge: bool) -> NDArray[np.float64]:
    """Flux of a part of galaxies relative to the i band.

    Parameters
    ----------
    redshift
        Shape (n,).
    wavelength_nm
        Of the bands, shape (C,).
    bulge
        The red part, not the blue one.

    Returns
    -------
    array of float64, shape (n, C)
        Ratio of the fluxes per unit frequency. The spectrum is a power law with a step at 400 nm and next to nothing
        below Lyman alpha: red at low redshift, dropping out of the bluest bands at high redshift.
    """
    slope, step = BULGE if bulge else DISK

    def flux(nm: NDArray[np.float64]) -> NDArray[np.float64]:
        rest = nm / (1 + redshift[:, None])
        light = (rest / BREAK_NM) ** slope * (1 + (step - 1) * _rise(rest, BREAK_NM, BREAK_WIDTH_NM))
        # redder than a galaxy's own near infrared spectra fall again
        light /= 1 + (rest / 1600.0) ** (slope + 0.5)
        return light * (LYMAN_LEFT + (1 - LYMAN_LEFT) * _rise(rest, LYMAN_NM, LYMAN_WIDTH_NM))

    return flux(np.atleast_1d(np.asarray(wavelength_nm, float))[None]) / flux(np.array([[PIVOT_NM]]))


def star_colours(temperature_k: NDArray[np.float64], wavelength_nm: ArrayLike) -> NDArray[np.float64]:
    """Flux of stars per unit frequency relative to the i band, shape (n, C): black bodies."""

    def flux(nm: NDArray[np.float64]) -> NDArray[np.float64]:
        return nm**-3 / np.expm1(PLANCK_NM_K / (nm * temperature_k[:, None]))

    return flux(np.atleast_1d(np.asarray(wavelength_nm, float))[None]) / flux(np.array([[PIVOT_NM]]))


def extinctions(bands: list[Band]) -> NDArray[np.float64]:
    """A_b / E(B-V) of bands, shape (C,); where a survey says none, from its nearest neighbour that has one."""
    known = [band for band in bands if band.extinction is not None]
    if not known:
        return np.zeros(len(bands))

    def of(band: Band) -> float:
        if band.extinction is not None:
            return band.extinction
        near = min(known, key=lambda other: abs(other.wavelength_nm - band.wavelength_nm))
        assert near.extinction is not None
        return near.extinction * float((band.wavelength_nm / near.wavelength_nm) ** -INFRARED_SLOPE)

    return np.array([of(band) for band in bands])


def _rise(nm: NDArray[np.float64], middle_nm: float, width_nm: float) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh((nm - middle_nm) / width_nm))
