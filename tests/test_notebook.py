"""The functions for notebooks: what the tabulator key offers, two stores in one process, errors as exceptions."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import skyloom
from make.survey import sky, write_image
from skyloom.errors import ConfigError
from skyloom.run.notebook import configure


@pytest.fixture
def images(tmp_path):
    write_image(tmp_path / "in" / "field.fits", sky(64, 64))
    return tmp_path / "in"


def cutouts(images, store, **options):
    return skyloom.curate("cutouts", images=images, window_px=32, threads=1, store=store, **options)


def test_the_tabulator_key_offers_the_verbs_before_anything_heavy_is_imported():
    code = (
        "import sys, skyloom\n"
        "assert {'curate', 'train', 'extract', 'analyze', 'recipe', 'Store', 'Artifact'} <= set(dir(skyloom))\n"
        "heavy = {'torch', 'hydra', 'polars', 'astropy', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert all(callable(getattr(skyloom, name)) for name in skyloom.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_stores_in_one_process(images, tmp_path):
    first, second = cutouts(images, tmp_path / "a"), cutouts(images, tmp_path / "b")
    assert first.id == second.id
    assert first.path.parents[1] == tmp_path / "a"
    assert second.path.parents[1] == tmp_path / "b"


def test_from_a_thread_and_from_the_event_loop_of_jupyter(images, tmp_path):
    async def cell():
        return cutouts(images, tmp_path / "loop")

    id = asyncio.run(cell()).id
    with ThreadPoolExecutor(4) as pool:  # at once: Hydra's state is one for all threads
        made = list(pool.map(lambda name: cutouts(images, tmp_path / name).id, "abcdefgh"))
    assert made == [id] * 8


def test_mistakes_are_exceptions_and_leave_the_next_call_alone(images, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'window_px'"):
        skyloom.curate("cutouts", images=images, widow_px=32, store=tmp_path / "a")
    with pytest.raises(ConfigError, match="step"):
        skyloom.curate("cutuots", images=images, store=tmp_path / "a")
    with pytest.raises(ConfigError, match="dry_run='no': expected true or false"):
        cutouts(images, tmp_path / "a", dry_run="no")
    assert cutouts(images, tmp_path / "a").counts["kept"] > 0


def test_a_list_takes_the_place_of_a_mapping_and_the_reverse():
    def bins(**options):
        return configure("analyze", {"report": "detections", **options}).bins

    usual = bins()
    assert {"low", "high"} <= set(usual.mag), "what this test puts a list in the place of"
    assert bins(**{"bins.mag": (18, 22, 25)}).mag == [18, 22, 25]
    within = bins(bins={"mag": [18, 22, 25], "colour": {"low": -2}, "snr": {"low": 3, "high": 9, "step": 1}})
    assert within.mag == [18, 22, 25]
    assert within.colour == {**usual.colour, "low": -2}, "mappings are merged"
    assert within.snr == {"low": 3, "high": 9, "step": 1}
    assert within.size == usual.size
    with pytest.raises(ConfigError, match=r"option=mga is not known; .*Did you mean 'mag'"):
        bins(bins={"mga": [1, 2], "colour": [1, 2]})
