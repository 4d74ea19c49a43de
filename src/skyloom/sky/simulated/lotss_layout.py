"""Where simulated LoTSS mosaics lie on the sky, what their FITS headers hold, and which random stream each one uses."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits

from skyloom.errors import ConfigError

PIXEL_SCALE_ARCSEC = 1.5
BEAM_ARCSEC = 6.0
FWHM_PER_SIGMA = float(np.sqrt(8 * np.log(2)))  # of a Gaussian
MAX_HALF_EXTENT_DEG = 75.0  # beyond this the grid would wrap round the sky and mosaics would meet twice

_SOURCE_STREAM, _MOSAIC_STREAM = 0, 1


class Pointing(NamedTuple):
    """One mosaic of the survey: its folder name and the sky position (ICRS, degrees) of its reference pixel."""

    name: str
    ra_deg: float
    dec_deg: float


def source_rng(seed: int) -> np.random.Generator:
    """Random stream of the one sky catalogue of a simulated survey."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SOURCE_STREAM, 0)))


def mosaic_rng(seed: int, index: int) -> np.random.Generator:
    """Random stream (edge and noise) of mosaic ``index``, independent of every other mosaic and of the sources."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_MOSAIC_STREAM, index)))


def beam_area_px(beam_arcsec: float = BEAM_ARCSEC, pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC) -> float:
    """Solid angle of a circular Gaussian beam in pixels: ``pi FWHM^2 / (4 ln 2)``."""
    return float(np.pi / (4 * np.log(2)) * (beam_arcsec / pixel_scale_arcsec) ** 2)


def mosaic_radius_deg(size_px: int, pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC) -> float:
    """Angle in degrees from the reference pixel of a square mosaic to its corner (never too small)."""
    half_deg = (size_px / 2 + 1) * pixel_scale_arcsec / 3600
    plane = half_deg * np.sqrt(2)
    # A SIN projection maps the angle a to sin(a), so the sky reaches a little further than the plane does.
    sine = np.deg2rad(plane)
    if sine >= 1:
        raise ConfigError(
            f"size_px={size_px} at {pixel_scale_arcsec} arcsec per pixel is wider than a SIN projection can show; "
            "choose a smaller mosaic."
        )
    return float(np.rad2deg(np.arcsin(sine)))


def survey_layout(
    n_mosaics: int,
    size_px: int,
    *,
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC,
    sky_overlap: float = 0.3,
    centre_ra_deg: float = 123.0,
    centre_dec_deg: float = 45.0,
) -> list[Pointing]:
    """Lay mosaics out on a nearly square grid whose neighbours share sky.

    The grid is laid in a frame that is centred on the survey, so it may contain a pole or cross RA 0.

    Parameters
    ----------
    n_mosaics
        Number of mosaics, at least 1.
    size_px
        Side of a mosaic in pixels.
    pixel_scale_arcsec
        Pixel side in arcsec.
    sky_overlap
        Part of a mosaic's side that it shares with its neighbour, in [0, 1). The default gives every sky position
        about 1.6 mosaics, once edges are blanked, as LoTSS DR2 has.
    centre_ra_deg, centre_dec_deg
        Centre of the survey, ICRS degrees.

    Returns
    -------
    list of Pointing
        Row by row from the south. Names follow LoTSS (``P123+45``); where rounding to whole degrees gives a name
        twice, the later ones get ``-2``, ``-3``, and so on.

    Raises
    ------
    ConfigError
        If a value is out of range or the grid would not fit on the sky.
    """
    if n_mosaics < 1 or size_px < 1 or pixel_scale_arcsec <= 0:
        raise ConfigError(
            f"n_mosaics={n_mosaics}, size_px={size_px}, pixel_scale_arcsec={pixel_scale_arcsec}: all must be positive."
        )
    if not 0 <= sky_overlap < 1:
        raise ConfigError(f"sky_overlap={sky_overlap}: must be at least 0 and below 1.")
    step_deg = size_px * pixel_scale_arcsec / 3600 * (1 - sky_overlap)
    columns = int(np.ceil(np.sqrt(n_mosaics)))
    rows = int(np.ceil(n_mosaics / columns))
    row, column = np.divmod(np.arange(n_mosaics), columns)
    lat = (row - (rows - 1) / 2) * step_deg
    reach = np.abs((column - (columns - 1) / 2) * step_deg)
    if max(np.abs(lat).max(), reach.max()) > MAX_HALF_EXTENT_DEG:
        raise ConfigError(
            f"n_mosaics={n_mosaics} of {size_px} px reach more than {MAX_HALF_EXTENT_DEG:.0f} deg from the survey's "
            "centre; choose fewer or smaller mosaics, or more sky_overlap."
        )
    lon = (column - (columns - 1) / 2) * step_deg / np.cos(np.deg2rad(lat))
    centre = SkyCoord(centre_ra_deg, centre_dec_deg, unit="deg")
    sky = SkyCoord(lon * u.deg, lat * u.deg, frame=centre.skyoffset_frame()).icrs
    names = _unique_names(sky.ra.deg, sky.dec.deg)
    return [Pointing(n, float(r), float(d)) for n, r, d in zip(names, sky.ra.deg, sky.dec.deg, strict=True)]


def _unique_names(ra_deg: Sequence[float], dec_deg: Sequence[float]) -> list[str]:
    """Name positions like LoTSS pointings."""
    seen: Counter[str] = Counter()
    names = []
    for ra, dec in zip(ra_deg, dec_deg, strict=True):
        name = f"P{round(ra) % 360:03d}{round(dec):+03d}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def mosaic_header(
    pointing: Pointing,
    size_px: int,
    *,
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC,
    beam_arcsec: float = BEAM_ARCSEC,
) -> fits.Header:
    """Header of ``mosaic-blanked.fits``: the keys, order and types of LoTSS DR2.

    Taken from the header of P124+62 as kept by the test data of opencadc/lotss2caom2. OBSERVER and ORIGIN say that
    the sky is simulated. There is no date, so that the same simulation gives the same bytes.
    """
    scale_deg, beam_deg = pixel_scale_arcsec / 3600, beam_arcsec / 3600
    cards = [
        ("WCSAXES", 2),
        ("CTYPE1", "RA---SIN"),
        ("CTYPE2", "DEC--SIN"),
        ("CUNIT1", "deg"),
        ("CUNIT2", "deg"),
        ("CRPIX1", size_px // 2),
        ("CRPIX2", size_px // 2),
        ("CRVAL1", pointing.ra_deg),
        ("CRVAL2", pointing.dec_deg),
        ("CDELT1", -scale_deg),
        ("CDELT2", scale_deg),
        ("RADESYS", "ICRS"),
        ("EQUINOX", 2000.0),
        ("LONPOLE", 180.0),
        ("LATPOLE", pointing.dec_deg),
        ("BMAJ", beam_deg),
        ("BMIN", beam_deg),
        ("BPA", 90),
        ("TELESCOP", "LOFAR"),
        ("RESTFRQ", 143650000.0),
        ("OBSERVER", "skyloom"),
        ("BUNIT", "JY/BEAM"),
        ("BTYPE", "Intensity"),
        ("OBJECT", pointing.name),
        ("ORIGIN", "skyloom simulated sky"),
    ]
    return fits.Header(cards)


def mask_header(image_header: fits.Header) -> fits.Header:
    """Header of ``mosaic.pybdsmmask.fits`` (4-D, Stokes before frequency, as in DR2) for a mosaic's header."""
    frequency_hz = image_header["RESTFRQ"]
    cards: list[tuple[str, str | float]] = []
    for axis in (1, 2):
        for key in ("CRVAL", "CDELT", "CRPIX"):
            cards.append((f"{key}{axis}", float(image_header[f"{key}{axis}"])))
        cards += [(f"CUNIT{axis}", "deg"), (f"CTYPE{axis}", image_header[f"CTYPE{axis}"])]
    cards += [("CRVAL3", 1.0), ("CDELT3", 1.0), ("CRPIX3", 1.0), ("CUNIT3", ""), ("CTYPE3", "STOKES")]
    cards += [("RESTFRQ", frequency_hz)]
    cards += [("CRVAL4", frequency_hz), ("CDELT4", 3e8), ("CRPIX4", 1.0), ("CUNIT4", "HZ"), ("CTYPE4", "FREQ")]
    cards += [("SPECSYS", "TOPOCENT"), ("EQUINOX", 2000.0), ("TELESCOP", image_header["TELESCOP"])]
    return fits.Header(cards)
