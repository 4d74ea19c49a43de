"""Ranks of a fit that start within milliseconds: forked from a server that has imported what all of them need."""

import pytest

from make.killed import server
from skyloom.trainer.distributed import processes

IMPORTED = ["skyloom.trainer.train", "skyloom.trainer.detect", "skyloom.task.byol", "skyloom.task.detect",
            "skyloom.datamodule.cutouts", "skyloom.datamodule.roman_lsst", "skyloom.detector.mask_rcnn",
            "torch._dynamo"]  # fmt: skip


@pytest.fixture
def warm_ranks(monkeypatch):
    """For tests of what ranks do; that a fit starts them by itself is shown without this in test_processes.py."""
    context = server(IMPORTED)
    monkeypatch.setattr(processes, "get_context", lambda _: context)
