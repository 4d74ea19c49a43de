"""The annotations of a data set as plain arrays, which processes that read ahead share without copying."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from skyloom.datamodule.coco_dataset import BOX, Dataset
from skyloom.sky.mask.rle import decode


class JointObjects:
    """Objects by the number of their image.

    Tables of polars must not be worked on in forked processes (its threads do not survive a fork), and a list of
    strings is copied page by page where its reference counts are touched. Arrays have neither trouble.

    Parameters
    ----------
    dataset
        Images and annotations.
    truth
        Columns of the annotations to keep.
    """

    def __init__(self, dataset: Dataset, truth: Sequence[str]) -> None:
        table = dataset.annotations
        self._first = dataset.first
        self._shapes = dataset.images.select("height_px", "width_px").to_numpy()
        self._boxes = table.select(pl.col(BOX).cast(pl.Float64)).to_numpy()
        self._boxes = np.concatenate([self._boxes[:, :2], self._boxes[:, :2] + self._boxes[:, 2:]], axis=1)
        self._labels = table["category_id"].cast(pl.Int64).to_numpy()
        points = table.select(pl.col("keypoint_x_px", "keypoint_y_px").cast(pl.Float64).fill_null(np.nan))
        self._centroids = points.to_numpy()
        self._rle = _Strings(table["rle"])
        self._truth = {name: _column(table[name]) for name in truth}

    def shape(self, number: int) -> tuple[int, int]:
        """Height and width of the image in whose pixels its objects are given."""
        height, width = self._shapes[number]
        return int(height), int(width)

    def boxes(self, number: int) -> np.ndarray:
        """float64 (n, 4): x0, y0, x1, y1; pixel i spans i to i + 1."""
        return self._boxes[self._of(number)]

    def labels(self, number: int) -> np.ndarray:
        """int64 (n,)."""
        return self._labels[self._of(number)]

    def centroids(self, number: int) -> np.ndarray:
        """float64 (n, 2): x, y, 0 at the centre of the first pixel; NaN where there is none."""
        return self._centroids[self._of(number)]

    def masks(self, number: int) -> np.ndarray:
        """Bool (n, h, w)."""
        own, shape = self._of(number), self.shape(number)
        made = np.zeros((own.stop - own.start, *shape), bool)
        for out, i in zip(made, range(own.start, own.stop), strict=True):
            out[:] = decode(self._rle[i], shape)
        return made

    def truth(self, number: int, kept: np.ndarray) -> dict[str, Any]:
        """By column a tensor (n,), or a list of strings."""
        own = self._of(number)
        rows = np.arange(own.start, own.stop)[kept]
        return {
            name: [values[i] for i in rows] if isinstance(values, _Strings) else torch.from_numpy(values[rows])
            for name, values in self._truth.items()
        }

    def _of(self, number: int) -> slice:
        return slice(int(self._first[number]), int(self._first[number + 1]))


class _Strings:
    """A column of strings as one piece of memory; null is the empty string."""

    def __init__(self, values: pl.Series) -> None:
        filled = values.cast(pl.String).fill_null("")
        self._text = np.frombuffer("".join(filled.to_list()).encode(), np.uint8)
        lengths = filled.str.len_bytes().to_numpy().astype(np.int64)
        self._ends = np.concatenate([[0], np.cumsum(lengths)])

    def __getitem__(self, i: int) -> str:
        return self._text[self._ends[i] : self._ends[i + 1]].tobytes().decode()


def _column(values: pl.Series) -> "np.ndarray | _Strings":
    """Whole numbers without gaps as int64, other numbers as float64 with NaN for null, anything else as strings."""
    if values.dtype.is_integer() and not values.null_count():
        return values.cast(pl.Int64).to_numpy()
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        return values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return _Strings(values)
