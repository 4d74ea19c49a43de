"""One piece of candidates: some images through a detector, in this process or in a worker with its own device."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import current_process
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from skyloom.datamodule.candidate_table import BOX, COLUMNS, KEYPOINT
from skyloom.detector.candidates import Candidates
from skyloom.errors import InputError
from skyloom.product.candidate_masks import mask_counts
from skyloom.product.detection_inputs import DetectorChoice, ImageChoice
from skyloom.product.detection_source import Source
from skyloom.product.extraction import device_of

TABLE, COUNTS = "candidates.parquet", "counts.json"  # of a piece


@dataclass(frozen=True)
class Finding:
    """What a process must know to make any piece; it travels to worker processes.

    Attributes
    ----------
    key
        Tells one of them from another within a process.
    score
        Least score that is kept.
    blank_value
        What blank pixels become before the detector sees them; None leaves them to the detector.
    """

    key: str
    detector: DetectorChoice
    images: ImageChoice
    score: float
    blank_value: float | None
    precision: str
    batch_size: int
    device: str
    devices: int
    threads: int
    """of a process; 0 leaves it to the environment of a job"""


class Finder:
    """The detector and the images, on a device.

    Parameters
    ----------
    finding
        What to do.
    device
        Where.
    source
        The images, if they are open already.
    """

    def __init__(self, finding: Finding, device: torch.device, source: Source | None = None) -> None:
        self.finding, self.device = finding, device
        self.source = finding.images.open() if source is None else source
        self.detector = finding.detector.build(len(self.source.bands)).to(device)

    def write(self, folder: Path, start: int, stop: int, advance: Callable[[int], None] = lambda number: None) -> None:
        """Write the piece of the images ``start`` to before ``stop``: candidates, and the number of those left out."""
        frames, weak = [pl.DataFrame(schema=COLUMNS)], 0
        for rows, images in self._batches(start, stop):
            for row, found in zip(rows, self._candidates(images), strict=True):
                self._check(row, found)
                kept = found[found.scores >= self.finding.score]
                weak += len(found) - len(kept)
                frames.append(rows_of(row, kept))
            advance(len(rows))
        folder.mkdir()
        pl.concat(frames).write_parquet(folder / TABLE)
        (folder / COUNTS).write_text(json.dumps({"weak": weak}))

    @torch.inference_mode()
    def _candidates(self, images: Sequence[np.ndarray]) -> list[Candidates]:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.finding.precision)
        tensors: list[Tensor] = [torch.from_numpy(image).to(self.device, non_blocking=True) for image in images]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return [found.to("cpu") for found in self.detector.raw(tensors)]

    def _batches(self, start: int, stop: int) -> Iterator[tuple[range, list[np.ndarray]]]:
        """Rows and pixels of each batch; the next one is read while the caller works on this one."""
        size = self.finding.batch_size
        batches = [range(first, min(first + size, stop)) for first in range(start, stop, size)]
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(self._read, rows) for rows in batches[:1]]
            for rows, following in zip(batches, [*batches[1:], None], strict=True):
                images = ahead.pop().result()
                if following is not None:
                    ahead.append(reader.submit(self._read, following))
                yield rows, images

    def _read(self, rows: range) -> list[np.ndarray]:
        images = [np.ascontiguousarray(self.source.read(row), dtype=np.float32) for row in rows]
        blank = self.finding.blank_value
        if blank is not None:
            images = [np.nan_to_num(image, nan=blank, posinf=blank, neginf=blank) for image in images]
        return images

    def _check(self, row: int, found: Candidates) -> None:
        if not (torch.isfinite(found.scores).all() and torch.isfinite(found.boxes).all()):
            name = self.source.images["name"][row]
            raise InputError(
                f"image {name} (row {row}): the detector gives scores or boxes that are not finite; try "
                "precision=fp32, and look at the image"
            )


def rows_of(row: int, found: Candidates) -> pl.DataFrame:
    """Rows of ``candidates.parquet`` of the candidates of one image, on the CPU, in their order."""
    boxes = found.boxes.float().numpy()
    points = np.full((len(found), 2), np.nan) if found.centroids is None else found.centroids.float().numpy()
    return pl.DataFrame(
        {
            "image_row": np.full(len(found), row),
            **{name: boxes[:, place] for place, name in enumerate(BOX)},
            "score": found.scores.float().numpy(),
            "class": found.labels.numpy(),
            "rle": mask_counts(found),
            **{name: points[:, place] for place, name in enumerate(KEYPOINT)},
        },
        schema=COLUMNS,
    ).with_columns(pl.col(KEYPOINT).fill_nan(None))


_own: dict[str, Finder] = {}  # of a worker process: the detector is built once, not for each piece


def make_piece(folder: Path, task: tuple[Finding, int, int]) -> None:
    """Make one piece in a worker process; the device follows from the number of the process."""
    finding, start, stop = task
    if finding.key not in _own:
        _own.clear()
        rank = (current_process()._identity or (1,))[0] % finding.devices  # the workers of a pool count on
        if finding.threads:
            torch.set_num_threads(finding.threads)
        _own[finding.key] = Finder(finding, device_of(finding.device, finding.devices, rank))
    _own[finding.key].write(folder, start, stop)
