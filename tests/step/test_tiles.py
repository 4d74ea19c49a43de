"""The input of steps on surveys with bands: the same identity wherever the files lie, and nothing lost in silence."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits

import skyloom
from make.survey import sky, write_image
from skyloom.datamodule.band_index import BandIndex
from skyloom.errors import InputError, StoreError
from skyloom.sky.survey.facts import Survey
from skyloom.step.tiles import open_tiles
from skyloom.store import Build, Store, builds

CONF = Path(__file__).parents[2] / "conf" / "survey"
ROMAN = Survey.from_mapping(yaml.safe_load((CONF / "roman.yaml").read_text()))


@builds("images", version=1)
def copied(build: Build, *, source: str) -> None:
    """An images artifact that holds a folder."""
    with build.write("roman") as folder:
        shutil.copytree(source, folder)
    build.note(survey="roman")


def write_tiles(root: Path, *tiles: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for tile in tiles:
        for kind in ("Y106", "J129", "H158"):
            (root / f"dc2_{kind}_{tile}.fits").write_text(f"{kind} {tile}")
        for kind in ("seg", "det", "index"):
            (root / f"dc2_{kind}_{tile}.fits.gz").write_text(f"{kind} {tile}")
    return root


def look(value: Any, store: Store, **options: Any) -> Any:
    return open_tiles(value, {"survey": ROMAN, **options}, store)


def test_identity_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    here = look(write_tiles(tmp_path / "a", "1_-1", "2_-1"), store)
    there = look(str(write_tiles(tmp_path / "b" / "deep", "1_-1", "2_-1").parent), store)
    assert here.identity() == there.identity()
    assert (here.identity()["tiles"], here.identity()["files"]) == (2, 12)
    assert here.recorded_path(here.tiles[0].truth) == (None, str(tmp_path / "a/dc2_index_1_-1.fits.gz"))
    for name in ("dc2_J129_2_-1.fits", "dc2_index_1_-1.fits.gz"):
        (tmp_path / "b" / "deep" / name).write_text("other")
        changed = look(tmp_path / "b", store)
        assert changed.identity() != there.identity()
        there = changed
    shutil.rmtree(tmp_path / "a")
    assert look(write_tiles(tmp_path / "a", "1_-1"), store).identity() != here.identity()


def test_an_artifact_is_an_input(tmp_path: Path) -> None:
    source = write_tiles(tmp_path / "source", "1_-1")
    store = Store(tmp_path / "store")
    artifact = copied(source=str(source), store=store)
    for value in (artifact, artifact.id, str(artifact.path)):
        tiles = look(value, store)
        assert tiles.identity() == artifact.identity()
        assert tiles.recorded_path(tiles.tiles[0].images["H158"]) == (artifact.id, "roman/dc2_H158_1_-1.fits")


def test_a_tile_without_a_band_stops_or_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    folder = write_tiles(tmp_path / "a", "1_-1", "2_-1")
    whole = look(folder, store).identity()
    (folder / "dc2_J129_2_-1.fits").unlink()
    with pytest.raises(InputError, match=r"^tile 2_-1: band J129 is missing .*dc2_J129_2_-1.fits.*1 of 2 tiles.*skip"):
        look(folder, store)
    tiles = look(folder, store, on_missing="skip")
    assert [tile.name for tile in tiles.tiles] == ["1_-1"]
    assert list(tiles.incomplete) == ["2_-1"]
    assert "1 of 2 tiles lack a file and are left out" in capsys.readouterr().err
    assert tiles.identity() != whole
    (folder / "dc2_J129_1_-1.fits").unlink()
    with pytest.raises(InputError, match="no tile is complete; the first is 1_-1"):
        look(folder, store, on_missing="skip")


def test_what_is_no_place_is_said_in_one_line(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError):
        look("no-such-name", store)
    with pytest.raises(InputError, match="expected a folder, a list of folders"):
        look([], store)
    with pytest.raises(InputError, match="nowhere: expected a folder"):
        look([str(tmp_path / "nowhere")], store)


def test_a_survey_that_is_only_a_file_goes_through_a_step(tmp_path: Path) -> None:
    """Patches of HSC, whose layout no line of code knows: found, cut and read in all bands."""
    pixels = {}
    for band in ("HSC-G", "HSC-R", "HSC-I", "HSC-Z", "HSC-Y"):
        path = tmp_path / f"in/{band}/9813/3,4/calexp-{band}-9813-3,4.fits"
        pixels[band] = write_image(path, sky(64, 64, seed=len(pixels)))
    cutouts = skyloom.curate(
        "cutouts", survey="hsc", images=tmp_path / "in", window_px=24, border_px=4, store=tmp_path / "store"
    )
    index = BandIndex(cutouts)
    assert index.bands == ("HSC-G", "HSC-R", "HSC-I", "HSC-Z", "HSC-Y")
    assert len(index.table) == 4
    assert index.table["tile"].unique().to_list() == ["9813-3,4"]
    row = index.table.row(0, named=True)
    rows, cols = (slice(row[key], row[key] + 24) for key in ("row0", "col0"))
    read = index.read(0)
    assert read.shape == (5, 24, 24)
    for plane, path in zip(read, pixels.values(), strict=True):
        np.testing.assert_array_equal(plane, fits.getdata(path)[rows, cols].astype("f4"))
