"""Facts of bands and tables: what is wrong is refused by its key, and the numbers are those of their sources."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from skyloom.errors import ConfigError
from skyloom.sky.survey.facts import Survey

CONF = Path(__file__).parents[3] / "conf" / "survey"


def read(file: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / f"{file}.yaml").read_text())


def load(file: str, /, **changes: Any) -> Survey:
    return Survey.from_mapping(read(file) | changes)


def changed(**band: Any) -> list[dict[str, Any]]:
    first, *rest = read("roman")["bands"]
    return [{key: value for key, value in (first | band).items() if value != "away"}, *rest]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": "Y106"}, "expected a list of bands"),
        ({"bands": changed(name="J129")}, "has a name twice"),
        ({"bands": changed(zero_point_mag="away")}, r"bands\[0\]\.zero_point_mag is missing"),
        ({"bands": changed(zero_point_mag="27")}, "zero_point_mag='27': expected a number"),
        ({"bands": changed(wavelength_nm=-1)}, "above 0"),
        ({"bands": changed(zeropoint=1)}, "Did you mean 'zero_point_mag'"),
        ({"bands": changed(psf={"model": "gausian"})}, "Did you mean 'gaussian'"),
        ({"bands": changed(psf={"model": "gaussian"})}, r"psf\.fwhm_arcsec is missing"),
        ({"bands": changed(psf={"model": "roman", "sca": 7.5, "pupil_bin": 16})}, "sca=7.5: expected a whole number"),
        ({"truth": {"classes": {"galaxy": [0]}}}, r"truth\.columns is missing"),
        ({"truth": {"columns": {"ra_deg": "ra"}, "classes": {"qso": [0]}}}, "truth.classes key=qso is not known"),
        ({"truth": {"columns": {"ra_deg": "ra"}, "classes": {"star": 1}}}, "expected a list of whole numbers"),
        ({"grid": {"window_px": 0, "border_px": 0}}, "at least 1"),
    ],
)
def test_wrong_facts_of_bands_are_refused_by_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load("roman", **changes)
    assert "\n" not in str(error.value)


def test_roman_zero_points_are_those_of_galsims_bandpasses() -> None:
    roman = pytest.importorskip("galsim.roman")
    passes = roman.getBandpasses(AB_zeropoint=True)
    for band in load("roman").bands:
        counts_per_unit = roman.exptime * roman.collecting_area
        expected = passes[band.name].zeropoint + 2.5 * math.log10(counts_per_unit)
        assert band.zero_point_mag == pytest.approx(expected, abs=0.001)
        assert band.wavelength_nm == pytest.approx(passes[band.name].effective_wavelength, abs=0.06)


def test_a_column_that_the_survey_does_not_name() -> None:
    truth = load("lsst").truth
    assert truth is not None
    with pytest.raises(ConfigError, match="which column holds 'redshfit'; it knows bulge_fraction, class"):
        truth.column("redshfit")
    with pytest.raises(ConfigError, match="one column per band"):
        truth.column("mag")
