"""Places features on a plane: by UMAP (umap-learn or cuML), fitted on a sample, or by principal components."""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from skyloom.cluster.rows import Rows
from skyloom.errors import ConfigError
from skyloom.progress import progress, say

Method = Literal["umap", "pca", "none"]
TRANSFORM_ROWS = 20_000  # rows placed at once


class UmapOptions(BaseModel):
    """Options of UMAP; names are those of umap-learn where it has them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_neighbors: Annotated[int, Field(ge=2)]
    min_dist: Annotated[float, Field(ge=0)]
    metric: str
    fit_rows: PositiveInt
    engine: Literal["auto", "umap-learn", "cuml"]

    def parameter(self) -> dict[str, Any]:
        """For the request of a report."""
        return self.model_dump()


@dataclass(frozen=True)
class Embedding:
    """A plane.

    Attributes
    ----------
    positions : ndarray
        int64 (M,), ascending: which rows were placed.
    xy : ndarray
        float32 (M, 2).
    method : str
        ``umap-learn``, ``cuml`` or ``pca``.
    fitted : int
        Rows that the plane was fitted on.
    notes : list of str
        What the reader must know: samples, options that had to be changed, warnings of the library.
    variance : list of float
        With ``pca``, the fractions of the variance along both axes.
    """

    positions: np.ndarray
    xy: np.ndarray
    method: str
    fitted: int
    notes: list[str]
    variance: list[float]


def engine_of(method: Method, options: UmapOptions) -> str:
    """Which library draws the plane.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    if method != "umap":
        return method
    engine = options.engine
    if engine == "auto":
        engine = "cuml" if _has("cuml") else "umap-learn"
    if not _has({"cuml": "cuml", "umap-learn": "umap"}[engine]):
        way = "pip install -e '.[analysis]'" if engine == "umap-learn" else "see docs.rapids.ai/install"
        extra = "the extra 'analysis'" if engine == "umap-learn" else "the package cuml and a GPU"
        raise ConfigError(f"embedding=umap needs {extra} ({way}); or take embedding=pca or embedding=none")
    return engine


def embed(
    x: Rows, covariance: np.ndarray, mean: np.ndarray, *, method: Method, options: UmapOptions, max_rows: int | None,
    rng: np.random.Generator, seed: int,
) -> Embedding:  # fmt: skip
    """Place rows on a plane.

    Parameters
    ----------
    x
        (N, D) features.
    covariance, mean
        (D, D) and (D,) of all of them, for ``pca``.
    method
        ``umap`` or ``pca``.
    options
        Of UMAP. With more than ``fit_rows`` rows the plane is fitted on that many at random and the others are placed
        on it.
    max_rows
        At most so many rows are placed, at random; None places all.
    rng
        Draws both samples.
    seed
        Of UMAP. With a seed umap-learn runs on one thread, so that the same request gives the same plane.
    """
    notes = []
    positions = np.arange(len(x))
    if max_rows is not None and len(x) > max_rows:
        positions = np.sort(rng.choice(len(x), max_rows, replace=False))
        notes.append(f"{max_rows:,} of the {len(x):,} cutouts are on the map, drawn at random (embedding_rows).")
    if method == "pca":
        return _pca(x, positions, covariance, mean, notes)
    engine = engine_of(method, options)
    fitted = np.arange(len(positions))
    if len(positions) > options.fit_rows:
        fitted = np.sort(rng.choice(len(positions), options.fit_rows, replace=False))
        notes.append(
            f"The map was fitted on {len(fitted):,} of them, drawn at random; the others were placed on it afterwards."
        )
    neighbours = min(options.n_neighbors, len(fitted) - 1)
    if neighbours < options.n_neighbors:
        notes.append(f"n_neighbors={options.n_neighbors} is more than there are others; {neighbours} were taken.")
    if neighbours < 2 or len(fitted) < 5:
        notes.append("There are too few cutouts for UMAP, so the map shows principal components instead.")
        return _pca(x, positions, covariance, mean, notes)
    model = _umap(engine, options, neighbours, seed)
    xy = np.empty((len(positions), 2), dtype=np.float32)
    with warnings.catch_warnings(record=True) as told, progress(len(positions), "umap", "cutouts") as bar:
        warnings.simplefilter("always")
        xy[fitted] = np.asarray(model.fit_transform(x.take(positions[fitted])), dtype=np.float32)
        bar.advance(len(fitted))
        rest = np.setdiff1d(np.arange(len(positions)), fitted)
        for start in range(0, len(rest), TRANSFORM_ROWS):
            part = rest[start : start + TRANSFORM_ROWS]
            xy[part] = np.asarray(model.transform(x.take(positions[part])), dtype=np.float32)
            bar.advance(len(part))
    for text in dict.fromkeys(" ".join(str(entry.message).split()) for entry in told if _matters(entry)):
        say(f"umap: {text}")
    lost = ~np.isfinite(xy).all(axis=1)
    if lost.any():
        notes.append(f"{int(lost.sum()):,} cutouts have no neighbour on the map and are not drawn on it.")
    return Embedding(positions, xy, engine, len(fitted), notes, [])


def _umap(engine: str, options: UmapOptions, neighbours: int, seed: int) -> Any:
    given = {"n_neighbors": neighbours, "min_dist": options.min_dist, "metric": options.metric, "random_state": seed}
    if engine == "cuml":
        from cuml.manifold import UMAP as GpuUmap

        return GpuUmap(n_components=2, **given)
    from umap import UMAP

    return UMAP(n_components=2, n_jobs=1, transform_seed=seed, **given)


def _matters(entry: warnings.WarningMessage) -> bool:
    return issubclass(entry.category, UserWarning | RuntimeWarning)


def _pca(x: Rows, positions: np.ndarray, covariance: np.ndarray, mean: np.ndarray, notes: list[str]) -> Embedding:
    axes, fractions = principal_axes(covariance)
    xy = np.concatenate([((x.take(part) - mean) @ axes.T).astype(np.float32) for part in _parts(positions)])
    return Embedding(positions, xy, "pca", len(x), notes, fractions)


def principal_axes(covariance: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """First two principal axes (2, D), each with its largest component positive, and their fractions of the variance.

    Features of one dimension get a second axis of zeros.
    """
    values, vectors = np.linalg.eigh(covariance)
    total = values.clip(min=0).sum()
    axes, fractions = np.zeros((2, len(covariance))), [0.0, 0.0]
    for i in range(min(2, len(covariance))):
        axis = vectors[:, -1 - i]
        axes[i] = axis * np.sign(axis[np.argmax(np.abs(axis))])
        fractions[i] = float(max(values[-1 - i], 0) / total) if total > 0 else 0.0
    return axes, fractions


def _parts(positions: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(positions), TRANSFORM_ROWS):
        yield positions[start : start + TRANSFORM_ROWS]


def _has(package: str) -> bool:
    try:
        return sys.modules.get(package) is not None or find_spec(package) is not None
    except ValueError:  # a module without a spec, or None in sys.modules
        return False
