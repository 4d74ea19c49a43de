"""Workers come from a server that has imported the data module already."""

import subprocess
import sys

from skyloom.datamodule.workers import reading_context

LOADED = "'skyloom.progress' in __import__('sys').modules"  # stands for the module of a data set
PROGRAM = f"""
from skyloom.datamodule.workers import reading_context
with reading_context(1, "skyloom.progress").Pool(1) as pool:
    print({LOADED}, pool.apply(eval, ({LOADED!r},)))
"""


def test_no_workers_need_no_server():
    assert reading_context(0, "skyloom.progress") is None


def test_a_worker_finds_the_module_imported():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "True"], "imported by the server alone, before there was a worker"
