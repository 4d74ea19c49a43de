"""What a user sees during a fit goes to stderr, and stdout stays free for the id."""

import re
import sys

from lightning.pytorch.callbacks import RichProgressBar

from make.tiny_fit import request
from skyloom.trainer import callbacks
from skyloom.trainer.train import train


def test_without_a_terminal_a_line_now_and_then(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(callbacks, "QUIET_INTERVAL_S", 0.0)
    train(**request(tmp_path / "store", trainer={"max_epochs": 2}))
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("training: ")]
    assert len(lines) == 10
    pattern = r"training: epoch 1/2, batch 1/5, loss [\d.]+, [\d.e+]+ images/s, 0:\d\d:\d\d left"
    assert re.fullmatch(pattern, lines[0]), lines[0]
    assert lines[-1].endswith("0:00:00 left")


def test_a_short_fit_says_nothing_of_its_progress(tmp_path, capfd):
    given = request(tmp_path / "store", trainer={"max_epochs": 1})
    capfd.readouterr()  # what was said of the images
    train(**given)
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("model ")
    assert " was made in " in err


def test_on_a_terminal_a_bar_on_stderr(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert any(isinstance(callback, RichProgressBar) for callback in callbacks.progress_callbacks([]))
    train(**request(tmp_path / "store", trainer={"max_epochs": 1}))
    out, err = capfd.readouterr()
    assert out == ""
    assert "Epoch" in err
    assert "training: " not in err
