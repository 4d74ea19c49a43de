"""What all tests share: one fork server with everything imported, and an order in which long files come first."""

import multiprocessing
from multiprocessing import forkserver
from pathlib import Path

from make.forked_script import IMPORTED

TESTS = Path(__file__).parent
# With --dist=loadfile --no-loadscope-reorder each worker takes the next file: one that lasts minutes must not be last.
LONG = ["test_readme.py", "test_kills.py", "trainer/test_detect_processes.py", "trainer/distributed/test_sharded.py",
        "trainer/distributed/test_processes.py", "trainer/test_detect.py", "trainer/test_train.py",
        "datamodule/test_roman_lsst.py", "test_sweeps.py", "run/test_several.py", "report/test_features.py",
        "test_docs.py", "test_conf.py", "test_joint_chain.py"]  # fmt: skip

_preload = forkserver.set_forkserver_preload


def _preload_all(modules: list[str]) -> None:
    """The server imports once, before it starts; without this the first test to start one would decide for all."""
    _preload([*dict.fromkeys([*IMPORTED, "skyloom.datamodule.roman_lsst", *modules])])


forkserver.set_forkserver_preload = _preload_all
multiprocessing.set_forkserver_preload([])


def pytest_collection_modifyitems(items):
    places = {TESTS / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))
