"""World coordinates as FITS cards in one string: written from a WCS, moved to a cutout, read back."""

import warnings

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning


def cards_of(wcs: WCS) -> str:
    """Write a celestial WCS as FITS cards of 80 characters, joined to one string; SIP distortions are kept."""
    with warnings.catch_warnings():
        # astropy tells that relaxed keywords (SIP) are written; they are what is asked for.
        warnings.simplefilter("ignore")
        return str(wcs.to_header(relax=True).tostring(endcard=False, padding=False))


def moved_cards(cards: str, row0: int, col0: int, shape: tuple[int, int]) -> str:
    """Move the cards of an image to a window of it.

    Parameters
    ----------
    cards
        As from `cards_of`.
    row0, col0
        First row and column of the window, from 0; may be negative.
    shape
        Height and width of the window in pixels, written as NAXIS1 and NAXIS2.

    Returns
    -------
    str
        Cards with the reference pixel moved; distortions are given relative to it and stay.
    """
    header = fits.Header.fromstring(cards)
    header["CRPIX1"] = header.get("CRPIX1", 0.0) - col0
    header["CRPIX2"] = header.get("CRPIX2", 0.0) - row0
    header.insert(0, ("NAXIS", 2))
    header.insert(1, ("NAXIS1", int(shape[1])))
    header.insert(2, ("NAXIS2", int(shape[0])))
    return str(header.tostring(endcard=False, padding=False))


def wcs_of(cards: str) -> WCS:
    """Read the WCS of FITS cards; its ``pixel_shape`` is (width, height) where the cards tell it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)  # wcslib tells of every card that it brings into today's form
        return WCS(fits.Header.fromstring(cards))


def same_grid(first: WCS, second: WCS, shape: tuple[int, int], tolerance_px: float = 0.01) -> bool:
    """Whether two images of one shape have the same pixels on the sky, at their corners and centre.

    Parameters
    ----------
    first, second
        Celestial WCS.
    shape
        Height and width in pixels.
    tolerance_px
        Largest distance in pixels that counts as none; far below what a source position is known to.
    """
    x = np.array([0.0, shape[1] - 1, 0.0, shape[1] - 1, (shape[1] - 1) / 2])
    y = np.array([0.0, 0.0, shape[0] - 1, shape[0] - 1, (shape[0] - 1) / 2])
    x_px, y_px = second.world_to_pixel(first.pixel_to_world(x, y))
    return bool(np.all(np.hypot(x_px - x, y_px - y) <= tolerance_px))
