"""The README's commands, run as they stand, twice; and its numbers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from make.forked_script import python, running
from make.survey import sky, write_image
from skyloom.store import Store

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def bash(script: str, tmp_path: Path, real: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    places = [*([first] if first else []), Path(sys.executable).parent, os.environ["PATH"]]
    environment = {
        **os.environ,
        "PATH": ":".join(map(str, places)),
        "SKYLOOM_STORE": str(tmp_path / "store"),
        "SKYLOOM_RUNS": str(tmp_path / "runs"),
        "SKYLOOM_REAL_DATA": real,
    }
    names = re.findall(r"^(\w+)=\$\(", script, re.MULTILINE)
    echo = "".join(f"echo {name} ${name}\n" for name in names)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script + echo],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_the_chain_of_the_readme_runs_and_does_nothing_the_second_time(tmp_path):
    chain = next(block for block in BLOCKS if "step=subsample" in block)
    real = os.environ.get("SKYLOOM_REAL_DATA")
    if not real:  # the commands are run in any case; on images of our own where no real ones are at hand
        for i in range(6):
            write_image(tmp_path / "real" / "radio" / f"field{i}.fits", sky(700, 700, seed=i, sources=60))
        real = str(tmp_path / "real")
    first = bash(chain, tmp_path, real)
    assert first.returncode == 0, first.stderr
    ids = dict(line.split() for line in first.stdout.splitlines() if " " in line)
    assert set(ids) == {"cut", "feat", "clus", "sel", "model"}
    store = Store(tmp_path / "store")
    assert len(list(store)) == 6
    assert all(not artifact.verify() for artifact in store)
    report = store.find("report")[0]
    assert {a.id for a in store.ancestors(report)} == set(ids.values())
    assert "<html" in report.file("report.html").read_text()[:500]
    if os.environ.get("SKYLOOM_REAL_DATA"):
        assert store.open(ids["cut"]).counts["kept"] == 961 + 196 + 196 + 195
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file() and ".lock" not in p.name}
    with python(running()) as warm:  # the start of the scripts was the first run's subject
        second = bash(chain, tmp_path, real, warm)
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert second.stderr.count("is there already, nothing to do") == 6
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file() and ".lock" not in p.name}
    assert after == before


def test_the_words_of_the_readme_exist_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for block in BLOCKS:
        for word in re.findall(r"^make (\w+)", block, re.MULTILINE):
            assert re.search(rf"^{word}:", makefile, re.MULTILINE), word


def test_the_table_of_verbs_names_every_choice_and_is_that_of_the_site():
    home = (ROOT / "docs" / "index.md").read_text()
    rows = re.findall(r"^\| `\w+\.py .*\|$", README, re.MULTILINE)
    assert len(rows) == 4
    assert rows == [
        row.replace("](", "](docs/") for row in re.findall(r"^\| `\w+\.py \w+=….*\|$", home, re.M) if "](" in row
    ]
    for group in ("step", "product", "task", "detector", "report"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert re.search(rf"[\[ ]{path.stem}[\], ]", "".join(rows)), f"{group}={path.stem} is not in the README"


def test_ci_calls_the_same_words_as_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make check" in script
    assert "make test" in script


@pytest.mark.timeout(900)
def test_the_demo_gives_the_ids_and_numbers_of_the_readme(tmp_path):
    """The demo as `make demo` runs it; times differ, everything else must be what the README shows."""
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900,
        env={key: value for key, value in os.environ.items() if not key.startswith("SKYLOOM_")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    def lines(text: str) -> list[str]:
        return [re.sub(r"^ *[\d.]+ s", "", line) for line in text.splitlines() if re.match(r" *[\d.]+ s  ", line)]

    assert [line for line in lines(shown) if "loss" not in line] == [
        line for line in lines(done.stdout) if "loss" not in line
    ]
    loss = [float(re.search(r"loss ([\d.]+)", text)[1]) for text in (shown, done.stdout)]
    assert loss[1] == pytest.approx(loss[0], abs=0.3), "the loss may differ between processors, not by much"
    report = Path(re.search(r"Look at  (.*)", done.stdout)[1])
    assert report.is_file()
