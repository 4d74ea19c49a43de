"""Progress: quiet lines in a log file, a bar with rate and time left on a terminal."""

import os
import pty
import subprocess
import sys

import pytest

from skyloom import progress as module
from skyloom.progress import progress, track


def test_a_log_file_gets_a_line_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 40.0, 50.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress(40, "cutouts", "images") as bar:
        for _ in range(4):
            bar.advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["cutouts: 30/40 images (75 %), 0.75 images/s, 0:13 left"]


def test_unknown_totals_and_short_work(capsys, monkeypatch):
    clock = iter([0.0, 3700.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress(None, "reading", "rows") as bar:
        bar.advance(37)
    assert capsys.readouterr().err == "reading: 37 rows in 1:01:40, 0.01 rows/s\n"
    monkeypatch.undo()
    assert list(track(range(3), "short")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_with_rate_and_time_left():
    code = (
        "import time\nfrom skyloom.progress import track\n"
        "for i in track(range(5), 'cutouts', unit='images'): time.sleep(0.15)\nprint('the-id')"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=slave, env=environment, check=True
    )
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:
        pass  # Linux reports the end of a pseudo-terminal as an error
    finally:
        os.close(master)
    assert done.stdout == b"the-id\n", "stdout carries the result alone"
    text = shown.decode()
    assert "cutouts" in text
    assert "5/5" in text
    assert "images/s" in text
    assert "0:00:0" in text, "time left"
