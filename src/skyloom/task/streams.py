"""Random streams of a task: made from whole numbers, and kept apart from the global ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def step_seed(*numbers: int) -> int:
    """Mix whole numbers (run seed, step, rank, ...) into one 63-bit seed without visible pattern."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def stream(device: torch.device, seed: int) -> Iterator[None]:
    """Start the global random streams of the CPU and of ``device`` from ``seed``, and put them back afterwards."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield
