"""Scripts as people call them: the id alone on stdout, one line and exit code 2 for a mistake, nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from make.forked_script import call, running
from make.survey import sky, write_image
from skyloom.store import Store

ROOT = Path(__file__).resolve().parents[2]


def script(tmp_path, *words, store=None):
    places = [f"paths.store={store or tmp_path / 'store'}", f"paths.runs={tmp_path / 'runs'}"]
    return call(running(), *words, *places, cwd=tmp_path)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    good = write_image(folder / "good.fits", sky(64, 64))
    (folder / "truncated.fits").write_bytes(good.read_bytes()[:9000])
    (folder / "text.fits").write_text("not a fits file\n" * 400)
    write_image(folder / "small.fits", sky(20, 90))
    write_image(folder / "blank.fits", np.full((64, 64), np.nan))
    return folder


CASES = {
    "missing file": (["images=in/nothing.fits"], "nothing.fits"),
    "truncated file": (["images=in/truncated.fits"], "truncated.fits"),
    "text called fits": (["images=in/text.fits"], "text.fits"),
    "smaller than the window": (["images=in/small.fits"], "small.fits"),
    "all NaN": (["images=in/blank.fits"], "blank.fits"),
    "overlap 1": (["images=in/good.fits", "overlap=1"], "overlap=1"),
    "negative overlap": (["images=in/good.fits", "overlap=-0.5"], "overlap=-0.5"),
    "window 0": (["images=in/good.fits", "window_px=0"], "window_px=0"),
    "unknown id": (["images=abcdefgh"], "abcdefgh"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, images, case):
    words, named = CASES[case]
    done = script(tmp_path, "curate.py", "step=cutouts", "window_px=32", *words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    errors = done.stderr.strip().splitlines()
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    assert named in errors[0]
    assert not list(Store(tmp_path / "store"))
    assert not [p for p in (tmp_path / "store").rglob("*") if p.is_dir() and p.name != ".partial"]


def test_an_ambiguous_prefix_names_the_candidates(tmp_path, images):
    store = Store(tmp_path / "store")
    for id in ("qabcdefghijk", "qabczzzzzzzz"):
        folder = store.path("cutouts", id)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(f'{{"schema": 1, "kind": "cutouts", "id": "{id}", "inputs": {{}}}}')
    done = script(tmp_path, "extract.py", "product=features", "cutouts=qabc")
    assert done.returncode == 2
    assert "qabcdefghijk" in done.stderr
    assert "qabczzzzzzzz" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_image_without_wcs_is_accepted(tmp_path):
    write_image(tmp_path / "in" / "plain.fits", sky(64, 64), wcs=False)
    words = ["step=cutouts", "window_px=32", "images=in", "paths.store=store", "paths.runs=runs"]
    done = subprocess.run(  # the one here that starts Python anew
        [sys.executable, ROOT / "curate.py", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    artifact = Store(tmp_path / "store").open(done.stdout.splitlines()[-1])
    assert artifact.table()["ra_deg"].null_count() == 9
    assert artifact.notes["images_without_wcs"]["names"] == ["plain"]


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root on Linux to mount a small tmpfs")
def test_a_full_disk_is_explained_and_the_same_command_goes_on(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    mounted = subprocess.run([*mount, "size=1m", "none", str(small)], check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    words = ["curate.py", "step=simulate", "survey=lotss", "mosaics=2", "size_px=300"]
    try:
        done = script(tmp_path, *words, store=small / "store")
        assert done.returncode == 2, done.stderr
        assert "the disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(Store(small / "store"))
        subprocess.run([*mount, "remount,size=100m", "none", str(small)], check=True)
        done = script(tmp_path, *words, store=small / "store")
        assert done.returncode == 0, done.stderr
        assert Store(small / "store").open(done.stdout.strip()).verify() == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("words", [["curate.py", "step=simulate", "survey=lotss"]])
def test_name_seed_and_dry_run_work(tmp_path, words):
    words = [*words, "mosaics=1", "size_px=200"]
    plan = script(tmp_path, *words, "dry_run=true", "seed=5")
    assert plan.returncode == 0, plan.stderr
    assert "would be made" in plan.stderr
    assert not (tmp_path / "store").exists()
    done = script(tmp_path, *words, "seed=5", "name=tiny")
    assert done.stdout == plan.stdout, "stdout carries the id alone"
    store = Store(tmp_path / "store")
    assert store.open("tiny").manifest["seed"] == 5
    assert script(tmp_path, *words, "seed=6", "dry_run=true").stdout != plan.stdout


def test_a_sweep_prints_every_id(tmp_path):
    done = script(tmp_path, "curate.py", "-m", "step=simulate", "survey=lotss", "mosaics=1", "size_px=200", "seed=1,2")
    assert done.returncode == 0, done.stderr
    ids = [line for line in done.stdout.splitlines() if line]
    assert len(ids) == 2
    assert {a.manifest["seed"] for a in Store(tmp_path / "store")} == {1, 2}


@pytest.mark.parametrize("word", ["+windowpx=32", "+trainer=gpu", "+transform.stretch=log", "++paths.stroe=elsewhere"])
def test_an_added_option_that_nothing_reads_is_refused(tmp_path, images, word):
    done = script(tmp_path, "curate.py", "step=cutouts", "images=in/good.fits", "window_px=32", word)
    assert done.returncode == 2, done.stderr
    key = word.lstrip("+").partition("=")[0]
    assert done.stderr.splitlines()[-1].startswith(f"error: +key={key} is not known; choose one of: ")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("+backbone.foo=1", "+key=backbone.foo is not known; choose one of: backbone."),
        ("++preprocess.stretch=log", "+key=preprocess.stretch: preprocess only stands for transform.preprocess; set t"),
    ],
)
def test_an_added_option_of_a_group_that_nothing_reads_is_refused(tmp_path, word, told):
    done = script(tmp_path, "train.py", "task=byol", "cutouts=none", "dry_run=true", word)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {told}")


def test_an_added_option_that_is_known_passes(tmp_path, images):
    words = ["curate.py", "step=cutouts", "images=in/good.fits", "window_px=32"]
    plain = script(tmp_path, *words)
    added = script(tmp_path, *words, "++max_nan_frac=null", "++seed=0", "+survey.tiles=null", "++name=again")
    assert (added.returncode, added.stdout) == (0, plain.stdout), added.stderr


@pytest.mark.parametrize("places", ["images=", "images=['',in/good.fits]"])
def test_an_empty_word_is_not_the_working_directory(tmp_path, images, places):
    write_image(tmp_path / "beside.fits", sky(64, 64))
    done = script(tmp_path, "curate.py", "step=cutouts", places, "window_px=32")
    assert done.returncode == 2
    assert "an empty text" in done.stderr


def test_dry_run_is_true_or_false(tmp_path, images):
    done = script(tmp_path, "curate.py", "step=cutouts", "images=in/good.fits", "window_px=32", "dry_run=flase")
    assert (done.returncode, done.stdout) == (2, "")
    assert "dry_run='flase': expected true or false" in done.stderr


def test_what_a_command_says_stands_in_its_log_file(tmp_path, images):
    half = sky(64, 64)
    half[:20] = np.nan
    write_image(tmp_path / "half.fits", half)
    words = ["curate.py", "step=cutouts", "images=half.fits", "window_px=32", "max_nan_frac=0"]
    first = script(tmp_path, *words)
    id = first.stdout.strip()
    assert f"cutouts {id} was made in " in first.stderr
    assert "(blank window)" in first.stderr, "nothing is dropped in silence"
    script(tmp_path, *words)
    script(tmp_path, *words, "window_px=0")
    logs = [path.read_text() for path in sorted((tmp_path / "runs").rglob("curate.log"))]
    assert [("was made in" in log, "nothing to do" in log, "error: window_px" in log) for log in logs] == [
        (True, False, False), (False, True, False), (False, False, True)
    ]  # fmt: skip


def test_what_a_step_says_stands_there_too(tmp_path, images):
    words = ["curate.py", "step=cutouts", "images=in", "window_px=16", "survey.exclude_patterns=[text*,trunc*]"]
    done = script(tmp_path, *words, "dry_run=true")
    told = [line for line in done.stderr.splitlines() if "are left out by survey.exclude_patterns" in line]
    assert len(told) == 1, done.stderr
    (log,) = (tmp_path / "runs").rglob("curate.log")
    assert told[0] in log.read_text()


def test_a_list_in_the_place_of_a_mapping_is_told_how_to_be_given(tmp_path):
    words = ["analyze.py", "--cfg", "job", "--package", "bins", "report=detections"]
    done = script(tmp_path, *words, "bins.mag=[18,22,25]")
    way = "~bins.mag", "+bins.mag=[18,22,25]"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: bins.mag is a mapping, and Hydra puts no list in its place; give '{way[0]}' '{way[1]}'\n"
    )
    done = script(tmp_path, *words, *way)
    assert done.returncode == 0, done.stderr
    assert "mag:\n- 18\n- 22\n- 25\n" in done.stdout
