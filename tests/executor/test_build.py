"""Executors are built from the options of conf/executor, and wrong ones are told in one line."""

import os

import pytest
from omegaconf import OmegaConf

from make.pieces import squares
from skyloom.errors import ConfigError
from skyloom.executor import build_executor
from skyloom.executor.build import OPTIONS
from skyloom.run.notebook import compose


def options(name, *words):
    config = compose("curate", ["step=merge", f"executor={name}", *words]).executor
    return OmegaConf.to_container(config) | ({"folder": "pieces"} if name == "slurm" else {})


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_file_of_the_group_has_exactly_the_keys_that_are_read(name):
    build_executor(options(name))
    assert set(options(name)) == set(OPTIONS[name].model_fields)


def test_serial_processes_and_slurm_use_as_many_processes_here_as_they_say():
    asked = [build_executor(options(name)).processes(3) for name in ("serial", "processes", "slurm")]
    assert asked == [1, 3, 0]
    assert build_executor(options("processes", "executor.workers=5")).processes(3) == 5


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"name": "slrm"},
            r"executor=slrm is not known; choose one of: processes, serial, slurm. Did you mean 'slurm'",
        ),
        ({"name": "processes", "workers": 0}, r"^executor.workers=0: input should be greater than 0$"),
        ({"name": "processes"}, r"^executor.workers="),
        ({"name": "serial", "wrokers": 2}, r"^executor.wrokers=2: extra inputs are not permitted$"),
    ],
)
def test_a_mistake_is_told_in_one_line(given, told):
    with pytest.raises(ConfigError, match=told):
        build_executor(given)


def test_the_executor_is_no_part_of_the_id_and_is_recorded(tmp_path):
    plain = squares(numbers=3, make="square", workers=2, store=tmp_path / "a")
    serial = squares(
        numbers=3, make="square", workers=2, store=tmp_path / "b", executor=build_executor({"name": "serial"})
    )
    assert serial.id == plain.id
    assert serial.manifest == plain.manifest
    assert serial.history["settings"] == {"workers": 2, "executor": "serial"}
    assert {path.name.split("-")[1] for path in (tmp_path / "b").rglob("who/*")} == {str(os.getpid())}
