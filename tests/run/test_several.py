"""train.py started several times by torchrun: one artifact, one folder, and one line when the numbers do not agree."""

import subprocess
from pathlib import Path

import pytest

from make.tiny_command import torchrun
from make.tiny_fit import BATCH, CUTOUTS
from skyloom.store import Store


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_two_processes_of_torchrun_make_one_artifact(tmp_path):
    command = torchrun(2, tmp_path, devices=2, max_epochs=1)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = Store(tmp_path / "store").open(done.stdout.strip())  # one id, though both have ended
    assert model.verify() == []
    assert model.counts["images"] == CUTOUTS // (2 * BATCH) * 2 * BATCH
    (folder,) = (tmp_path / "runs" / "train").glob("*/*")
    assert files(folder) == {"train.log", "run.json", "result.json", "config.yaml", "hydra.yaml", "overrides.yaml"}
    assert (folder / "train.log").read_text().count("fitting ByolTask on 2 x cpu") == 1
    assert not list((tmp_path / "runs" / "rendezvous").iterdir()), "what lay there could run code"


@pytest.mark.parametrize(
    ("trainer", "words"),
    [({"devices": 3}, "wants 3 process(es)"), ({"devices": 1, "num_nodes": 2}, "--ntasks-per-node=1 --nodes=2")],
    ids=["number", "machines"],
)
def test_other_processes_than_asked_for_are_refused_in_one_line(tmp_path, trainer, words):
    command = torchrun(2, tmp_path, **trainer)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert not (tmp_path / "store" / "model").exists()
