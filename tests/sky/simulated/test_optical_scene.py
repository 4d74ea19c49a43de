"""Drawn scenes: flux, places, depth and noise are what they are said to be."""

import galsim
import numpy as np
import polars as pl
import pytest

from make.simulated import joint_survey
from skyloom.sky.simulated.joint_layout import lay_tiles
from skyloom.sky.simulated.joint_patches import lay_patches
from skyloom.sky.simulated.optical_scene import band_scene, near, noise

PLACE = {"ra_deg": 52.9, "dec_deg": -40.0}


@pytest.fixture(scope="module")
def roman():
    return joint_survey().surveys["roman"]


@pytest.fixture(scope="module")
def tile(roman):
    return lay_tiles(roman, 1, 200, overlap_px=0, **PLACE)[0]


def source(tile, x, y, *, kind, mag=20.0, **shape):
    ra, dec = tile.wcs().all_pix2world([x], [y], 0)
    values = {
        "disk_arcsec": 0.4, "disk_minor_arcsec": 0.2, "bulge_arcsec": 0.2, "bulge_minor_arcsec": 0.15, "angle_deg": 0.0,
        "shear_1": 0.0, "shear_2": 0.0, "bulge_H158": 0.3,
    } | shape  # fmt: skip
    return pl.DataFrame(
        {"kind": [kind], "ra_deg": ra, "dec_deg": dec, "mag_H158": [mag]} | {k: [v] for k, v in values.items()}
    )


def moments(image):
    y, x = np.indices(image.shape)
    return (image * x).sum() / image.sum(), (image * y).sum() / image.sum()


@pytest.mark.parametrize("kind", [0, 1])
def test_a_source_has_its_flux_and_its_place_between_the_pixels(roman, tile, kind):
    band = roman.band("H158")
    scene = band_scene(band, 0.0575, 26.9)
    image = scene.draw(near(source(tile, 90.3, 110.8, kind=kind), tile), tile)
    assert image.sum() == pytest.approx(10 ** (0.4 * (band.zero_point_mag - 20)), rel=0.01)
    assert moments(image) == pytest.approx((90.3, 110.8), abs=0.02)


def test_a_galaxy_lies_along_its_position_angle(roman, tile):
    # from north (up) towards west, which is to the right where east is to the left
    scene = band_scene(roman.band("H158"), 0.0575, 26.9)
    image = scene.draw(near(source(tile, 100, 100, kind=0, angle_deg=45.0), tile), tile).astype(float)
    y, x = np.indices(image.shape) - 100
    cross = (image * x * y).sum() / image.sum()
    assert cross > 0.1 * ((image * x * x).sum() / image.sum())


def test_a_bright_source_beside_the_image_shines_into_it_and_a_faint_one_does_not(roman, tile):
    scene = band_scene(roman.band("H158"), 0.0575, 26.9)
    assert scene.draw(near(source(tile, -4, 100, kind=1, mag=16.0), tile), tile).max() > scene.sigma
    assert scene.draw(near(source(tile, -90, 100, kind=1, mag=26.0), tile), tile).max() < 1e-3 * scene.sigma


def test_a_source_at_the_depth_has_a_signal_to_noise_ratio_of_5(roman):
    band = roman.band("J129")
    scene = band_scene(band, 0.0575, 25.0)
    flux = 10 ** (0.4 * (band.zero_point_mag - 25.0))
    sigma_px = 0.15 / 0.0575 / 2.3548
    expected = flux / (5 * np.sqrt(4 * np.pi) * sigma_px)  # sum(P**2) of a Gaussian is 1 / (4 pi sigma**2)
    assert scene.sigma == pytest.approx(expected, rel=0.01)


def test_noise_is_white_and_the_same_where_patches_overlap(roman, tile):
    lsst = joint_survey().surveys["lsst"]
    patches = lay_patches(lsst, [tile], 1, inner_px=300, border_px=40, **PLACE)
    one, other = patches[0], lay_patches(lsst, [tile], 1, inner_px=150, border_px=40, **PLACE)[0]
    a, b = noise(3, one, "u", 2.0), noise(3, other, "u", 2.0)
    shared = b[40:-40, 40:-40]
    assert np.array_equal(a[40 : 40 + shared.shape[0], 40 : 40 + shared.shape[1]], shared)
    assert a.std() == pytest.approx(2.0, rel=0.02)
    assert abs((a[:, 1:] * a[:, :-1]).mean()) < 0.05
    assert not np.array_equal(a, noise(3, one, "g", 2.0))
    assert not np.array_equal(a, noise(4, one, "u", 2.0))


def test_the_drawing_is_that_of_galsim_in_the_tangent_plane(roman, tile):
    """Against GalSim's own reading of the header, away from the tangent point, with shear and angle."""
    shape = {"angle_deg": 30.0, "shear_1": 0.05, "shear_2": -0.03, "bulge_H158": 0.0}
    table = near(source(tile, 60.0, 140.0, kind=0, **shape), tile)
    drawn = band_scene(roman.band("H158"), 0.0575, 26.9).draw(table, tile)
    disk = galsim.Exponential(half_light_radius=np.sqrt(0.4 * 0.2)).shear(q=0.5, beta=60 * galsim.degrees)
    profile = galsim.Convolve(disk.shear(g1=0.05, g2=-0.03), galsim.Gaussian(fwhm=0.15))
    header = tile.wcs().to_header()
    wcs = galsim.FitsWCS(header=galsim.FitsHeader(header=dict(header))).shiftOrigin(galsim.PositionD(-1, -1))
    image = galsim.ImageF(200, 200, xmin=0, ymin=0, wcs=wcs)
    flux = 10 ** (0.4 * (roman.band("H158").zero_point_mag - 20))
    profile.withFlux(flux).drawImage(image, method="no_pixel", center=galsim.PositionD(60, 140))
    assert np.abs(drawn - image.array).max() < 0.01 * image.array.max()
