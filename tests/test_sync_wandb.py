"""slurm/sync_wandb.sh sends each ended run once, and says what it could not send."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "slurm" / "sync_wandb.sh"


@pytest.fixture
def folder(tmp_path):
    """Run a: two segments, both ended. Run b: open. Run c: one segment, ended. A stand-in for wandb notes its words."""
    ended = ("20260101_000000-a", "20260102_000000-a", "20260103_000000-c")
    for name in (*ended, "20260101_000000-b"):
        segment = tmp_path / "runs" / "loggers" / name[-1] / "wandb" / f"offline-run-{name}"
        segment.mkdir(parents=True)
        if name in ended:
            (segment / "closed.json").write_text("{}")
    fake = tmp_path / "wandb"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\ncase "$2" in *-c) exit $(cat '
                    f"{tmp_path}/code);; esac\n")  # fmt: skip
    fake.chmod(0o755)
    (tmp_path / "code").write_text("0")
    return tmp_path


def sync(folder, *words):
    return subprocess.run(
        ["bash", SCRIPT, *words, folder / "runs"], env={"PATH": "/usr/bin:/bin", "WANDB_CLI": str(folder / "wandb")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def said(folder):
    """Runs that wandb was asked to send, by the end of their names."""
    file = folder / "said"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    assert all(line.startswith("sync ") for line in lines)
    return sorted(Path(line.split()[1]).name for line in lines)


def test_the_newest_segment_of_each_ended_run_is_sent_once(folder):
    first = sync(folder)
    assert first.returncode == 0, first.stderr
    assert said(folder) == ["offline-run-20260102_000000-a", "offline-run-20260103_000000-c"]
    assert "still open, left out" in first.stderr
    again = sync(folder)
    assert again.returncode == 0
    assert "0 to send, 2 sent before, 1 still open" in again.stdout
    assert said(folder) == []
    assert (folder / "runs" / "sync_wandb.log").read_text().count("sent ") == 2


def test_killed_runs_are_sent_when_asked_for(folder):
    assert sync(folder, "--all").returncode == 0
    assert "offline-run-20260101_000000-b" in said(folder)


def test_what_fails_is_named_and_sent_the_next_time(folder):
    (folder / "code").write_text("1")
    failed = sync(folder)
    assert failed.returncode == 1
    assert "failed" in failed.stderr
    assert "some were not sent" in failed.stderr
    said(folder)
    (folder / "code").write_text("0")
    assert sync(folder).returncode == 0
    assert said(folder) == ["offline-run-20260103_000000-c"]


def test_a_wrong_folder_is_told(tmp_path):
    done = subprocess.run(["bash", SCRIPT, tmp_path / "none"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "give the folder paths.runs" in done.stderr
