"""Who multiplies rows with centroids: numpy, torch or faiss, on GPUs where there are some; all find the same."""

import importlib.util
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from skyloom.cluster.rows import Rows
from skyloom.cluster.tiles import ROUNDING, exact_nearest
from skyloom.errors import ConfigError

Backend = Literal["auto", "numpy", "torch", "faiss"]
BACKENDS = ("auto", "numpy", "torch", "faiss")
_GPU_VALUES = 2**28  # scores on a GPU at a time: 1 GB
_CPU_ROWS = 1024  # of one product on a CPU
_TRIAL_ROWS = 65_536  # on which ``auto`` times who is there
_EXACT_VALUES = 2**24  # bounds what deciding near-ties needs to 128 MB


class Search(Protocol):
    """Finds the nearest centroid of rows."""

    def nearest(self, first: int, block: np.ndarray) -> np.ndarray:
        """Find the nearest centroid of rows (B, D), the first of which is row ``first``: (B,) int32."""


class NumpySearch:
    """By tiles, which spare what a guide excludes.

    Parameters
    ----------
    rows
        Whose blocks are given.
    centroids
        (K, D) float32.
    """

    def __init__(self, rows: Rows, centroids: np.ndarray) -> None:
        self._rows, self._centroids = rows, centroids

    def nearest(self, first: int, block: np.ndarray) -> np.ndarray:
        """See :class:`Search`."""
        return self._rows.tiles(first, block).nearest(self._centroids)


class TorchSearch:
    """By torch: on all CUDA devices, each with a copy of the centroids, or on the CPU.

    Parameters
    ----------
    rows, centroids
        See :class:`NumpySearch`.
    devices
        Names of devices; None takes all CUDA devices or, if there is none, the CPU.
    """

    def __init__(self, rows: Rows, centroids: np.ndarray, devices: list[str] | None = None) -> None:
        import torch  # only here: clustering on the CPU starts without it

        self._torch, self._shift, self._centred = torch, rows.shift, centroids - rows.shift
        if devices is None:
            devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
        norms = np.einsum("ij,ij->i", self._centred, self._centred, dtype=np.float64).astype(np.float32)
        self._most = float(norms.max())
        self._copies = [
            tuple(torch.from_numpy(part).to(device) for part in (-2 * self._centred.T, norms, self._shift))
            for device in devices
        ]
        self._rows = max(1, _GPU_VALUES // len(centroids)) if devices[0] != "cpu" else _CPU_ROWS

    def nearest(self, first: int, block: np.ndarray) -> np.ndarray:
        """See :class:`Search`."""
        parts = [block[start : start + self._rows] for start in range(0, len(block), self._rows)]
        with ThreadPoolExecutor(len(self._copies)) as pool:  # one thread per device
            share = [pool.submit(self._of, copy, parts[i :: len(self._copies)]) for i, copy in enumerate(self._copies)]
            found = [future.result() for future in share]
        return np.concatenate([found[i % len(found)][i // len(found)] for i in range(len(parts))])

    def _of(self, copy: Any, parts: list[np.ndarray]) -> list[np.ndarray]:
        factors, norms, shift = copy
        return [self._one(part, factors, norms, shift) for part in parts]

    def _one(self, part: np.ndarray, factors: Any, norms: Any, shift: Any) -> np.ndarray:
        rows = self._torch.from_numpy(part).to(factors.device) - shift
        scores = self._torch.addmm(norms, rows, factors)
        least, found = scores.min(dim=1)
        doubt = ROUNDING * (rows.square().sum(1) + self._most)
        unsure = ((scores <= (least + doubt)[:, None]).sum(1) > 1).nonzero()[:, 0].cpu().numpy()
        index = found.to(self._torch.int32).cpu().numpy()
        return _decided(index, unsure, part, self._shift, self._centred)


class FaissSearch:
    """By the flat index of faiss: on all GPUs when faiss-gpu is installed, else on the CPU.

    Parameters
    ----------
    rows, centroids
        See :class:`NumpySearch`.
    """

    def __init__(self, rows: Rows, centroids: np.ndarray) -> None:
        import faiss

        self._shift, self._centred = rows.shift, centroids - rows.shift
        index = faiss.IndexFlatL2(centroids.shape[1])
        self._index = faiss.index_cpu_to_all_gpus(index) if getattr(faiss, "get_num_gpus", int)() else index
        self._index.add(self._centred)
        self._most = float(np.einsum("ij,ij->i", self._centred, self._centred).max())

    def nearest(self, first: int, block: np.ndarray) -> np.ndarray:
        """See :class:`Search`."""
        rows = block - self._shift
        squared, index = self._index.search(rows, min(2, len(self._centred)))
        found = index[:, 0].astype(np.int32)
        doubt = ROUNDING * (np.einsum("ij,ij->i", rows, rows) + self._most)
        unsure = np.flatnonzero(squared[:, -1] - squared[:, 0] <= doubt) if squared.shape[1] > 1 else found[:0]
        return _decided(found, unsure, block, self._shift, self._centred)


def _decided(
    index: np.ndarray, unsure: np.ndarray, block: np.ndarray, shift: np.ndarray, centred: np.ndarray
) -> np.ndarray:
    """Let float64 decide for the rows ``unsure`` of a block."""
    step = max(1, _EXACT_VALUES // centred.size)
    for start in range(0, len(unsure), step):
        some = unsure[start : start + step]
        index[some] = exact_nearest(block[some] - shift, centred)
    return index


def make_search(backend: Backend, rows: Rows, centroids: np.ndarray) -> Search:
    """Make the search of a backend other than ``auto`` for these centroids (K, D).

    Raises
    ------
    ConfigError
        ``faiss`` is not installed.
    """
    if backend == "torch":
        return TorchSearch(rows, centroids)
    if backend == "faiss":
        if importlib.util.find_spec("faiss") is None:
            raise ConfigError("backend=faiss: faiss is not installed; uv pip install faiss-cpu (or faiss-gpu-cu12)")
        return FaissSearch(rows, centroids)
    return NumpySearch(rows, centroids)


def fastest(rows: Rows, clusters: int) -> Backend:
    """Choose who is fastest here for so many centroids: numpy without a GPU, else what a trial on some rows tells.

    All find the same, so that the choice is one of time alone.
    """
    if not has_gpu():
        return "numpy"
    block = rows.read(0, min(len(rows), _TRIAL_ROWS))
    centroids = block[np.linspace(0, len(block) - 1, clusters).astype(np.int64)]  # repeated, where there are few rows
    names: list[Backend] = ["torch"]
    if importlib.util.find_spec("faiss") is not None:
        names.append("faiss")
    if rows.guide is not None:
        names.append("numpy")
    took = {name: _seconds(make_search(name, rows, centroids), block) for name in names}
    return min(took, key=took.__getitem__)


def has_gpu() -> bool:
    """Whether torch sees a CUDA device; torch is only imported where the system knows one."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import torch

    return bool(torch.cuda.device_count())


def _seconds(search: Search, block: np.ndarray) -> float:
    run = partial(search.nearest, 0, block)
    run()  # once for memory and kernels
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
