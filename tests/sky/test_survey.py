"""What a survey's file says is checked key by key, for radio mosaics and for tiles with bands."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from skyloom.errors import ConfigError
from skyloom.run.notebook import compose
from skyloom.sky.survey.facts import JointSurvey, Survey

CONF = Path(__file__).parents[2] / "conf" / "survey"


def read(file: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / f"{file}.yaml").read_text())


def load(file: str, /, **changes: Any) -> Survey:
    return Survey.from_mapping(read(file) | changes)


def test_lotss_facts() -> None:
    survey = load("lotss")
    assert (survey.unit, survey.pixel_scale_arcsec, survey.beam_arcsec) == ("Jy/beam", 1.5, (6.0, 6.0))
    assert survey.mask_name == "mosaic.pybdsmmask.fits"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_nam": "folder"}, "Did you mean 'image_name'"),
        ({"image_name": "foldr"}, "Did you mean 'folder'"),
        ({"image_patterns": "*.fits"}, "expected a list of glob patterns"),
        ({"image_patterns": ["/data/*.fits"]}, "relative"),
        ({"exclude_patterns": "*.fits"}, "expected a list of patterns of file names"),
        ({"exclude_patterns": ["masks/*"]}, "without folders"),
        ({"pixel_scale_arcsec": -1.5}, "above 0"),
        ({"beam_arcsec": 6.0}, r"\[major, minor\]"),
        ({"name": ""}, "not empty"),
    ],
)
def test_wrong_facts_are_refused_by_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("lotss", **changes)


def test_missing_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"survey\.unit is missing"):
        Survey.from_mapping({"name": "mine"})


def test_roman_and_lsst_facts() -> None:
    roman, lsst = load("roman"), load("lsst")
    assert [band.name for band in roman.bands] == ["Y106", "J129", "H158"]
    assert "".join(band.name for band in lsst.bands) == "ugrizy"
    assert {band.zero_point_mag for band in lsst.bands} == {27.0}
    assert (roman.pixel_scale_arcsec, lsst.pixel_scale_arcsec) == (0.0575, 0.2)
    assert roman.grid is not None
    assert (roman.grid.window_px, roman.grid.border_px) == (512, 500)
    assert roman.truth is not None
    assert roman.truth.category_of() == {0: 0, 1: 1}
    assert lsst.truth is not None
    assert lsst.truth.category_of() == {1: 0, 2: 1}
    assert lsst.truth.column("bulge_fraction", band="r") == "bulge_to_total_ratio_r"
    assert lsst.band("z").psf["fwhm_arcsec"] == 0.782
    with pytest.raises(ConfigError, match="Did you mean 'y'"):
        lsst.band("yy")


def test_facts_of_bands_enter_the_id_and_layouts_do_not() -> None:
    roman = read("roman")
    same = Survey.from_mapping(roman | {"tiles": roman["tiles"] | {"truth": None}})
    assert same.parameter() == load("roman").parameter()
    bands = [band | {"zero_point_mag": 30.0} for band in roman["bands"]]
    assert Survey.from_mapping(roman | {"bands": bands}).parameter() != load("roman").parameter()
    assert set(load("lotss").parameter()) == {"name", "unit", "pixel_scale_arcsec", "beam_arcsec"}


def test_a_joint_survey_holds_both_as_their_own_files_say() -> None:
    facts = compose("curate", ["step=simulate", "survey=roman_lsst"]).survey
    joint = JointSurvey.from_mapping(facts)
    assert (joint.name, list(joint.surveys)) == ("roman_lsst", ["roman", "lsst"])
    assert joint.surveys["lsst"] == load("lsst")
    with pytest.raises(ConfigError, match=r"survey=roman_lsst stands for several surveys.*choose survey=roman"):
        Survey.from_mapping(facts)
    with pytest.raises(ConfigError, match=r"survey\.unit='Jy/beam': expected the facts of a survey"):
        JointSurvey.from_mapping(read("lotss"))
