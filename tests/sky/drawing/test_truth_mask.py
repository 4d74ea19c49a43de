"""Masks of single objects equal those of an independent rendering by GalSim, on any WCS and at any brightness."""

from dataclasses import replace

import galsim
import numpy as np
import pytest
from astropy.wcs import WCS

from make.true_sources import bands_of, true_sources
from skyloom.sky.drawing.psf import psf_model, psf_stamp
from skyloom.sky.drawing.truth_mask import MaskDrawer
from skyloom.sky.geometry.local_frame import sky_jacobian

BANDS = (bands_of("lsst")[1], bands_of("lsst")[3])
PSFS = [psf_model(band) for band in BANDS]
NOISE = np.array([0.06, 0.07])
SIZE = 120


@pytest.fixture(scope="module")
def drawers():
    return {matched: MaskDrawer(PSFS, 0.2, matched=matched, dilate_px=0) for matched in (False, True)}


def turned(angle, mirrored=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [0.0, -39.9], [60, 60]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = np.diag([-1 if mirrored else 1, 1]) @ turn * 0.2 / 3600
    return wcs


def two_bands(sources):
    return replace(sources, flux=sources.flux[:, [1, 3]], bulge_fraction=sources.bulge_fraction[:, [1, 3]])


def whole(mask, size=SIZE):
    found = np.zeros((size, size), bool)
    if mask is not None:
        rows, cols = mask.row0 + np.arange(mask.pixels.shape[0]), mask.col0 + np.arange(mask.pixels.shape[1])
        keep = np.ix_((rows >= 0) & (rows < size), (cols >= 0) & (cols < size))
        inside = mask.pixels[keep]
        found[np.ix_(rows[(rows >= 0) & (rows < size)], cols[(cols >= 0) & (cols < size)])] = inside
    return found


def rendered(sources, i, x, y, wcs, matched, size=SIZE):
    """By GalSim's own WCS classes on the whole image: the mask, and the picture in the last band."""
    at = galsim.PositionD(x + 1, y + 1)
    union, image = np.zeros((size, size), bool), None
    for c, psf in enumerate(PSFS):
        parts = [sources.profile(i, c), psf] + [psf] * matched
        light = galsim.Convolve(parts, gsparams=galsim.GSParams(folding_threshold=2e-3, maximum_fft_size=16384))
        image = galsim.Image(size, size, dtype=float)
        light.drawImage(image, wcs=galsim.AstropyWCS(wcs=wcs).local(at), center=at, method="no_pixel")
        power = np.sum(psf_stamp(BANDS[c], 0.2, 101) ** 2) if matched else 1.0
        union |= image.array > 5 * NOISE[c] * np.sqrt(power)
    return union, image.array


@pytest.mark.parametrize(("matched", "angle", "mirrored"), [(True, 0.4, True), (False, 2.0, False)])
def test_masks_centroids_and_fluxes_equal_an_independent_rendering(drawers, matched, angle, mirrored):
    rng = np.random.default_rng(2)
    sources, wcs, n = two_bands(true_sources(rng, 20, faintest=23.5)), turned(angle, mirrored), 20
    x, y = rng.uniform(50, 70, (2, n))
    drawer = drawers[matched]
    masks = drawer.masks(sources, x, y, sky_jacobian(wcs, x, y), drawer.thresholds(NOISE, 5.0), (SIZE, SIZE))
    overlap, distance = [], []
    rows, cols = np.mgrid[:SIZE, :SIZE]
    for i in range(n):
        wanted, image = rendered(sources, i, x[i], y[i], wcs, matched)
        found = whole(masks[i])
        assert (masks[i] is None) == (not wanted.any())
        if wanted.any():
            overlap.append((found & wanted).sum() / (found | wanted).sum())
        centre = (image * cols).sum() / image.sum(), (image * rows).sum() / image.sum()
        distance.append(np.hypot(centre[0] - x[i], centre[1] - y[i]))
        assert image.sum() == pytest.approx(sources.flux[i, -1], rel=0.01)
    assert len(overlap) >= 15
    assert np.median(overlap) >= 0.98
    assert min(overlap) > 0.9
    assert max(distance) < 0.1


def test_stamps_grow_with_the_object(drawers):
    sources = two_bands(true_sources(np.random.default_rng(0), 40, faintest=23))
    star = sources[np.flatnonzero(sources.is_star)[:1]]
    bright = replace(star, flux=np.full((1, 2), 10 ** (0.4 * (27 - 14.0))))
    at = np.array([60.3])
    drawer = drawers[False]
    wcs = turned(0.0)
    (mask,) = drawer.masks(bright, at, at, sky_jacobian(wcs, at, at), drawer.thresholds(NOISE, 5.0), (SIZE, SIZE))
    wanted, _ = rendered(bright, 0, 60.3, 60.3, wcs, False)
    assert wanted.sum() > 40**2  # more than a fixed stamp of 32 px would hold
    found = whole(mask)
    assert (found & wanted).sum() / (found | wanted).sum() > 0.99


def test_the_result_does_not_depend_on_the_company(drawers):
    rng = np.random.default_rng(4)
    sources = two_bands(true_sources(rng, 30, faintest=24))
    x, y = rng.uniform(0, SIZE, (2, 30))
    drawer, threshold = drawers[True], drawers[True].thresholds(NOISE, 5.0)
    jacobian = sky_jacobian(turned(0.0), x, y)
    together = drawer.masks(sources, x, y, jacobian, threshold, (SIZE, SIZE))
    for i in (0, 7, 29):
        rows = np.array([i])
        (alone,) = drawer.masks(sources[rows], x[rows], y[rows], jacobian[rows], threshold, (SIZE, SIZE))
        np.testing.assert_array_equal(whole(together[i]), whole(alone))


def test_any_band_makes_the_mask_and_bands_without_noise_are_left_out(drawers):
    sources = two_bands(true_sources(np.random.default_rng(1), 1, faintest=20.1))
    at = np.array([60.0])
    jacobian = np.eye(2)[None] * 0.2
    drawer = drawers[True]

    def area(noise):
        (mask,) = drawer.masks(sources, at, at, jacobian, drawer.thresholds(np.array(noise), 5.0), (SIZE, SIZE))
        return 0 if mask is None else mask.pixels.sum()

    first, second = area([0.06, np.nan]), area([np.nan, 0.07])
    assert area([0.06, 0.07]) >= max(first, second) > min(first, second) > 0
    assert area([0.0, 0.07]) == second
    assert area([1e6, 1e6]) == 0


def test_dilation(drawers):
    sources = two_bands(true_sources(np.random.default_rng(1), 1, faintest=20.1))
    at, jacobian = np.array([60.0]), np.eye(2)[None] * 0.2
    plain = drawers[True].masks(sources, at, at, jacobian, drawers[True].thresholds(NOISE, 5.0), (SIZE, SIZE))[0]
    auto = MaskDrawer(PSFS, 0.2, matched=True, dilate_px=None)
    assert auto.brush.shape == (3, 3)  # two sigma of 0.8" are 3.4 px
    wide = auto.masks(sources, at, at, jacobian, auto.thresholds(NOISE, 5.0), (SIZE, SIZE))[0]
    grown, small = whole(wide), whole(plain)
    around = small.copy()
    around[1:] |= small[:-1]
    around[:-1] |= small[1:]
    around[:, 1:] |= small[:, :-1]
    around[:, :-1] |= small[:, 1:]
    np.testing.assert_array_equal(grown, around)
