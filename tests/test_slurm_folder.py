"""slurm/: the scripts are shell, their commands compose, and the cost table is the one that the rates give."""

import re
import runpy
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "slurm"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.s*")), ids=lambda p: p.name)
def test_scripts_are_shell_without_anybodys_machine(path):
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    text = path.read_text()
    assert text.startswith("#!/")
    assert not re.search(r"(/home/|/mnt/|/scratch/|[a-z0-9]@[a-z][\w-]*\.[a-z])", text)
    if path.suffix == ".sbatch":
        assert "--requeue" in text
        assert "set -euo pipefail" in text


def test_tables_of_the_guide_are_those_that_the_measured_rates_give():
    cost = runpy.run_path(str(FOLDER / "cost.py"))
    page = (FOLDER / "README.md").read_text()
    for name in ("lotss", "roman"):
        assert cost["table"](cost[name]()) in page, f"run python slurm/cost.py and put the table {name} into the guide"


def test_a_rate_that_has_left_the_page_is_told():
    cost = runpy.run_path(str(FOLDER / "cost.py"))
    with pytest.raises(SystemExit, match="has the line changed"):
        cost["Rate"]("Matching", r"nothing like it ([0-9]+)").numbers()
