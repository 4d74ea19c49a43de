"""One piece of step=stats: the moments of the pixels of some cutouts, in this process or in another."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.datamodule.reading import read_ahead
from skyloom.store import Artifact
from skyloom.transform import Preprocess
from skyloom.transform.moments import Moments

NUMBERS = ("count", "blank", "mean", "squares", "low", "high")


@dataclass(frozen=True)
class Measuring:
    """What a process must know to measure any piece; it travels to worker processes.

    Attributes
    ----------
    key
        Tells one of them from another within a process.
    """

    key: str
    cutouts: Artifact
    image_roots: str | None
    preprocess: dict[str, Any] | None
    batch_size: int
    skip: bool


class Measurer:
    """The cutouts, and what scales them.

    Parameters
    ----------
    measuring
        What to do.
    """

    def __init__(self, measuring: Measuring) -> None:
        self.measuring = measuring
        self.index = CutoutIndex(measuring.cutouts, image_roots=measuring.image_roots)
        options = measuring.preprocess
        self.prepare = None if options is None else Preprocess.from_options(options, "preprocess")

    def write(self, folder: Path, rows: np.ndarray, advance: Callable[[int], None] = lambda number: None) -> None:
        """Write the piece of some rows: the moments of raw pixels, then of each scaled channel."""
        prepare = self.prepare
        channels = len(prepare.stretches) if prepare else 0  # channels that repeat another have its numbers
        totals = [Moments.none() for _ in range(1 + channels)]
        failed: list[str] = []
        for batch in read_ahead(self.index, rows, self.measuring.batch_size, skip=self.measuring.skip):
            failed += [message for _, message in batch.failed]
            if len(batch.places):
                parts = [batch.values]
                if prepare is not None:
                    scaled = prepare.scale(torch.from_numpy(batch.values).unsqueeze(1)).numpy()
                    parts += [scaled[:, channel] for channel in range(channels)]
                totals = [total.merged(Moments.of(part)) for total, part in zip(totals, parts, strict=True)]
            advance(len(batch.places) + len(batch.failed))
        folder.mkdir()
        np.save(folder / "numbers.npy", np.array([[float(getattr(t, name)) for name in NUMBERS] for t in totals]))
        np.save(folder / "bins.npy", np.stack([total.bins for total in totals]))
        np.save(folder / "failed.npy", np.array(len(failed)))
        (folder / "failed.txt").write_text("\n".join(dict.fromkeys(failed)))


def merge(pieces: list[Path]) -> tuple[list[Moments], int, list[str]]:
    """All pieces together, in their order; with the number of cutouts that failed, and why."""
    totals: list[Moments] = []
    failed, messages = 0, []
    for piece in pieces:
        numbers, bins = np.load(piece / "numbers.npy"), np.load(piece / "bins.npy")
        parts = [
            Moments(int(count), int(blank), float(mean), float(squares), float(low), float(high), counts)
            for (count, blank, mean, squares, low, high), counts in zip(numbers, bins, strict=True)
        ]
        totals = [a.merged(b) for a, b in zip(totals, parts, strict=True)] if totals else parts
        failed += int(np.load(piece / "failed.npy"))
        messages += (piece / "failed.txt").read_text().splitlines()
    return totals, failed, list(dict.fromkeys(messages))


_own: dict[str, Measurer] = {}  # of a worker process: the index is read once, not for each piece


def measure_piece(folder: Path, task: tuple[Measuring, np.ndarray]) -> None:
    """Write one piece in a worker process."""
    measuring, rows = task
    if measuring.key not in _own:
        _own.clear()
        _own[measuring.key] = Measurer(measuring)
    _own[measuring.key].write(folder, rows)
