"""Pieces made by several processes: the same as by one, failures with a name, and nothing left running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from make.pieces import squares
from skyloom.errors import InputError, StoreError

TESTS = Path(__file__).resolve().parents[1]


def processes(store):
    return {path.name.split("-")[1] for path in store.rglob("who/*")}


def test_several_processes_make_what_one_makes(tmp_path):
    one = squares(numbers=7, make="square", workers=1, store=tmp_path / "one")
    three = squares(numbers=7, make="square", workers=3, store=tmp_path / "three")
    assert one.id == three.id
    assert (one.path / "manifest.json").read_bytes() == (three.path / "manifest.json").read_bytes()
    assert one.notes["done"] == 7
    assert processes(tmp_path / "one") == {str(os.getpid())}
    assert 1 <= len(processes(tmp_path / "three")) <= 3
    assert str(os.getpid()) not in processes(tmp_path / "three")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_refused_task_is_told_as_it_is_and_the_rest_is_kept(tmp_path, workers):
    with pytest.raises(InputError, match=r"^number 3 cannot be squared$"):
        squares(numbers=6, make="fail_at_three", workers=workers, store=tmp_path)
    assert len(list(tmp_path.rglob(".shards/00[012]"))) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unexpected_error_names_the_task(tmp_path, workers):
    with pytest.raises(InputError):
        squares(numbers=6, make="fail_at_three", workers=1, store=tmp_path)
    for path in tmp_path.rglob(".shards"):
        (path / "003").write_text("9")
    with pytest.raises(ZeroDivisionError, match="four") as error:
        squares(numbers=6, make="fail_at_three", workers=workers, store=tmp_path)
    assert error.value.__notes__ == ["while making piece 004: number 4"]


def test_a_killed_worker_is_reported_and_the_command_can_be_repeated(tmp_path):
    with pytest.raises(
        StoreError, match=r"killed, most likely because memory ran out.*number 2.*fewer than 2"
    ) as error:
        squares(numbers=6, make="killed_once", workers=2, store=tmp_path)
    assert "\n" not in str(error.value)
    again = squares(numbers=6, make="killed_once", workers=2, store=tmp_path)
    assert json.loads(again.file("squares.json").read_text()) == [0, 1, 4, 9, 16, 25]
    made = [path.name.split("-")[0] for path in tmp_path.rglob("who/*")]
    assert made.count("0") == 1, "a finished piece was made again"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_workers_end_with_the_process_that_started_them(tmp_path):
    code = (
        "from make.pieces import squares\n"
        "if __name__ == '__main__':\n"
        f"    squares(numbers=4, make='slow', workers=2, store={str(tmp_path)!r})\n"
    )
    (tmp_path / "main.py").write_text(code)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py")], env={**os.environ, "PYTHONPATH": str(TESTS)})
    wait_for(lambda: len(list(tmp_path.rglob("begun-*"))) == 2)
    pids = [int(path.name.split("-")[1]) for path in tmp_path.rglob("begun-*")]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_a_script_that_runs_again_in_its_workers_is_told_so_and_does_not_wait_for_itself(tmp_path):
    code = f"from make.pieces import squares\nsquares(numbers=4, make='square', workers=2, store={str(tmp_path)!r})\n"
    (tmp_path / "main.py").write_text(code)
    told = subprocess.run(
        [sys.executable, str(tmp_path / "main.py")],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert told.returncode == 1
    assert "ran the whole script again and came to" in told.stderr
    assert "if __name__ == '__main__':" in told.stderr
    assert told.stderr.rstrip().endswith("a worker that could not start has told why above")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited 30 s in vain"
        time.sleep(0.05)
