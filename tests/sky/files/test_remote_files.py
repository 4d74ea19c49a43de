"""Addresses of the files of mosaics and tiles on a server."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from skyloom.errors import ConfigError
from skyloom.sky.files.remote_files import remote_files
from skyloom.sky.survey.facts import Survey

CONF = Path(__file__).parents[3] / "conf" / "survey"


def load(file: str, **changes: Any) -> Survey:
    return Survey.from_mapping(yaml.safe_load((CONF / f"{file}.yaml").read_text()) | changes)


def test_a_mosaic_is_a_folder_of_files() -> None:
    urls = remote_files(load("lotss"), ["P000+23"], ["a.fits", "b b.fits"], "https://x.y")
    assert urls == {
        ("P000+23", "a.fits"): "https://x.y/P000+23/a.fits",
        ("P000+23", "b b.fits"): "https://x.y/P000+23/b%20b.fits",
    }


def test_a_tile_has_one_image_per_band_and_files_in_other_folders() -> None:
    roman = load("roman")
    urls = remote_files(roman, ["50.94_-39.9", "51_+3"], ["image", "truth"], str(roman.base_url))
    assert list(urls) == [
        (tile, f"dc2_{kind}_{tile}.fits{'.gz' if kind == 'index' else ''}")
        for tile in ("50.94_-39.9", "51_+3")
        for kind in ("Y106", "J129", "H158", "index")
    ]
    server = "https://irsa.ipac.caltech.edu/data/theory/Roman/Troxel2023"
    assert urls["50.94_-39.9", "dc2_H158_50.94_-39.9.fits"] == (
        f"{server}/images/simple_model/coadd/dc2_H158_50.94_-39.9.fits"
    )
    assert urls["51_+3", "dc2_index_51_+3.fits.gz"] == f"{server}/truth/coadd/dc2_index_51_+3.fits.gz"


def test_two_files_of_a_tile_under_one_name_are_refused() -> None:
    facts = yaml.safe_load((CONF / "roman.yaml").read_text())["tiles"]
    tiles = facts | {"remote": {"image": "{band}/{tile}.fits"}}
    with pytest.raises(ConfigError, match=r"two files of tile 1_1 would be called 1_1\.fits"):
        remote_files(load("roman", tiles=tiles), ["1_1"], ["image"], "https://x.y")
