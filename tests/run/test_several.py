"""train.py started several times by torchrun: one artifact, one folder, and one line when the numbers do not agree."""

import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from make.tiny_command import torchrun
from make.tiny_fit import BATCH, CUTOUTS
from skyloom.errors import ConfigError
from skyloom.run.several import _check_place
from skyloom.store import Store
from skyloom.trainer.distributed.ranks import Rank

LATE = """
import os, runpy, sys, time
time.sleep(4 if os.environ["RANK"] == "0" else 0)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


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
    late = tmp_path / "late.py"  # torchrun ends all processes at the first failure; rank 0 is the last to start here
    late.write_text(LATE)
    command = torchrun(2, tmp_path, through=late, **trainer)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert not (tmp_path / "store" / "model").exists()


@pytest.mark.parametrize(("rank", "node", "local_rank", "fine"), [(0, 0, 0, True), (1, 1, 0, False), (3, 1, 1, True)])
def test_a_process_on_another_machine_than_its_own_says_so_itself(rank, node, local_rank, fine):
    """Dealt out to the machines in turn, which rank 0 cannot see."""
    config = OmegaConf.create({"trainer": {"devices": 2, "num_nodes": 2}})
    one = Rank(rank=rank, size=4, local_rank=local_rank, node=node, nodes=2, by="srun", key="1", address="here")
    if fine:
        _check_place(config, one)
    else:
        with pytest.raises(ConfigError, match="--ntasks-per-node=2 --nodes=2"):
            _check_place(config, one)
