"""executor=slurm on a real Slurm: arrays whose jobs die, stop and wait end in the same bytes as one process alone."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import pytest
from omegaconf import OmegaConf

from make.joint_data import joint_data
from make.pieces import squares
from make.survey import sky, write_image
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.executor import build_executor
from skyloom.run.notebook import compose, configure, curate, extract
from skyloom.run.recipe import run_recipe
from skyloom.store.executor import JOBS

TESTS = Path(__file__).resolve().parents[1]
QUICK = {"poll_s": 0.2, "cpus": 1, "mem_gb": 1, "pieces_per_job": 3}


@pytest.fixture(autouse=True)
def here(slurm, monkeypatch):
    """This process finds the cluster, and its jobs find what they import."""
    for key, value in slurm.environment().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def options(folder, **changes):
    config = compose("curate", ["step=merge", "executor=slurm"]).executor
    return {**config, "folder": str(folder / "pieces"), **QUICK, **changes}


def executor(folder, **changes):
    return build_executor(options(folder, **changes))


def manifest(artifact):
    return (artifact.path / "manifest.json").read_bytes()


def test_a_job_that_is_killed_is_tried_again_and_the_result_is_the_serial_one(slurm, tmp_path, capfd):
    one = squares(numbers=7, make="square", workers=1, store=tmp_path / "one")
    many = squares(numbers=7, make="square", workers=1, store=tmp_path / "many", executor=executor(tmp_path))
    assert many.id == one.id
    assert manifest(many) == manifest(one)
    assert one.notes["done"] == 7
    assert many.history["settings"]["executor"].startswith("slurm")
    workers = {path.name.split("-")[1] for path in (tmp_path / "many").rglob("who/*")}
    assert len(workers) == 3, "seven pieces in jobs of three"
    assert str(os.getpid()) not in workers

    killed = squares(numbers=7, make="killed_once", workers=1, store=tmp_path / "killed", executor=executor(tmp_path))
    assert killed.path.joinpath("squares.json").read_bytes() == one.path.joinpath("squares.json").read_bytes()
    made = sorted(path.name.split("-")[0] for path in (tmp_path / "killed").rglob("who/*"))
    assert made == list("0123456"), "a finished piece was made again"
    told = capfd.readouterr().err
    assert "number 2" in told
    assert "died: " in told
    assert not list((tmp_path / "pieces").rglob("*.pkl")), "jobs' pickles stay"
    assert not slurm.run("squeue", "-h").stdout


def test_jobs_run_a_copy_of_the_code_so_that_an_edit_while_they_wait_changes_nothing(slurm, tmp_path):
    squares(numbers=2, make="tell_code", workers=1, store=tmp_path / "store", executor=executor(tmp_path))
    told = [Path(path.read_text()) for path in tmp_path.rglob("code-of-*")]
    assert len(told) == 2
    for path in told:
        assert path.parents[1].name.startswith("code-")
        assert path.is_relative_to(tmp_path / "pieces")
        assert not path.exists(), "it goes with the jobs"


def test_a_piece_that_always_fails_is_named_with_its_log_and_the_others_are_kept(slurm, tmp_path):
    quick = executor(tmp_path, retries=1, pieces_per_job=4)
    with pytest.raises(
        StoreError, match=r"piece 004 \(number 4\) failed in 2 attempts: ZeroDivisionError: four"
    ) as told:
        squares(numbers=6, make="fail_at_four", workers=1, store=tmp_path, executor=quick)
    assert "\n" not in str(told.value)
    assert "1 of 6 pieces are missing" in str(told.value)
    log = Path(str(told.value).partition("its log: ")[2].partition(";")[0])
    assert "ZeroDivisionError: four" in log.read_text()
    assert len(list(tmp_path.rglob(".shards/00[01235]"))) == 5
    again = squares(numbers=6, make="fail_at_four", workers=1, store=tmp_path, dry_run=True)
    assert again.pieces == 5


def test_bad_input_is_told_as_it_is_and_not_tried_again(slurm, tmp_path):
    before = {job["JobId"] for job in slurm.jobs()}
    with pytest.raises(InputError, match=r"^number 3 cannot be squared$"):
        squares(numbers=5, make="fail_at_three", workers=1, store=tmp_path, executor=executor(tmp_path))
    assert len({job["JobId"] for job in slurm.jobs()} - before) == 2, "two jobs, once"
    assert not list(tmp_path.rglob(JOBS))


def test_jobs_of_a_killed_command_are_ended_before_the_next_one_begins(slurm, tmp_path):
    code = f"""
        from make.pieces import squares
        from skyloom.executor import build_executor
        squares(numbers=4, make="slow", workers=1, store={str(tmp_path)!r},
                executor=build_executor({options(tmp_path, pieces_per_job=2)!r}))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    wait_for(lambda: len(list(tmp_path.rglob("begun-*"))) == 2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert len(slurm.run("squeue", "-h", "-r").stdout.splitlines()) == 2, "nobody has ended them"
    with pytest.raises(StoreError, match=r"executor=slurm again.*scancel --name=skyloom-numbers-"):
        squares(numbers=4, make="slow", workers=1, store=tmp_path)
    for path in tmp_path.rglob("begun-*"):
        path.unlink()
    again = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(list(tmp_path.rglob("begun-*"))) == 2)
    running = slurm.run("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i").stdout.split()
    assert len(running) == 2, running
    again.send_signal(signal.SIGINT)  # Ctrl-C leaves no job behind
    told = again.communicate()[1]
    assert "ended 2 jobs of an earlier attempt" in told
    wait_for(lambda: not slurm.run("squeue", "-h").stdout)
    assert not list(tmp_path.rglob(JOBS))


def test_a_requeued_job_goes_on_with_the_pieces_that_are_missing(slurm, tmp_path, capfd):
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(
            squares, numbers=3, make="slow_once", workers=1, store=tmp_path, executor=executor(tmp_path, retries=0)
        )
        wait_for(lambda: list(tmp_path.rglob("begun-*")))
        job = slurm.run("squeue", "-h", "-r", "-o", "%i").stdout.strip()
        slurm.requeue(job)
        numbers = made.result(timeout=120)
    assert numbers.file("squares.json").read_text().split() == ["[", "0,", "1,", "4", "]"]
    assert slurm.job(job)["Restarts"] == "1"
    assert "attempt 2" not in capfd.readouterr().err, "Slurm's own requeueing is no failure"
    finished = sorted(path.name.split("-")[0] for path in tmp_path.rglob("who/*"))
    assert finished == ["0", "1", "2"], "a finished piece was made again"


def test_options_that_slurm_refuses_are_told_in_one_line(slurm, tmp_path):
    with pytest.raises(ConfigError, match=r"Slurm does not take the jobs.*partition") as told:
        squares(numbers=2, make="square", workers=1, store=tmp_path, executor=executor(tmp_path, partition="nowhere"))
    assert "\n" not in str(told.value)


def test_an_array_of_extraction_shards_with_one_killed_gives_the_file_of_one_process(slurm, tmp_path, capfd):
    write_image(tmp_path / "in" / "a.fits", sky(96, 96, seed=1))
    cutouts = curate("cutouts", images=tmp_path / "in", window_px=32, threads=1, store=tmp_path / "store")
    common = {
        "cutouts": cutouts.id, "backbone.image_size_px": 32, "shard_rows": 6, "batch_size": 4,
        "paths.runs": str(tmp_path / "runs"),
    }  # fmt: skip
    mark = tmp_path / "killed"
    kill = f'if [ "$SLURM_ARRAY_TASK_ID" = 1 ] && mkdir {mark}; then scancel --signal=KILL --full "$SLURM_JOB_ID"; fi'
    asked = {f"executor.{key}": value for key, value in QUICK.items() if key != "pieces_per_job"}
    many = extract(
        "features", **common, executor="slurm", **asked, **{"executor.pieces_per_job": 2, "executor.setup": [kill]},
        store=str(tmp_path / "store"),
    )  # fmt: skip
    assert mark.exists()
    assert "died: " in capfd.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "cutouts").symlink_to(tmp_path / "store" / "cutouts")
    one = extract("features", **common, executor="serial", store=str(other))
    assert one.id == many.id
    with h5py.File(one.file("features.h5")) as a, h5py.File(many.file("features.h5")) as b:
        assert len(a["features"]) > 6
        assert (a["features"][:] == b["features"][:]).all()
        assert (a["cutout_id"][:] == b["cutout_id"][:]).all()
    assert one.manifest["files"] == many.manifest["files"]


def test_a_catalogue_made_by_jobs_is_that_of_one_process(slurm, tmp_path):
    data = joint_data(tmp_path / "store")
    common = {
        "detector": "sep", "dataset": data.dataset.id, "channels.surveys": ["lsst"], "score": 0.05, "shard_images": 2,
        "photometry.psf": {band: {"model": "gaussian", "fwhm_arcsec": 0.8} for band in "ugrizy"}, "device": "cpu",
        "paths.runs": str(tmp_path / "runs"),
    }  # fmt: skip
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "store", other)
    before = len(slurm.jobs())
    asked = {f"executor.{key}": value for key, value in (QUICK | {"pieces_per_job": 2}).items()}
    many = extract("catalog", **common, executor="slurm", **asked, store=str(tmp_path / "store"))
    assert len(slurm.jobs()) - before == 4, "two of candidates, two of the catalogue"
    one = extract("catalog", **common, executor="serial", store=str(other))
    assert one.id == many.id
    assert one.counts["kept"] > 6
    assert one.manifest["files"] == many.manifest["files"]
    found = one.inputs["candidates"], many.inputs["candidates"]
    assert found[0].manifest["files"] == found[1].manifest["files"]
    assert many.history["settings"]["executor"].startswith("slurm")


def test_links_of_a_recipe_choose_their_executor(slurm, tmp_path):
    asked = {f"executor.{key}": value for key, value in QUICK.items()}
    links = {
        "survey": {"curate": "simulate", "survey": "lotss", "mosaics": 2, "size_px": 200},
        "cutouts": {"curate": "cutouts", "survey": "lotss", "images": {"from": "survey"}, "window_px": 32},
    }
    many = links | {"cutouts": {**links["cutouts"], "executor": "slurm", **asked}}
    before = len(slurm.jobs())
    chains = [recipe_of(tmp_path / name, which) for name, which in (("many", many), ("one", links))]
    assert len(slurm.jobs()) - before == 1
    assert [row.state for row in chains[0].rows] == ["made", "made"]
    assert chains[0].id == chains[1].id
    for name in links:
        made = [chain.artifacts[name].manifest["files"] for chain in chains]
        assert made[0] == made[1]
    assert chains[0].artifacts["cutouts"].history["settings"]["executor"].startswith("slurm")


def recipe_of(folder, links):
    config = configure("curate", {"paths.store": str(folder / "store"), "paths.runs": str(folder / "runs")})
    OmegaConf.set_struct(config, False)
    config.recipe = {"name": "tiny", "links": links}
    return run_recipe(config)


def wait_for(met, seconds=90):
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
