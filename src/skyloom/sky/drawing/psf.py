"""Point-spread functions of survey bands, from the few numbers in the survey's configuration, as GalSim profiles."""

from typing import Any

import galsim
import numpy as np
from numpy.typing import NDArray

from skyloom.errors import ConfigError, unknown_choice
from skyloom.sky.survey.bands import PSF_KEYS, Band


def psf_model(band: Band) -> galsim.GSObject:
    """Point-spread function of a band, of flux 1.

    Parameters
    ----------
    band
        Its ``psf`` names a ``model`` and what that needs: ``kolmogorov_airy`` (``fwhm_arcsec`` of the atmosphere,
        ``diameter_m``, ``obscuration``), ``airy`` (``diameter_m``, ``obscuration``), ``gaussian`` (``fwhm_arcsec``),
        ``moffat`` (``fwhm_arcsec``, ``beta``) or ``roman`` (``sca``, ``pupil_bin``; the band's name is Roman's).

    Returns
    -------
    galsim.GSObject
        Sizes in arcsec, along the rows and columns of the image. It is what stars look like in the images, so draw it
        with ``method="no_pixel"``.

    Raises
    ------
    ConfigError
        The model is unknown, or a number is missing, unknown or impossible.

    Notes
    -----
    Kolmogorov turbulence and an annular pupil are what Sanchez et al. (2021), JCAP 07, 043 and the LSST simulations
    built on it take; the Roman model is that of :mod:`galsim.roman` (Troxel et al. 2023, MNRAS 522, 2801) at the
    centre of detector ``sca`` and the wavelength of the band.
    """
    where = f"survey.bands.{band.name}.psf"
    facts = dict(band.psf)
    model = facts.get("model")
    if model not in PSF_KEYS:
        raise unknown_choice(f"{where}.model", model, PSF_KEYS)
    try:
        return _model(band, facts, where)
    except KeyError as error:
        raise ConfigError(f"{where}: model {model} needs {error.args[0]}; add it to the survey's file") from error
    except (galsim.GalSimError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: GalSim does not take {facts} ({error}); correct these numbers") from error


def psf_stamp(band: Band, pixel_scale_arcsec: float, size_px: int) -> NDArray[np.float64]:
    """Picture of a band's PSF.

    Parameters
    ----------
    band
        The band.
    pixel_scale_arcsec
        Side of a pixel of the picture.
    size_px
        Side of the picture; with an odd number the centre of the PSF is that of the middle pixel.

    Returns
    -------
    array of float64, shape (size_px, size_px)
        Fraction of the flux per pixel; sums to 1 less what lies outside.
    """
    image = galsim.Image(size_px, size_px, scale=pixel_scale_arcsec, dtype=float)
    drawn = psf_model(band).drawImage(image, method="no_pixel")
    return np.asarray(drawn.array, np.float64)


def fwhm_arcsec(psf: galsim.GSObject) -> float:
    """Full width at half maximum of a PSF, by GalSim from a picture of it."""
    return float(psf.calculateFWHM())


def _model(band: Band, facts: dict[str, Any], where: str) -> galsim.GSObject:
    name = facts["model"]
    if name == "gaussian":
        return galsim.Gaussian(fwhm=facts["fwhm_arcsec"])
    if name == "moffat":
        return galsim.Moffat(beta=facts["beta"], fwhm=facts["fwhm_arcsec"])
    if name == "roman":
        return _roman(band, int(facts["sca"]), int(facts["pupil_bin"]), where)
    airy = galsim.Airy(lam=band.wavelength_nm, diam=facts["diameter_m"], obscuration=facts["obscuration"])
    if name == "airy":
        return airy
    return galsim.Convolve(galsim.Kolmogorov(fwhm=facts["fwhm_arcsec"]), airy)


def _roman(band: Band, sca: int, pupil_bin: int, where: str) -> galsim.GSObject:
    import galsim.roman  # reads its tables of bandpasses and aberrations, which no other model needs

    known = [*galsim.roman.shortwave_bands, *galsim.roman.longwave_bands]
    if band.name not in known:
        raise unknown_choice(f"{where}: the band of a Roman PSF", band.name, known)
    return galsim.roman.getPSF(sca, band.name, pupil_bin=pupil_bin, wavelength=band.wavelength_nm)
