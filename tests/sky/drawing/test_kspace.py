"""Stamps drawn together in Fourier space equal those that GalSim draws one by one."""

import galsim
import numpy as np
import pytest

from make.true_sources import bands_of, true_sources
from skyloom.sky.drawing.kspace import KSpace
from skyloom.sky.drawing.profile_forms import Profiles, forms
from skyloom.sky.drawing.psf import psf_model

FINE = galsim.GSParams(folding_threshold=1e-3)


@pytest.fixture(scope="module", params=["ground", "space"])
def survey(request):
    if request.param == "ground":
        bands = bands_of("lsst")
        return 0.2, 96, [psf_model(bands[0]), psf_model(bands[-1])]
    return 0.0575, 96, [galsim.Airy(lam=lam, diam=2.37, obscuration=0.31) for lam in (1060, 1577)]


def drawn_apart(sources, i, channel, psf, scale, side, offset, matched):
    parts = [sources.profile(i, channel), psf] + [psf.rotate(180 * galsim.degrees)] * matched
    image = galsim.Image(galsim.BoundsI(-side // 2, side // 2 - 1, -side // 2, side // 2 - 1), scale=scale, dtype=float)
    return (
        galsim.Convolve(parts, gsparams=FINE if scale > 0.1 else None)
        .drawImage(image, method="no_pixel", center=offset)
        .array
    )


@pytest.mark.parametrize(("matched", "exact"), [(False, True), (True, False)])
def test_images_equal_those_of_galsim(survey, matched, exact):
    scale, side, psfs = survey
    rng = np.random.default_rng(5)
    sources = true_sources(rng, 5, faintest=24)
    count = 5 if scale > 0.1 else 3  # GalSim is slow with the PSF of a mirror
    sources.shape[:, :4] *= scale / 0.2  # of the size of the PSF in both surveys
    sources.bulge_fraction[0], sources.bulge_fraction[1] = 0.0, 1.0
    sources = sources[np.arange(count)]
    offset = rng.uniform(-0.5, 0.5, (count, 2))
    radius, q = sources.ellipses()
    jacobian = np.broadcast_to(np.eye(2) * scale, (count, 2, 2))
    made = [forms(radius[:, k], q[:, k], sources.shape[:, 4], sources.shape[:, 5:], jacobian) for k in (0, 1)]
    profiles = Profiles(*(np.nan_to_num(one) for one in made))
    drawer = KSpace(psfs, scale, matched=matched)
    flux, share = sources.flux[:, :2].copy(), sources.bulge_fraction[:, :2]
    flux[2, 0] = 0.0
    seen = set()
    for rows, channel, images in drawer.images(profiles, offset, flux, share, side, exact=exact):
        for i, image in zip(rows.tolist(), images, strict=True):
            seen.add((i, channel))
            wanted = drawn_apart(sources, i, channel, psfs[channel], scale, side, galsim.PositionD(*offset[i]), matched)
            np.testing.assert_allclose(image, wanted, atol=2e-3 * wanted.max(), rtol=0)
            assert image.sum() == pytest.approx(flux[i, channel], rel=1e-3)
    assert seen == {(i, c) for i in range(count) for c in range(2)} - {(2, 0)}


def test_psfs_that_pixels_sample_too_coarsely_are_drawn_on_finer_ones():
    psf = galsim.Gaussian(sigma=0.08)
    assert KSpace([galsim.Gaussian(sigma=0.3)], 0.2, matched=False).fine == 1
    drawer = KSpace([psf], 0.2, matched=False)
    assert drawer.fine > 1
    point = Profiles(np.zeros((1, 3)), np.zeros((1, 3)))
    ((_, _, image),) = drawer.images(point, np.full((1, 2), 0.3), np.ones((1, 1)), np.zeros((1, 1)), 24)
    y, x = (np.mgrid[:24, :24] - 12 - 0.3) * 0.2
    wanted = 0.04 * np.exp(-(x**2 + y**2) / (2 * 0.08**2)) / (2 * np.pi * 0.08**2)
    np.testing.assert_allclose(image[0], wanted, atol=1e-3 * wanted.max())
