"""Images of a survey are found in any of the usual folder layouts, under stable and unique names."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from skyloom.errors import InputError
from skyloom.sky.files.image_files import find_images, look_for_images
from skyloom.sky.survey.facts import Survey

CONF = Path(__file__).parents[3] / "conf" / "survey"


def load(file: str, /, **changes: Any) -> Survey:
    return Survey.from_mapping(yaml.safe_load((CONF / f"{file}.yaml").read_text()) | changes)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def lotss_root(tmp_path: Path) -> Path:
    for mosaic in ("P124+62", "P000+23", "P10Hetdex"):
        touch(tmp_path, f"mosaics/{mosaic}/mosaic-blanked.fits", f"mosaics/{mosaic}/mosaic.pybdsmmask.fits")
    touch(tmp_path, "mosaics/P001+01/mosaic-weights.fits")  # a mosaic whose image was never downloaded
    return tmp_path


@pytest.mark.parametrize("inside", ["", "mosaics", "mosaics/*", "mosaics/*/mosaic-blanked.fits"])
def test_lotss_mosaics_are_named_after_their_folder(lotss_root: Path, inside: str) -> None:
    found = find_images(lotss_root / inside, load("lotss"))
    assert [image.name for image in found] == ["P000+23", "P10Hetdex", "P124+62"]
    assert found[0].path == lotss_root / "mosaics/P000+23/mosaic-blanked.fits"


def test_one_mosaic_by_folder_or_file(lotss_root: Path) -> None:
    folder = lotss_root / "mosaics/P124+62"
    assert find_images(folder, load("lotss")) == find_images([str(folder / "mosaic-blanked.fits")], load("lotss"))


def test_a_file_given_twice_is_listed_once(lotss_root: Path) -> None:
    assert len(find_images([lotss_root, lotss_root / "mosaics", lotss_root / "mosaics/P1*"], load("lotss"))) == 3


def test_relative_places_give_absolute_paths(lotss_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lotss_root)
    assert find_images("mosaics", load("lotss")) == find_images(lotss_root, load("lotss"))


def test_generic_leaves_masks_and_weights_out_unless_they_are_named(lotss_root: Path) -> None:
    found, left_out = look_for_images(lotss_root, load("generic"))
    assert [image.name for image in found] == [
        f"mosaics/{name}/mosaic-blanked" for name in ("P000+23", "P10Hetdex", "P124+62")
    ]
    assert [path.name for path in left_out] == [
        "mosaic.pybdsmmask.fits", "mosaic-weights.fits", "mosaic.pybdsmmask.fits", "mosaic.pybdsmmask.fits",
    ]  # fmt: skip
    mask = lotss_root / "mosaics/P000+23/mosaic.pybdsmmask.fits"
    assert [image.path for image in find_images([mask, lotss_root], load("generic"))].count(mask) == 1
    assert mask not in look_for_images([mask, lotss_root], load("generic"))[1]
    assert len(find_images(lotss_root, load("generic", exclude_patterns=None))) == 7


def test_a_masked_image_is_no_mask(tmp_path: Path) -> None:
    touch(tmp_path, "masked.fits", "MASK.FITS", "a.mask.fits.gz", "b_weights.fits")
    survey = load("generic", image_patterns=["**/*"])
    assert [image.name for image in find_images(tmp_path, survey)] == ["masked"]
    (tmp_path / "masked.fits").unlink()
    with pytest.raises(InputError, match=r"less \*mask\.\*"):
        find_images(tmp_path, survey)


def test_generic_takes_every_known_format_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "b.fits", "x/a.fits.gz", "x/y/c.npy", "x/readme.txt", "v1.2.fits.fz")
    (tmp_path / "z.zarr").mkdir()
    names = [image.name for image in find_images(tmp_path, load("generic"))]
    assert names == ["b", "v1.2", "x/a", "x/y/c", "z"]


def test_generic_file_zarr_folder_and_glob(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.fits", "x/b.fits", "y/a.fits")
    (tmp_path / "z.zarr").mkdir()
    generic = load("generic")
    assert [image.name for image in find_images(tmp_path / "x/a.fits", generic)] == ["a"]
    assert [image.name for image in find_images(tmp_path / "z.zarr", generic)] == ["z"]
    assert [image.name for image in find_images(f"{tmp_path}/*/a.fits", generic)] == ["x/a", "y/a"]


def test_a_folder_whose_name_looks_like_a_glob_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "deep[1]/a.fits")
    assert [image.name for image in find_images(tmp_path / "deep[1]", load("generic"))] == ["a"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.fits", "y/a.fits", "y/b.fits", "y/b.npy")
    with pytest.raises(InputError, match=r"both be called 'a': .*x/a\.fits and .*y/a\.fits"):
        find_images([tmp_path / "x", tmp_path / "y"], load("generic"))
    with pytest.raises(InputError, match="both be called 'b'"):
        find_images(tmp_path / "y", load("generic"))


@pytest.mark.parametrize("place", ["", "nothing*"])
def test_nothing_found_names_place_and_patterns(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match=r"no image of survey 'lotss' found; looked for mosaics/\*/mosaic-blank") as e:
        find_images(tmp_path / place, load("lotss"))
    assert str(tmp_path / place) in str(e.value)


def test_missing_place_and_empty_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such file or folder"):
        find_images([tmp_path / "nowhere"], load("lotss"))
    with pytest.raises(InputError, match="no place to look"):
        find_images([], load("lotss"))
