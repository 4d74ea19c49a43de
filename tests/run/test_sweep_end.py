"""What became of the jobs of a sweep is told from what they have left, whether they ended well or not at all."""

import json
import os
import pickle
import subprocess
import sys
import time

import pytest
from hydra.core.utils import JobReturn, JobStatus

from skyloom.errors import ConfigError
from skyloom.run import sweep_end
from skyloom.run.sweep_end import JOBS, RESULT_FILE, End, ends, submitted, write


@pytest.fixture(autouse=True)
def no_queue(tmp_path, monkeypatch):
    """No command of Slurm is found, but those that a test writes into ``bin``."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Writes a stand-in for squeue; what it was asked is in ``asked``."""
    monkeypatch.setattr(sweep_end, "ASK_S", 0.01)

    def write(script):
        path = tmp_path / "bin" / "squeue"
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{script}\n')
        path.chmod(0o755)
        return lambda: (tmp_path / "asked").read_text().splitlines()

    return write


def job(sweep, name, *, answered=True, answer=("success", None)):
    """The folder of a job; submitit writes a result for whatever did not kill it."""
    folder = sweep / JOBS / name
    folder.mkdir(parents=True)
    if answered:
        (folder / f"{name}_0_result.pkl").write_bytes(pickle.dumps(answer))
    return folder


def test_a_note_tells_what_was_made_and_replaces_an_earlier_one(tmp_path):
    folder = tmp_path / "new" / "0"
    write(folder, verb="train", error="it's über\tfull")
    assert json.loads((folder / RESULT_FILE).read_text())["error"] == "it's über\tfull"
    write(folder, verb="train", kind="model", id="abc")
    assert json.loads((folder / RESULT_FILE).read_text()) == {
        "verb": "train", "kind": "model", "id": "abc", "error": None,
    }  # fmt: skip
    assert [path.name for path in folder.iterdir()] == [RESULT_FILE]


def test_a_note_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    write(tmp_path, verb="train", id="abc")
    before = (tmp_path / RESULT_FILE).read_text()
    with monkeypatch.context() as patch:
        patch.setattr(sweep_end.Path, "replace", lambda *words: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space left"):
            write(tmp_path, verb="train", id="other")
    assert (tmp_path / RESULT_FILE).read_text() == before


def test_jobs_are_in_the_order_of_the_runs(tmp_path):
    assert submitted(tmp_path) == []
    for name in ("12_10", "12_2", "12_0", "12", "12_1", "other", "12_x"):
        (tmp_path / JOBS / name).mkdir(parents=True)
    (tmp_path / JOBS / "13").write_text("a file")
    assert submitted(tmp_path) == ["12_0", "12_1", "12_2", "12_10"], "12 is the folder of the array itself"


def test_a_job_that_was_submitted_alone_is_one(tmp_path):
    for name in ("7", "70"):
        (tmp_path / JOBS / name).mkdir(parents=True)
    assert submitted(tmp_path) == ["7", "70"]


def test_done_failed_killed_and_dry_runs_are_told_apart(tmp_path):
    write(tmp_path / "0", verb="train", kind="model", id="abc")
    write(tmp_path / "1", verb="train", error="cutouts=nowhere: no such artifact")
    job(tmp_path, "12_0")
    job(tmp_path, "12_1")
    job(tmp_path, "12_2", answered=False)
    job(tmp_path, "12_3")
    done, failed, killed, dry = ends(tmp_path)
    assert done == End("0", "abc", "")
    log = tmp_path / JOBS / "12_1" / "12_1_0_log.err"
    assert failed == End("1", "", f"cutouts=nowhere: no such artifact (log: {log})")
    assert (killed.run, killed.id) == ("2", "")
    assert "job 12_2 ended without a word: cancelled, killed, or out of memory or time" in killed.error
    assert "the same command goes on with it" in killed.error
    assert str(tmp_path / JOBS / "12_2" / "12_2_0_log.err") in killed.error
    assert dry == End("3", "", "")


def test_a_job_that_broke_outside_its_work_is_not_taken_for_a_dry_run(tmp_path):
    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = ConfigError("this job was submitted with\nanother configuration")
    job(tmp_path, "12_0", answer=("success", failed))
    job(tmp_path, "12_1", answer=("error", "Traceback (most recent call last):\n  …\nImportError: no libGL\n"))
    job(tmp_path, "12_2", answer=("success", JobReturn(status=JobStatus.COMPLETED)))
    own, other, dry = ends(tmp_path)
    assert own.error.startswith("this job was submitted with another configuration (log: ")
    assert other.error.startswith("ImportError: no libGL (log: ")
    assert dry == End("2", "", "")


def test_a_job_that_was_killed_after_it_had_begun_is_not_taken_for_a_dry_run(tmp_path):
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / "run.json").write_text("{}")
    job(tmp_path, "12_0", answered=False)
    (end,) = ends(tmp_path)
    assert "ended without a word" in end.error


def test_a_job_that_has_made_its_artifact_is_done_although_it_did_not_answer(tmp_path):
    write(tmp_path / "0", verb="train", kind="model", id="abc")
    job(tmp_path, "12_0", answered=False)
    assert ends(tmp_path) == [End("0", "abc", "")]


def test_a_sweep_without_jobs_has_no_ends_and_asks_nobody(tmp_path, squeue):
    squeue("exit 1")
    assert ends(tmp_path) == []
    assert not (tmp_path / "asked").exists()


def test_it_waits_for_jobs_that_are_in_the_queue(tmp_path, squeue):
    asked = squeue(f'[ $(/usr/bin/wc -l < {tmp_path}/asked) -lt 3 ] && echo "12_1 RUNNING"; exit 0')
    for name in ("12_0", "12_1", "15"):
        job(tmp_path, name)
    assert len(ends(tmp_path)) == 3
    assert asked() == ["-h -j 12,15"] * 3


def test_jobs_that_the_queue_has_forgotten_have_ended(tmp_path, squeue):
    asked = squeue("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1")
    job(tmp_path, "12_0", answered=False)
    start = time.monotonic()
    assert "ended without a word" in ends(tmp_path)[0].error
    assert len(asked()) == 1
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(("environment", "expected"), [({}, False), ({"SUBMITIT_EXECUTOR": "slurm"}, True)])
def test_submitit_says_whether_this_is_a_job(monkeypatch, environment, expected):
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert sweep_end.in_job() is expected


@pytest.mark.parametrize(("started", "said", "code"), [("slurm", 2, 2), ("slurm", 0, 0), ("", 2, 0)])
def test_the_queue_sees_the_exit_code_of_a_job_that_failed(started, said, code):
    words = f"from skyloom.run import sweep_end; print('last words'); sweep_end.end_job_with({said})"
    env = {**os.environ, "SUBMITIT_EXECUTOR": started}
    done = subprocess.run([sys.executable, "-c", words], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "last words\n", "")
