"""Sums over the rows of a feature matrix in one pass, and the spectra that follow from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from skyloom.errors import InputError

BLOCK_ROWS = 8192  # rows added at once: 25 MB in float64 at 384 dimensions


@dataclass(frozen=True)
class Spectrum:
    """Spectra of a feature matrix Z of shape (N, D), from the largest value down.

    Attributes
    ----------
    count, dimensions : int
        N and D.
    singular_values : ndarray
        float64, shape (min(N, D),): of Z itself, not centred.
    variances : ndarray
        float64, shape (min(N, D),): eigenvalues of the covariance matrix, hence centred.
    """

    count: int
    dimensions: int
    singular_values: np.ndarray
    variances: np.ndarray


class Moments:
    """First and second moments of rows that are seen once, block by block; memory 8 D² bytes, whatever N.

    The sums are float64 and relative to the mean of the first block, so that a large common offset costs no digits.

    Attributes
    ----------
    count, dimensions : int
        Rows seen, and their length D (0 before the first).
    zero_rows : int
        Rows of nothing but zeros; they have no direction.
    minimum, maximum : ndarray
        (D,) over all rows.
    zeros : ndarray
        int64, (D,): how often each dimension is exactly 0.
    """

    def __init__(self) -> None:
        self.count = self.dimensions = self.zero_rows = 0
        self.minimum = self.maximum = self.zeros = np.empty(0)
        self._shift = self._sum = self._gram = self._unit_shift = self._unit_sum = self._unit_squares = np.empty(0)

    def update(self, rows: Any) -> None:
        """Add rows (M, D), numpy or torch, of any floating type.

        Raises
        ------
        InputError
            Rows that are not finite or of another length.
        """
        rows = as_array(rows)
        if self.dimensions and rows.shape[1] != self.dimensions:
            raise InputError(f"rows of {rows.shape[1]} dimensions after rows of {self.dimensions}; give one set")
        for start in range(0, len(rows), BLOCK_ROWS):
            self._add(rows[start : start + BLOCK_ROWS].astype(np.float64))

    def _add(self, block: np.ndarray) -> None:
        if not np.isfinite(block).all():
            raise InputError(
                f"features must be finite; row {self.count + _first_bad(block)} is not; extract them again"
            )
        unit = unit_rows(block)
        if not self.count:
            self.dimensions = block.shape[1]
            self._shift, self._unit_shift = block.mean(axis=0), unit.mean(axis=0)
            self._sum, self._unit_sum, self._unit_squares = np.zeros((3, self.dimensions))
            self._gram = np.zeros((self.dimensions, self.dimensions))
            self.minimum, self.maximum = np.full((2, self.dimensions), [[np.inf], [-np.inf]])
            self.zeros = np.zeros(self.dimensions, dtype=np.int64)
        self.count += len(block)
        self.zero_rows += int((~block.any(axis=1)).sum())
        self.minimum = np.minimum(self.minimum, block.min(axis=0))
        self.maximum = np.maximum(self.maximum, block.max(axis=0))
        self.zeros += (block == 0).sum(axis=0)
        moved = block - self._shift
        self._sum += moved.sum(axis=0)
        self._gram += moved.T @ moved
        unit -= self._unit_shift
        self._unit_sum += unit.sum(axis=0)
        self._unit_squares += np.einsum("ij,ij->j", unit, unit)

    @property
    def mean(self) -> np.ndarray:
        """Mean of each dimension, (D,)."""
        return self._shift + self._sum / self.count

    @property
    def std(self) -> np.ndarray:
        """Sample standard deviation of each dimension, (D,)."""
        return np.sqrt(np.diag(self.covariance()).clip(min=0))

    @property
    def unit_std(self) -> np.ndarray:
        """Sample standard deviation of each dimension of the rows scaled to unit length, (D,)."""
        squares = self._unit_squares - self._unit_sum**2 / self.count
        return np.sqrt(squares.clip(min=0) / max(self.count - 1, 1))

    def covariance(self) -> np.ndarray:
        """Sample covariance matrix, (D, D)."""
        return (self._gram - np.outer(self._sum, self._sum) / self.count) / max(self.count - 1, 1)

    def gram(self) -> np.ndarray:
        """ZᵀZ of the rows as they are, not centred, (D, D)."""
        cross = np.outer(self._sum, self._shift)
        return self._gram + cross + cross.T + self.count * np.outer(self._shift, self._shift)

    def spectrum(self) -> Spectrum:
        """Singular values and variances; below about 1e-7 of the largest, singular values are given as 0."""
        kept = min(self.count, self.dimensions)
        values = np.sqrt(_eigenvalues(self.gram())[:kept])
        return Spectrum(self.count, self.dimensions, values, _eigenvalues(self.covariance())[:kept])


def moments(blocks: Iterable[Any]) -> Moments:
    """Moments of blocks of rows, each (M, D), read once; at least one row is needed."""
    found = Moments()
    for block in blocks:
        found.update(block)
    if not found.count:
        raise InputError("there is no row of features to measure")
    return found


def spectrum(z: Any) -> Spectrum:
    """Spectra of a matrix (N, D) in memory, numpy or torch, by its smaller Gram matrix in float64."""
    rows = as_array(z)
    if len(rows) >= rows.shape[1]:
        return moments([rows]).spectrum()
    rows = rows.astype(np.float64)
    if not np.isfinite(rows).all():
        raise InputError(f"features must be finite; row {_first_bad(rows)} is not")
    centred = rows - rows.mean(axis=0)
    variances = _eigenvalues(centred @ centred.T) / max(len(rows) - 1, 1)
    return Spectrum(len(rows), rows.shape[1], np.sqrt(_eigenvalues(rows @ rows.T)), variances)


def as_array(z: Any) -> np.ndarray:
    """A matrix (N, D) of at least one row as numpy, from numpy or torch on any device."""
    array = np.asarray(z.detach().cpu().double() if hasattr(z, "detach") else z)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"features must be a matrix (N, D) of at least one row, found shape {array.shape}")
    return array


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (N, D) scaled to unit length; a row of zeros stays zero, as in torch's ``normalize``."""
    return rows / np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows)), 1e-12)[:, None]


def _eigenvalues(matrix: np.ndarray) -> np.ndarray:
    """Eigenvalues of a positive semi-definite matrix, descending; what is below its rounding error is 0."""
    values = np.linalg.eigvalsh(matrix)[::-1].clip(min=0)
    values[values <= values[0] * len(values) * np.finfo(np.float64).eps] = 0
    return values


def _first_bad(block: np.ndarray) -> int:
    return int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
