"""A tiny simulated Roman and LSST survey, with Gaussian PSFs so that it is drawn fast."""

from copy import deepcopy
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from skyloom.run.notebook import compose
from skyloom.sky.survey.facts import JointSurvey
from skyloom.step.simulate.roman_lsst import simulate_roman_lsst
from skyloom.store import Artifact

TINY = {"tile_px": 200, "overlap_px": 8, "patch_px": 37, "patch_border_px": 12, "faintest_mag": 25.0, "ebv_mag": 0.0}
FEW = "ui"
FWHM_ARCSEC = {"roman": 0.15, "lsst": 0.8}


@cache
def _config() -> dict[str, Any]:
    config: Any = OmegaConf.to_container(compose("curate", ["step=simulate", "survey=roman_lsst"]), resolve=True)
    return config


def joint_facts(lsst_bands: str = "ugrizy") -> dict[str, Any]:
    """Facts of survey=roman_lsst, with Gaussian PSFs."""
    facts: dict[str, Any] = deepcopy(_config()["survey"])
    facts["lsst"]["bands"] = [band for band in facts["lsst"]["bands"] if band["name"] in lsst_bands]
    for name, fwhm in FWHM_ARCSEC.items():
        for band in facts[name]["bands"]:
            band["psf"] = {"model": "gaussian", "fwhm_arcsec": fwhm}
    return facts


def joint_survey(lsst_bands: str = "ugrizy") -> JointSurvey:
    """The same, read."""
    return JointSurvey.from_mapping(joint_facts(lsst_bands))


def simulated_options(**options: Any) -> dict[str, Any]:
    """Options of step=simulate survey=roman_lsst for one tile of 11.5 arcsec; blends and stars are dense."""
    config = _config()
    names = [
        "tiles", "tile_px", "overlap_px", "tracts", "patch_px", "patch_border_px", "ra_deg", "dec_deg", "faintest_mag",
        "crowding", "stars_per_arcmin2", "supernovae", "ebv_mag", "depth_mag", "blemishes", "workers", "seed",
    ]  # fmt: skip
    dense = {"crowding": 8.0, "stars_per_arcmin2": 150.0, "supernovae": 6}
    return {name: config[name] for name in names} | TINY | dense | options


def simulated(store: Any, *, survey: Any = None, **options: Any) -> Artifact:
    """One such survey as an artifact; LSST has the bands `FEW` only."""
    made: Artifact = simulate_roman_lsst(survey=survey or joint_facts(FEW), store=store, **simulated_options(**options))
    return made
