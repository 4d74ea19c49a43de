import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from scipy import ndimage

from skyloom.errors import ConfigError
from skyloom.sky.simulated.lotss_scene import (
    Mosaic,
    Pointing,
    beam_area_px,
    correlated_noise,
    make_sources,
    mosaic_rng,
    render_mosaic,
    source_rng,
    survey_layout,
    write_mosaic,
)
from skyloom.sky.simulated.lotss_sources import sample_fluxes

HERE = Pointing("P123+45", 123.0, 45.0)
RMS = 83e-6

# Every card of the true P124+62, in order (opencadc/lotss2caom2, tests/data/P124+62/fits_headers.tar).
DR2_IMAGE_KEYS = """
SIMPLE BITPIX NAXIS NAXIS1 NAXIS2 WCSAXES CTYPE1 CTYPE2 CUNIT1 CUNIT2 CRPIX1 CRPIX2 CRVAL1 CRVAL2 CDELT1 CDELT2
RADESYS EQUINOX LONPOLE LATPOLE BMAJ BMIN BPA TELESCOP RESTFRQ OBSERVER BUNIT BTYPE OBJECT ORIGIN
"""
DR2_MASK_KEYS = """
SIMPLE BITPIX NAXIS NAXIS1 NAXIS2 NAXIS3 NAXIS4 EXTEND CRVAL1 CDELT1 CRPIX1 CUNIT1 CTYPE1 CRVAL2 CDELT2 CRPIX2
CUNIT2 CTYPE2 CRVAL3 CDELT3 CRPIX3 CUNIT3 CTYPE3 RESTFRQ CRVAL4 CDELT4 CRPIX4 CUNIT4 CTYPE4 SPECSYS EQUINOX
TELESCOP
"""


def one_source(
    kind: str = "compact", *, flux_jy: float = 1.0, size_arcsec: float = 0.0, pa_deg: float = 30.0, **shape: float
) -> pl.DataFrame:
    at = SkyCoord(shape.pop("ra_deg", HERE.ra_deg), shape.pop("dec_deg", HERE.dec_deg), unit="deg")
    row = dict(flux_ratio=0.0, core_fraction=0.0, hotspot_fraction=0.0, bend_deg=0.0) | shape
    return pl.DataFrame(
        dict(source_id=0, kind=kind, ra_deg=at.ra.deg, dec_deg=at.dec.deg)
        | dict(flux_jy=flux_jy, size_arcsec=size_arcsec, pa_deg=pa_deg)
        | row
    )


def clean(sources: pl.DataFrame, pointing: Pointing = HERE, size_px: int = 301) -> Mosaic:
    return render_mosaic(mosaic_rng(0, 0), sources, pointing, size_px=size_px, rms_jy_per_beam=0.0, blank_fraction=0.0)


def survey(seed: int = 5, size_px: int = 400, n: int = 4, **options: float) -> tuple[list[Pointing], pl.DataFrame]:
    pointings = survey_layout(n, size_px, **options)
    return pointings, make_sources(source_rng(seed), pointings, size_px=size_px)


def test_point_source_peaks_at_its_flux_density() -> None:
    mosaic = clean(one_source(flux_jy=0.7))  # the reference pixel's centre is the source's position
    assert mosaic.image.max() == pytest.approx(0.7, rel=1e-6)
    assert mosaic.sources["peak_jy_per_beam"].item() == pytest.approx(0.7, rel=1e-6)


@pytest.mark.parametrize(
    "source",
    [
        one_source(flux_jy=0.7, ra_deg=123.001, dec_deg=45.0004),
        one_source(flux_jy=2.0, size_arcsec=7.0),
        one_source("double", size_arcsec=80.0, flux_ratio=0.5, core_fraction=0.1, hotspot_fraction=0.4),
        one_source("bent", size_arcsec=60.0, flux_ratio=0.9, hotspot_fraction=0.2, bend_deg=50.0),
        one_source("diffuse", size_arcsec=90.0),
    ],
)
def test_pixel_sum_over_beam_area_is_the_flux(source: pl.DataFrame) -> None:
    mosaic = clean(source)
    assert mosaic.image.sum() / beam_area_px() == pytest.approx(source["flux_jy"].item(), rel=1e-5)
    if source["size_arcsec"].item() > 0:
        assert mosaic.image.max() < source["flux_jy"].item()


def test_double_lies_along_its_position_angle_with_north_up_and_east_left() -> None:
    image = clean(one_source("double", size_arcsec=100.0, pa_deg=40.0, flux_ratio=1.0, hotspot_fraction=0.5)).image
    row, col = np.indices(image.shape) - np.array(ndimage.center_of_mass(image))[:, None, None]
    covariance = np.array([[(image * a * b).sum() for a in (row, col)] for b in (row, col)])
    north, east = np.linalg.eigh(covariance)[1][:, 1] * [1, -1]
    assert np.rad2deg(np.arctan2(east, north)) % 180 == pytest.approx(40.0, abs=0.5)


@pytest.mark.parametrize("centre", [(123.0, 45.0), (0.05, 30.0), (200.0, 89.9), (200.0, -90.0)])
def test_brightest_pixel_is_where_the_written_wcs_puts_the_source(centre: tuple[float, float], tmp_path: Path) -> None:
    pointing = Pointing("P", *centre)
    at = SkyCoord(*centre, unit="deg").directional_offset_by(250 * u.deg, 3 * u.arcmin)
    mosaic = clean(one_source(ra_deg=at.ra.deg, dec_deg=at.dec.deg), pointing)
    write_mosaic(tmp_path, mosaic)
    with fits.open(tmp_path / "mosaic-blanked.fits") as hdus:
        row, col = np.unravel_index(np.argmax(hdus[0].data), hdus[0].data.shape)
        found = WCS(hdus[0].header).pixel_to_world(col, row)
    assert found.separation(at).arcsec < 1.5
    assert abs(mosaic.sources["row"].item() - row) <= 0.5
    assert abs(mosaic.sources["col"].item() - col) <= 0.5


@pytest.mark.parametrize("centre", [(123.0, 45.0), (0.0, 20.0), (77.0, 90.0)])
def test_overlapping_mosaics_show_the_same_sky(centre: tuple[float, float]) -> None:
    pointings, sources = survey(n=2, sky_overlap=0.5, centre_ra_deg=centre[0], centre_dec_deg=centre[1])
    sources = sources.with_columns(flux_jy=pl.lit(0.05))
    a, b = (clean(sources, p, 400) for p in pointings)
    both = a.sources.join(b.sources, on="source_id", suffix="_b")
    assert both.height >= 5
    assert both.height < a.sources.height
    for row in both.filter((pl.col("kind") == "compact") & (pl.col("size_arcsec") == 0)).iter_rows(named=True):
        seen = (m.image[round(row[f"row{s}"]), round(row[f"col{s}"])] for m, s in ((a, ""), (b, "_b")))
        for peak in seen:  # half a pixel off in each axis costs a point source 8 % of its peak
            assert peak >= 0.9 * row["flux_jy"]
    # The whole overlap agrees, not only the sources' centres: b resampled onto a's pixels is a.
    x, y = WCS(b.header).world_to_pixel(WCS(a.header).pixel_to_world(*np.meshgrid(np.arange(400), np.arange(400))))
    shared = (x > 1) & (x < 398) & (y > 1) & (y < 398)
    again = ndimage.map_coordinates(b.image, [y[shared], x[shared]], order=5)
    assert shared.mean() == pytest.approx(0.5, abs=0.05)
    # Resampling costs 0.3 %; a source that moved by 0.02 px would cost more than 0.5 %.
    assert np.abs(again - a.image[shared]).max() < 5e-3 * a.image.max()


def test_sources_beyond_the_edge_still_shine_in() -> None:
    mosaic = clean(one_source("diffuse", flux_jy=1.0, size_arcsec=100.0, dec_deg=45.0 + 155 * 1.5 / 3600))
    assert mosaic.sources.height == 0
    assert mosaic.image[-1].max() > 1e-3


def test_written_files_have_the_layout_of_dr2(tmp_path: Path) -> None:
    pointings, sources = survey()
    mosaic = render_mosaic(mosaic_rng(5, 1), sources, pointings[1], size_px=400)
    write_mosaic(tmp_path / mosaic.name, mosaic)
    with fits.open(tmp_path / mosaic.name / "mosaic-blanked.fits") as hdus:
        assert len(hdus) == 1
        header, image = hdus[0].header, hdus[0].data
        assert list(header) == DR2_IMAGE_KEYS.split()
        assert (image.dtype, image.shape) == (np.dtype(">f8"), (400, 400))
        np.testing.assert_array_equal(image, mosaic.image)
    assert header.cards["BUNIT"].image.startswith("BUNIT   = 'JY/BEAM '")
    assert (header["CTYPE1"], header["CTYPE2"]) == ("RA---SIN", "DEC--SIN")
    assert header["CRPIX1"] == 200
    assert isinstance(header["CRPIX1"], int)
    assert header["CDELT1"] == pytest.approx(-1.5 / 3600)
    assert header["BMAJ"] == pytest.approx(6 / 3600)
    assert (header["BPA"], header["RESTFRQ"], header["TELESCOP"]) == (90, 143.65e6, "LOFAR")
    assert header["OBJECT"] == mosaic.name == pointings[1].name
    with fits.open(tmp_path / mosaic.name / "mosaic.pybdsmmask.fits") as hdus:
        assert list(hdus[0].header) == DR2_MASK_KEYS.split()
        assert (hdus[0].data.dtype, hdus[0].data.shape) == (np.dtype(">f4"), (1, 1, 400, 400))
        assert set(np.unique(hdus[0].data)) == {0.0, 1.0}
        with pytest.warns(FITSFixedWarning, match="'HZ' -> 'Hz'"):  # the true files provoke it too
            mask_wcs = WCS(hdus[0].header).celestial
    at = SkyCoord(123, 45, unit="deg")
    # The mask names no RADESYS, in DR2 too, so it is read as FK5, which is 0.02" from the image's ICRS.
    np.testing.assert_allclose(WCS(header).world_to_pixel(at), mask_wcs.world_to_pixel(at), atol=0.05, rtol=0)


def test_same_seed_gives_the_same_bytes_whatever_was_made_before(tmp_path: Path) -> None:
    def digests(folder: Path, indices: tuple[int, ...], seed: int = 5) -> dict[str, str]:
        pointings, sources = survey(seed)
        for i in indices:
            write_mosaic(
                folder / pointings[i].name, render_mosaic(mosaic_rng(seed, i), sources, pointings[i], size_px=400)
            )
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.fits")}

    whole = digests(tmp_path / "whole", (0, 1, 2, 3))
    later = digests(tmp_path / "later", (3, 1))
    assert len(whole) == len(set(whole.values())) == 8
    assert later.items() <= whole.items()
    assert digests(tmp_path / "later", (3, 1)) == later  # over the files of the first time
    assert not digests(tmp_path / "other", (0,), seed=6).items() & whole.items()


def test_noise_has_the_asked_rms_and_the_correlation_of_the_beam() -> None:
    empty = one_source(ra_deg=300.0)
    image = render_mosaic(mosaic_rng(1, 0), empty, HERE, size_px=1000).image
    finite = image[np.isfinite(image)]
    assert 1.4826 * np.median(np.abs(finite - np.median(finite))) == pytest.approx(RMS, rel=0.03)
    noise = correlated_noise(mosaic_rng(2, 0), 1000, rms_jy_per_beam=RMS, beam_fwhm_px=4.0)
    assert noise.std() == pytest.approx(RMS, rel=0.02)
    # White noise through a Gaussian of FWHM f is correlated over lag d as exp(-4 ln2 d^2 / (2 f^2)).
    for lag in (1, 2, 4, 6):
        for axis in (0, 1):
            found = (noise * np.roll(noise, lag, axis)).mean() / noise.var()
            assert found == pytest.approx(np.exp(-2 * np.log(2) * (lag / 4) ** 2), abs=0.02)


@pytest.mark.parametrize("size_px", [300, 1000])
def test_edge_is_blanked_irregularly_and_to_the_asked_fraction(size_px: int) -> None:
    empty = one_source(ra_deg=300.0)
    blanked = [np.isnan(render_mosaic(mosaic_rng(1, i), empty, HERE, size_px=size_px).image) for i in (0, 1)]
    for nan in blanked:
        assert nan.mean() == pytest.approx(0.23, abs=0.01)
        assert nan[0, 0]
        assert nan[-1, -1]
        assert not nan[size_px // 4 : -size_px // 4, size_px // 4 : -size_px // 4].any()
        assert ndimage.label(~nan)[1] == 1
    assert 0.005 < (blanked[0] ^ blanked[1]).mean() < 0.1


def test_about_three_quarters_of_the_windows_of_a_large_mosaic_survive() -> None:
    # 64 px windows in 2,000 px stand for 256 px windows in 8,000 px.
    nan = np.isnan(render_mosaic(mosaic_rng(1, 0), one_source(ra_deg=300.0), HERE, size_px=2000).image)
    starts = range(0, 2000 - 63, 32)
    kept = np.mean([not nan[r : r + 64, c : c + 64].any() for r in starts for c in starts])
    assert 0.70 < kept < 0.76


def test_island_mask_holds_bright_sources_and_little_else() -> None:
    pointings, sources = survey(n=1, size_px=600)
    mosaic = render_mosaic(mosaic_rng(5, 0), sources, pointings[0], size_px=600)
    assert mosaic.mask.dtype == np.float32
    assert not mosaic.mask[np.isnan(mosaic.image)].any()
    assert (mosaic.image[mosaic.mask == 1] > 3 * RMS).all()
    shown = mosaic.sources.filter((pl.col("kind") == "compact") & ~pl.col("blanked"))
    inside = mosaic.mask[shown["row"].round().cast(int).to_numpy(), shown["col"].round().cast(int).to_numpy()] == 1
    snr = shown["peak_jy_per_beam"].to_numpy() / RMS
    assert (snr > 10).sum() >= 5
    assert inside[snr > 10].all()
    labels, n = ndimage.label(mosaic.mask, np.ones((3, 3)))
    peaks = ndimage.maximum(mosaic.image, labels, np.arange(1, n + 1))
    assert (peaks > 5 * RMS).all()
    # In an empty field, 3 sigma peaks of the noise are plenty and islands are rare.
    empty = render_mosaic(mosaic_rng(1, 0), one_source(ra_deg=300.0), HERE, size_px=600)
    assert (empty.image > 3 * RMS).sum() > 100
    assert ndimage.label(empty.mask)[1] <= 1


def test_catalogue_has_the_asked_density_mixture_and_counts() -> None:
    pointings = survey_layout(1, 4000, sky_overlap=0.0)
    sources = make_sources(source_rng(1), pointings, size_px=4000, sources_per_deg2=2000, double_fraction=0.1)
    area_deg2 = np.pi * (2001 * np.sqrt(2) * 1.5 / 3600 + 0.05) ** 2
    assert sources.height == pytest.approx(2000 * area_deg2, rel=0.05)
    assert sources["source_id"].n_unique() == sources.height
    share = {k: n / sources.height for k, n in sources["kind"].value_counts().iter_rows()}
    assert share == pytest.approx({"compact": 0.87, "double": 0.1, "bent": 0.02, "diffuse": 0.01}, abs=0.01)
    doubles = sources.filter(pl.col("kind") == "double")
    assert doubles["size_arcsec"].is_between(20, 120).all()
    assert doubles["flux_jy"].min() >= 5e-3
    here = SkyCoord(sources["ra_deg"].to_numpy(), sources["dec_deg"].to_numpy(), unit="deg")
    from_centre = here.separation(SkyCoord(123, 45, unit="deg")).deg
    # Uniform on the sphere: half of the sources lie within 1/sqrt(2) of the radius.
    assert (from_centre < from_centre.max() / np.sqrt(2)).mean() == pytest.approx(0.5, abs=0.02)


def test_flux_counts_have_both_slopes() -> None:
    flux = sample_fluxes(source_rng(0), 400_000, 1e-3)
    assert flux.min() >= 1e-3
    for low, high, slope in ((2e-3, 0.2, 1.75), (1.0, np.inf, 2.5)):
        part = flux[(flux > low) & (flux < high)]
        # Maximum-likelihood slope of a power law (Crawford et al. 1970), corrected for the upper cut by bisection.
        trial = np.linspace(1.2, 3.5, 2301)
        g = 1 - trial
        norm = (high**g if np.isfinite(high) else 0) - low**g
        likelihood = np.log(np.abs(g / norm)) - trial * np.log(part).mean()
        assert trial[np.argmax(likelihood)] == pytest.approx(slope, abs=0.1)


def test_layout_overlaps_neighbours_and_names_are_unique() -> None:
    pointings = survey_layout(9, 9000, sky_overlap=0.3)
    assert pointings[4] == pytest.approx(("P123+45", 123.0, 45.0))
    sky = SkyCoord([p.ra_deg for p in pointings], [p.dec_deg for p in pointings], unit="deg")
    assert sky[3].separation(sky[4]).deg == pytest.approx(0.7 * 3.75, rel=1e-3)
    assert sky[1].separation(sky[4]).deg == pytest.approx(0.7 * 3.75, rel=1e-3)
    crowded = survey_layout(30, 300)
    assert len({p.name for p in crowded}) == 30
    assert all(p.name.startswith("P12") and "+4" in p.name for p in crowded)


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 30.0), (10.0, 88.0), (10.0, -90.0), (359.999, 0.0)])
def test_survey_may_cross_ra_0_or_hold_a_pole(ra: float, dec: float) -> None:
    pointings, sources = survey(n=9, centre_ra_deg=ra, centre_dec_deg=dec)
    assert len({p.name for p in pointings}) == 9
    shown = [clean(sources, p, 400).sources.height for p in pointings]
    expected = 780 * (400 * 1.5 / 3600) ** 2
    assert min(shown) > 0
    assert np.mean(shown) == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: survey_layout(0, 400), "n_mosaics=0"),
        (lambda: survey_layout(4, 400, sky_overlap=1.0), "sky_overlap"),
        (lambda: survey_layout(10_000, 9000), "fewer or smaller"),
        (lambda: make_sources(source_rng(0), [], size_px=400), "survey_layout"),
        (lambda: make_sources(source_rng(0), [HERE], size_px=400, double_fraction=0.99), "double_fraction"),
        (lambda: make_sources(source_rng(0), [HERE], size_px=400, min_flux_jy=0), "min_flux_jy"),
        (lambda: make_sources(source_rng(0), [HERE], size_px=200_000), "SIN projection"),
        (lambda: render_mosaic(mosaic_rng(0, 0), one_source(), HERE, size_px=8), "size_px=8"),
        (lambda: render_mosaic(mosaic_rng(0, 0), one_source(), HERE, size_px=64, beam_arcsec=2.0), "beam_arcsec"),
        (lambda: render_mosaic(mosaic_rng(0, 0), one_source(), HERE, size_px=64, blank_fraction=1.0), "blank_fraction"),
    ],
)
def test_bad_options_are_refused_by_name(call, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        call()


def test_a_survey_without_sources_is_only_noise() -> None:
    sources = make_sources(source_rng(0), [HERE], size_px=200, sources_per_deg2=0.0)
    mosaic = render_mosaic(mosaic_rng(0, 0), sources, HERE, size_px=200)
    assert mosaic.sources.height == 0
    assert np.nanmax(mosaic.image) < 7 * RMS
