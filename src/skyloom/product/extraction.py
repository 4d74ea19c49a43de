"""One piece of features: rows of an index through a backbone, in this process or in a worker with its own device."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyloom.backbone import LayerReader
from skyloom.backbone.spec import BackboneSpec, Weights
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.datamodule.reading import read_ahead, selected_rows
from skyloom.errors import ConfigError, InputError
from skyloom.store import Artifact
from skyloom.transform import Preprocess

VALUES, ROWS, FAILED = "features.npy", "rows.npy", "failed.json"  # of a piece


@dataclass(frozen=True)
class Extraction:
    """What a process must know to make any piece; it travels to worker processes.

    Attributes
    ----------
    key
        Tells one extraction from another within a process.
    """

    key: str
    cutouts: Artifact
    selection: Artifact | None
    weights: Weights
    backbone: BackboneSpec
    preprocess: dict[str, Any]
    layer: str
    precision: str
    seed: int
    skip: bool
    batch_size: int
    device: str
    devices: int
    threads: int
    """of a process; 0 leaves it to the environment of a job"""
    image_roots: str | None


class Extractor:
    """The network and the cutouts of an extraction, on a device.

    Parameters
    ----------
    extraction
        What to do.
    device
        Where.
    """

    def __init__(self, extraction: Extraction, device: torch.device) -> None:
        self.extraction, self.device = extraction, device
        self.index = CutoutIndex(extraction.cutouts, image_roots=extraction.image_roots)
        self.rows = selected_rows(self.index, extraction.selection)
        if not extraction.skip:
            self.index.check_images(self.rows)  # before seconds are spent on the network
        self.network = extraction.weights.build(extraction.backbone, extraction.seed).eval()
        self.prepare = Preprocess.from_options(extraction.preprocess).to(device)
        self.reader = LayerReader(self.network, extraction.layer).to(device).eval()
        if extraction.layer != "pooled":
            self.reader.measure(self.prepare.image_size_px or int(self.index.sizes[0]))

    def write(self, folder: Path, start: int, stop: int, advance: Callable[[int], None] = lambda number: None) -> None:
        """Write the piece of the rows from ``start`` to ``stop``: vectors, row numbers, and what could not be read."""
        rows = self.rows[start:stop]
        values, failed = self.vectors(rows, advance)
        folder.mkdir()
        lost = [place for place, _ in failed]
        np.save(folder / VALUES, np.delete(values, lost, axis=0) if lost else values)
        np.save(folder / ROWS, np.delete(rows, lost))
        if failed:
            told = [{"row": int(rows[place]), "error": message} for place, message in sorted(failed)]
            (folder / FAILED).write_text(json.dumps(told))

    @torch.inference_mode()
    def vectors(
        self, rows: np.ndarray, advance: Callable[[int], None] = lambda number: None
    ) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Vectors of rows, float32 (M, D), and place and message of those that could not be read (NaN).

        Raises
        ------
        InputError
            An image cannot be read and shall not be skipped, or a vector is not finite.
        """
        options = self.extraction
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.precision)
        values = np.full((len(rows), self.reader.num_features), np.nan, dtype=np.float32)
        failed = []
        for batch in read_ahead(self.index, rows, options.batch_size, skip=options.skip):
            failed += batch.failed
            if len(batch.places):
                raw = torch.from_numpy(batch.values).unsqueeze(1).to(self.device, non_blocking=True)
                images = self.prepare(raw)
                with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                    found = self.reader(images).cpu().numpy()
                finite = np.isfinite(found).all(axis=1)
                if not finite.all():
                    ids = self.index.cutout_id[rows[batch.places[~finite]]][:5].tolist()
                    raise InputError(
                        f"{(~finite).sum()} features are not finite (cutout ids {ids} …); check these cutouts with "
                        "'skyloom show', or try precision=fp32"
                    )
                values[batch.places] = found
            advance(len(batch.places) + len(batch.failed))
        return values, failed


def device_of(device: str, devices: int, rank: int = 0) -> torch.device:
    """Return the device of one of several processes.

    Raises
    ------
    ConfigError
        The device does not exist, or there are not so many of it.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={device}: expected auto, cpu, cuda, cuda:1 or mps") from error
    if found.type == "cuda":
        number = torch.cuda.device_count()
        if (found.index or 0) >= number or devices > number:
            raise ConfigError(f"device={device}, devices={devices}: torch sees {number} GPU(s) here")
    if devices > 1 and (found.index is not None or found.type not in ("cpu", "cuda")):
        raise ConfigError(f"devices={devices} takes the first GPUs or the CPU; give device=auto, cuda or cpu with it")
    return torch.device("cuda", rank) if found.type == "cuda" and devices > 1 else found


_own: dict[str, Extractor] = {}  # of a worker process: the network is built once, not for each piece


def make_piece(folder: Path, task: tuple[Extraction, int, int]) -> None:
    """Make one piece in a worker process; the device follows from the number of the process."""
    extraction, start, stop = task
    if extraction.key not in _own:
        _own.clear()
        rank = (current_process()._identity or (1,))[0] % extraction.devices  # the workers of a pool count on
        if extraction.threads:
            torch.set_num_threads(extraction.threads)
        _own[extraction.key] = Extractor(extraction, device_of(extraction.device, extraction.devices, rank))
    _own[extraction.key].write(folder, start, stop)
