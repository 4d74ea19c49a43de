"""Reads the pixels behind a cutout index, packed or as windows of images that may have moved, never have changed."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.datamodule.image_files import check_unchanged, find_image, root_folders, rows_of
from skyloom.datamodule.packed_pixels import open_packed
from skyloom.errors import InputError
from skyloom.sky.files.image import Image, open_image
from skyloom.store import Artifact

OPEN_IMAGES = 64  # memory-mapped files kept open at once, far below the usual limit of 1,024


class CutoutIndex:
    """The rows of a ``cutouts`` artifact and their pixels.

    Parameters
    ----------
    artifact
        Artifact of kind ``cutouts``.
    image_roots
        Folders in which images are looked for that no longer lie where they were indexed.

    Attributes
    ----------
    table : polars.DataFrame
        ``cutouts.parquet``, shape (N, ...).
    cutout_id : ndarray
        int64, shape (N,).
    """

    def __init__(self, artifact: Artifact, *, image_roots: Sequence[str] | str | None = None) -> None:
        self.artifact = artifact
        self.table = artifact.table("cutouts.parquet")
        self.cutout_id = self.table["cutout_id"].to_numpy()
        self._roots = root_folders(image_roots)
        images = artifact.table("images.parquet")
        if "band" in images.columns:
            raise InputError(
                f"cutouts {artifact.id} have several bands ({', '.join(artifact.notes['bands'])}); expected cutouts of "
                "one image each, such as step=cutouts survey=lotss makes"
            )
        self._images = {row["image"]: row for row in images.iter_rows(named=True)}
        numbers = {name: i for i, name in enumerate(self._images)}
        self._names = list(numbers)
        codes = self.table["image"].replace_strict(numbers, return_dtype=pl.Int32)
        self._windows = np.column_stack(
            [codes.to_numpy(), *(self.table[c].to_numpy() for c in ("row0", "col0", "size_px"))]
        )
        self._open: OrderedDict[int, Image] = OrderedDict()
        self._packed = open_packed(artifact, len(self.table))

    def __len__(self) -> int:
        return len(self.cutout_id)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # each process opens its own files

    @property
    def sizes(self) -> np.ndarray:
        """Side of each cutout in pixels, shape (N,); :meth:`read` takes rows of one size at a time."""
        return self._windows[:, 3]

    @property
    def window_px(self) -> int:
        """Side of the cutouts in pixels, when all have the same.

        Raises
        ------
        InputError
            When sizes differ.
        """
        sizes = np.unique(self._windows[:, 3])
        if len(sizes) != 1:
            raise InputError(
                f"cutouts {self.artifact.id} have sizes from {sizes[0]} to {sizes[-1]} px; expected one size"
            )
        return int(sizes[0])

    def rows_of(self, cutout_ids: np.ndarray) -> np.ndarray:
        """Row numbers of cutouts by id.

        Parameters
        ----------
        cutout_ids
            int64, shape (M,).

        Returns
        -------
        ndarray
            int64, shape (M,).

        Raises
        ------
        InputError
            When an id is not in the index.
        """
        return rows_of(self.artifact, self.cutout_id, cutout_ids)

    def check_images(self, rows: np.ndarray) -> None:
        """Look whether the images of rows are there, before long work begins; packed cutouts need none.

        Raises
        ------
        InputError
            When one is gone. Whether its content has changed is seen when it is read.
        """
        if self._packed is None:
            for code in np.unique(self._windows[rows, 0]):
                self.image_path(self._names[int(code)])

    def read(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """Pixels of cutouts.

        Parameters
        ----------
        rows
            Row numbers, shape (M,).

        Returns
        -------
        ndarray
            float32, shape (M, S, S), in the unit of the images, NaN where blank unless the index says by what blanks
            are filled (``nan_policy=fill`` of step=cutouts).

        Raises
        ------
        InputError
            When an image is gone, cannot be read, or is not the one that was indexed; when packed pixels are damaged.
        """
        rows = np.asarray(rows)
        return self._packed.read(rows) if self._packed else self._read_windows(rows)

    def _read_windows(self, rows: np.ndarray) -> np.ndarray:
        """Pixels of rows from the images."""
        windows = self._windows[rows]
        size = int(windows[0, 3])
        pixels = np.empty((len(windows), size, size), dtype=np.float32)
        for i, (code, row0, col0, side) in enumerate(windows):
            if side != size:
                raise InputError(f"cutouts {self.artifact.id}: sizes {size} and {side} px in one batch; use one size")
            pixels[i] = self._image(int(code)).read(int(row0), int(col0), size, size)
        fill_blanks(pixels, self.artifact.notes.get("fill_value"))
        return pixels

    def image_path(self, name: str) -> Path:
        """Where an image lies now: where it was indexed, or at the same place below one of the image roots.

        Raises
        ------
        InputError
            When it is nowhere to be found.
        """
        return find_image(self.artifact, self._images[name], self._roots)

    def _image(self, code: int) -> Image:
        if code in self._open:
            self._open.move_to_end(code)
            return self._open[code]
        name = self._names[code]
        path = self.image_path(name)
        check_unchanged(self.artifact, self._images[name], path)
        if len(self._open) >= OPEN_IMAGES:
            self._open.popitem(last=False)[1].close()
        self._open[code] = open_image(path)
        return self._open[code]


def fill_blanks(pixels: np.ndarray, value: float | str | None) -> None:
    """Fill blank (NaN or infinite) pixels in place.

    Parameters
    ----------
    pixels
        float32, shape (M, S, S).
    value
        A number in the unit of the pixels, ``median`` of each window's good pixels, or None to leave blanks alone.
    """
    if value is None:
        return
    blank = ~np.isfinite(pixels)
    for i in np.flatnonzero(blank.any(axis=(1, 2))):
        good = pixels[i][~blank[i]]
        if value != "median":
            pixels[i][blank[i]] = value
        elif len(good):
            pixels[i][blank[i]] = np.median(good)
