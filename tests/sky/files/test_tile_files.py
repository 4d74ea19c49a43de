"""Tiles are found by name in any of the usual layouts, packed or not, and what lacks or doubles is said."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from skyloom.errors import ConfigError, InputError
from skyloom.sky.files.tile_files import find_tiles
from skyloom.sky.survey.facts import Survey

CONF = Path(__file__).parents[3] / "conf" / "survey"


def load(file: str, /, **changes: Any) -> Survey:
    return Survey.from_mapping(yaml.safe_load((CONF / f"{file}.yaml").read_text()) | changes)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def roman_tile(root: Path, tile: str, *, bands: tuple[str, ...] = ("Y106", "J129", "H158", "F184")) -> None:
    touch(root, *(f"images/dc2_{band}_{tile}.fits" for band in bands))
    touch(root, *(f"{kind}/dc2_{kind}_{tile}.fits.gz" for kind in ("seg", "det", "index")))


@pytest.mark.parametrize("tile", ["50.94_-39.9", "50.9_39.9", "0.01_+0.3", "350_-5", "-9.5_-44"])
def test_roman_names_with_any_sign_and_with_or_without_decimals(tmp_path: Path, tile: str) -> None:
    roman_tile(tmp_path, tile)
    (found,) = find_tiles([tmp_path], load("roman")).tiles
    assert (found.name, list(found.images)) == (tile, ["Y106", "J129", "H158"])
    assert found.images["J129"] == tmp_path / f"images/dc2_J129_{tile}.fits"
    assert found.segmentation == tmp_path / f"seg/dc2_seg_{tile}.fits.gz"
    assert found.detections == tmp_path / f"det/dc2_det_{tile}.fits.gz"
    assert found.truth == tmp_path / f"index/dc2_index_{tile}.fits.gz"


def test_other_files_are_no_tiles(tmp_path: Path) -> None:
    roman_tile(tmp_path, "50.94_-39.9")
    touch(tmp_path, "dc2_Y106_50.94_-39.9.png", "dc2_Y106_middle.fits", "old_dc2_Y106_1_1.fits", "dc2_K213_1_1.fits")
    found = find_tiles([tmp_path], load("roman"))
    assert [tile.name for tile in found.tiles] == ["50.94_-39.9"]
    assert not found.incomplete


def test_unpacked_comes_before_packed(tmp_path: Path) -> None:
    roman_tile(tmp_path, "1_-1")
    touch(tmp_path, "images/dc2_Y106_1_-1.fits.gz", "seg/dc2_seg_1_-1.fits")
    (tmp_path / "images/dc2_J129_1_-1.fits").rename(tmp_path / "images/dc2_J129_1_-1.fits.fz")
    (tile,) = find_tiles([tmp_path], load("roman")).tiles
    assert [path.name for path in tile.images.values()] == [
        "dc2_Y106_1_-1.fits", "dc2_J129_1_-1.fits.fz", "dc2_H158_1_-1.fits",
    ]  # fmt: skip
    assert tile.segmentation == tmp_path / "seg/dc2_seg_1_-1.fits"


def test_a_missing_band_is_named_with_its_tile_and_pattern(tmp_path: Path) -> None:
    roman_tile(tmp_path, "1_-1")
    roman_tile(tmp_path, "2_-2", bands=("Y106", "H158"))
    found = find_tiles([tmp_path], load("roman"))
    assert [tile.name for tile in found.tiles] == ["1_-1"]
    assert found.incomplete == {"2_-2": "band J129 is missing (looked for **/dc2_J129_2_-2.fits)"}


def test_a_tile_may_lack_tables_and_maps(tmp_path: Path) -> None:
    touch(tmp_path, *(f"dc2_{band}_1_-1.fits" for band in ("Y106", "J129", "H158")))
    (tile,) = find_tiles([tmp_path], load("roman")).tiles
    assert (tile.segmentation, tile.detections, tile.truth) == (None, None, None)


def test_one_file_in_two_places_is_refused(tmp_path: Path) -> None:
    roman_tile(tmp_path, "1_-1")
    touch(tmp_path, "copy/dc2_H158_1_-1.fits")
    with pytest.raises(InputError, match=r"two files would be the image of tile 1_-1 H158: .*copy/.* and .*images/"):
        find_tiles([tmp_path], load("roman"))
    (tmp_path / "copy/dc2_H158_1_-1.fits").unlink()
    roman_tile(tmp_path / "b", "1_-1")
    with pytest.raises(InputError, match="two files would be"):
        find_tiles([tmp_path / "images", tmp_path / "b"], load("roman"))


def test_links_to_folders_are_followed_and_a_link_is_no_second_file(tmp_path: Path) -> None:
    roman_tile(tmp_path / "disk", "1_-1")
    here = tmp_path / "here"
    here.mkdir()
    for name in ("images", "seg", "det"):
        (here / name).symlink_to(tmp_path / "disk" / name)
    (here / "again").symlink_to(tmp_path / "disk" / "det")
    (tile,) = find_tiles([here], load("roman")).tiles
    assert tile.images["H158"] == here / "images/dc2_H158_1_-1.fits"
    assert tile.segmentation == here / "seg/dc2_seg_1_-1.fits.gz"
    assert tile.truth is None


def test_several_folders_are_one_survey(tmp_path: Path) -> None:
    roman_tile(tmp_path / "a", "1_-1")
    roman_tile(tmp_path / "b", "2_-1")
    found = find_tiles([tmp_path / "b", tmp_path / "a"], load("roman"))
    assert [tile.name for tile in found.tiles] == ["1_-1", "2_-1"]
    assert found == find_tiles([tmp_path], load("roman"))


def lsst_patch(root: Path, patch: str) -> None:
    touch(root, *(f"{patch}_band{band}.fits" for band in "ugrizy"))


def test_lsst_patches_and_tables_of_the_whole_survey_below_the_surveys_name(tmp_path: Path) -> None:
    roman_tile(tmp_path / "roman", "1_-1")
    for patch in ("tract3075_patch2_10", "tract3075_patch2_3"):
        lsst_patch(tmp_path / "lsst" / "coadds", patch)
    touch(tmp_path / "lsst", "dc2_truth.parquet", "dc2_object.parquet", "coadds/old_truth.parquet")
    found = find_tiles([tmp_path], load("lsst"))
    assert [tile.name for tile in found.tiles] == ["tract3075_patch2_10", "tract3075_patch2_3"]
    assert list(found.tiles[0].images) == list("ugrizy")
    assert found.survey_truth == tmp_path / "lsst/dc2_truth.parquet"
    assert found.survey_detections == tmp_path / "lsst/dc2_object.parquet"
    touch(tmp_path / "lsst", "other_truth.parquet")
    with pytest.raises(InputError, match=r"two files would be the truth of the whole survey: .*dc2_truth.*other_truth"):
        find_tiles([tmp_path], load("lsst"))


def test_a_new_survey_is_a_new_file_and_no_new_code(tmp_path: Path) -> None:
    """The archive of HSC: folders by band, tract and patch, names with commas, nothing but images."""
    for band in ("HSC-G", "HSC-R", "HSC-I", "HSC-Z", "HSC-Y"):
        for patch in ("3,4", "3,5"):
            touch(tmp_path, f"deepCoadd-results/{band}/9813/{patch}/calexp-{band}-9813-{patch}.fits")
    found = find_tiles([tmp_path], load("hsc"))
    assert [tile.name for tile in found.tiles] == ["9813-3,4", "9813-3,5"]
    assert list(found.tiles[1].images) == ["HSC-G", "HSC-R", "HSC-I", "HSC-Z", "HSC-Y"]


def test_the_name_of_a_tile_is_one_text_throughout_a_pattern(tmp_path: Path) -> None:
    bands = load("roman").bands
    touch(tmp_path, *(f"a/a_{band.name}.fits" for band in bands), *(f"a/b_{band.name}.fits" for band in bands))
    survey = load("roman", tiles={"name": "[a-z]", "image": "{tile}/{tile}_{band}.fits"})
    assert [tile.name for tile in find_tiles([tmp_path], survey).tiles] == ["a"]


def test_nothing_found_names_place_pattern_and_bands(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tile of survey 'roman' found; looked for .*with a band of Y106, J129"):
        find_tiles([tmp_path], load("roman"))
    with pytest.raises(InputError, match="nowhere: expected a folder"):
        find_tiles([tmp_path / "nowhere"], load("roman"))
    with pytest.raises(ConfigError, match="survey=lotss has no bands"):
        find_tiles([tmp_path], load("lotss"))
