"""Processes that others have started meet in a folder, and none waits for another that is gone."""

import os
import pickle
import stat
import threading
import time
from dataclasses import replace

import pytest

from make import other_rank
from skyloom.errors import InputError, StoreError
from skyloom.trainer.distributed import rendezvous
from skyloom.trainer.distributed.follow import follow
from skyloom.trainer.distributed.ranks import Rank
from skyloom.trainer.distributed.rendezvous import lead, leader

ONE = Rank(rank=0, size=2, local_rank=0, node=0, nodes=1, by="srun", key="1-0-0", address="127.0.0.1")
TWO = replace(ONE, rank=1, local_rank=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, value in {"BEAT_S": 0.05, "POLL_S": 0.01, "START_S": 1.0, "LOST_S": 1.0, "LEAVE_S": 1.0}.items():
        monkeypatch.setattr(rendezvous, name, value)


class Follower(threading.Thread):
    """Stands for the other process."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.error = folder, None
        self.start()

    def run(self):
        try:
            follow(TWO, self.folder)
        except Exception as error:
            self.error = error

    def end(self):
        self.join(10)
        assert not self.is_alive()
        return self.error


def test_the_other_process_does_what_rank_0_leaves_once_each_and_goes_home(tmp_path):
    folder = tmp_path / "meeting"
    other = Follower(folder)
    with lead(ONE, folder) as mine:
        assert leader() is mine
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for number in range(2):
            mine.post(pickle.dumps((other_rank.say, tmp_path / f"said{number}")))
            assert stat.S_IMODE(next(folder.glob("*.job")).stat().st_mode) == 0o600
            assert mine.finished(5)
    assert other.end() is None
    assert [(tmp_path / f"said{n}").read_text() for n in range(2)] == ["rank 1\n"] * 2
    assert leader() is None
    assert not folder.exists()


def test_what_an_earlier_attempt_has_left_is_not_done_again(tmp_path):
    folder = tmp_path / "meeting"
    folder.mkdir()
    (folder / rendezvous.BEAT).write_text("old 7")
    (folder / "old-0.job").write_bytes(pickle.dumps((other_rank.say, tmp_path / "said")))
    other = Follower(folder)
    time.sleep(0.2)
    with lead(ONE, folder):
        time.sleep(0.2)
    assert other.end() is None
    assert not (tmp_path / "said").exists()


def test_rank_0_hears_why_another_process_has_failed(tmp_path):
    other = Follower(tmp_path / "meeting")
    with lead(ONE, tmp_path / "meeting") as mine:
        mine.post(pickle.dumps((other_rank.refuse, "it")))
        assert not mine.finished(5)
        found = mine.failure()
    assert isinstance(found, InputError)
    assert str(found) == "process 1 of the fit: it is bad"
    assert isinstance(other.end(), InputError)


@pytest.mark.parametrize("lived", [False, True], ids=["never came", "has died"])
def test_the_other_process_does_not_wait_for_ever(tmp_path, lived):
    other = Follower(tmp_path)
    if lived:
        for number in range(3):
            rendezvous.write(tmp_path / rendezvous.BEAT, f"token {number}".encode())
            time.sleep(0.1)
    error = other.end()
    assert isinstance(error, StoreError)
    assert ("has not been heard of" if lived else "has waited") in str(error)


def test_work_of_somebody_else_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    other = Follower(tmp_path / "meeting")
    with lead(ONE, tmp_path / "meeting") as mine:
        mine.post(pickle.dumps((other_rank.say, tmp_path / "said")))
        time.sleep(0.3)
    assert "belongs to somebody else" in str(other.end())
    assert not (tmp_path / "said").exists()
