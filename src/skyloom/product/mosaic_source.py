"""Whole images and mosaics as images for a detector: overlapping tiles, read lazily, in memory that does not grow."""

import math
from collections.abc import Mapping, Sequence
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.errors import ConfigError, InputError
from skyloom.product.detection_source import IMAGE_COLUMNS
from skyloom.product.mosaic_channels import alike, channels, near, unit_of, zero_points_of
from skyloom.product.mosaic_files import Mosaic, MosaicSet
from skyloom.progress import say
from skyloom.sky.files.image import Image, open_image
from skyloom.sky.geometry.wcs_cards import cards_of, moved_cards, same_grid
from skyloom.sky.survey.bands import Band
from skyloom.sky.window.sliding import window_starts

OPEN = 16  # files kept open by a process
Facts = tuple[str, float, tuple[str | None, ...], tuple[float | None, ...]]
"""Name of an image, side of a pixel in arcsec, and of each channel its unit and zero point."""


class MosaicSource:
    """Tiles of images, or the images whole where they fit into a tile; a `Source`.

    Parameters
    ----------
    found
        The images.
    tile_px
        Side of a tile.
    overlap_px
        What neighbouring tiles share; sources up to about this size are whole in one of them.
    bands
        Survey and band of each channel that a model wants, in its order; None takes the bands as they are given.
    zero_point_mag
        AB magnitude of one unit of a pixel, of all bands or by band; None: from the unit in the header where that says
        it (nJy, uJy, mJy, Jy; Jy/beam with the size of the beam), otherwise unknown.
    pixel_scale_arcsec
        Side of a pixel; None: from the WCS, NaN without one.

    Raises
    ------
    ConfigError
        A tile is not larger than the overlap, or the bands are not those of the model.
    InputError
        The files of one image differ in their pixels, or images in their scale.
    """

    def __init__(
        self,
        found: MosaicSet,
        *,
        tile_px: int,
        overlap_px: int,
        bands: Sequence[tuple[str, str]] | None = None,
        zero_point_mag: float | Mapping[str, float] | None = None,
        pixel_scale_arcsec: float | None = None,
    ) -> None:
        if not 0 <= overlap_px < tile_px:
            raise ConfigError(f"tile_px={tile_px}, overlap_px={overlap_px}: expected tiles larger than their overlap")
        self.bands, order = channels(found.bands, bands)
        self._files: list[tuple[Path, ...]] = []
        self._open: dict[Path, Image] = {}
        tables: list[pl.DataFrame] = []
        facts: list[Facts] = []
        without = []
        for number, mosaic in enumerate(found.mosaics):
            files = tuple(mosaic.files[channel] for channel in order)
            images = [open_image(path) for path in files]
            reference = _reference(mosaic, images)
            if reference.wcs is None:
                without.append(mosaic.name)
            scale = pixel_scale_arcsec or reference.pixel_scale_arcsec or math.nan
            facts.append(_facts(mosaic.name, images, scale))
            tables.append(_tiles(number, mosaic.name, reference, tile_px, overlap_px))
            self._files.append(files)
        if without and parent_process() is None:  # said once, not by each worker
            say(
                f"images: {len(without)} of {len(tables)} have no WCS, the first is {without[0]}; their sources get "
                "positions in pixels and none on the sky"
            )
        _, self.pixel_scale_arcsec, self.units, zero_points = facts[0]
        for name, scale, units, own in facts[1:]:
            if not near(scale, self.pixel_scale_arcsec) or units != self.units or not alike(own, zero_points):
                raise InputError(
                    f"images {facts[0][0]} and {name} differ in pixel scale ({self.pixel_scale_arcsec:.4g} and "
                    f"{scale:.4g} arcsec), unit ({self.units} and {units}) or beam; run over them one at a time"
                )
        self.facts: tuple[Band | None, ...] = (None,) * len(self.bands)  # no survey's file says their PSF
        self.zero_point_mag = zero_points_of(zero_point_mag, self.bands, zero_points)
        table = pl.concat(tables)
        self._mosaic = table["image_row"].to_numpy()
        self.images = table.with_columns(image_row=pl.int_range(len(table), dtype=pl.Int32))

    def read(self, row: int) -> np.ndarray:
        """Pixels of a tile, float32 (C, H, W) in `units`, NaN where blank; only they are read."""
        tile = self.images.row(row, named=True)
        files = self._files[self._mosaic[row]]
        pixels = np.empty((len(files), tile["height_px"], tile["width_px"]), np.float32)
        for path, plane in zip(files, pixels, strict=True):
            self._image(path).read(tile["row0"], tile["col0"], *plane.shape, out=plane)
        pixels[~np.isfinite(pixels)] = np.nan
        return pixels

    def area_factor(self, row: int) -> np.ndarray:
        """Ones, float64 (C,): pixels are taken as they are."""
        return np.ones(len(self.bands))

    def noise_factor(self, row: int) -> np.ndarray:
        """Ones, float64 (C,): nothing is interpolated here."""
        return np.ones(len(self.bands))

    def _image(self, path: Path) -> Image:
        if path not in self._open:
            if len(self._open) >= OPEN:
                self._open.pop(next(iter(self._open)))
            self._open[path] = open_image(path)
        return self._open[path]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}


def tile_starts(length_px: int, tile_px: int, overlap_px: int) -> tuple[np.ndarray, np.ndarray]:
    """First pixels of the tiles along an axis, and where the part that is each tile's own begins and ends.

    Parameters
    ----------
    length_px
        Of the axis; below a tile there is one tile of this length.
    tile_px, overlap_px
        As of `MosaicSource`. The last tile ends with the axis and shares more.

    Returns
    -------
    tuple of ndarray
        int64 (n,), and int64 (n + 1,), from 0 to the length: borders lie in the middle of what two tiles share.
    """
    size = min(tile_px, length_px)
    starts = window_starts(length_px, size, size - overlap_px if size == tile_px else size, cover_edge=True)
    return starts, np.concatenate([[0], (starts[:-1] + size + starts[1:]) // 2, [length_px]])


def _facts(name: str, images: Sequence[Image], scale_arcsec: float) -> Facts:
    told = [unit_of(image, scale_arcsec) for image in images]
    return name, scale_arcsec, tuple(unit for unit, _ in told), tuple(zero_point for _, zero_point in told)


def _tiles(number: int, name: str, image: Image, tile_px: int, overlap_px: int) -> pl.DataFrame:
    """Rows of `IMAGE_COLUMNS`, with the number of the mosaic as image_row."""
    cards = None if image.wcs is None else cards_of(image.wcs)
    height, width = (min(tile_px, length) for length in image.shape)
    rows, row_borders = tile_starts(image.shape[0], tile_px, overlap_px)
    cols, col_borders = tile_starts(image.shape[1], tile_px, overlap_px)
    made = []
    for i, row0 in enumerate(rows.tolist()):
        for j, col0 in enumerate(cols.tolist()):
            header = None if cards is None else moved_cards(cards, row0, col0, (height, width))
            core = [*(row_borders[i : i + 2] - row0).tolist(), *(col_borders[j : j + 2] - col0).tolist()]
            made.append((number, None, name, height, width, header, row0, col0, *core))
    return pl.DataFrame(made, schema=IMAGE_COLUMNS, orient="row")


def _reference(mosaic: Mosaic, images: Sequence[Image]) -> Image:
    """The image of a mosaic whose WCS is taken; InputError where the images have not the same pixels."""
    first = next((image for image in images if image.wcs is not None), images[0])
    for image in images:
        if image.shape != first.shape:
            raise InputError(
                f"{image.path}: expected {first.shape[0]} x {first.shape[1]} px as {first.path} has, found "
                f"{image.shape[0]} x {image.shape[1]}; bring the bands onto one grid (package reproject)"
            )
        if image.wcs is not None and first.wcs is not None and not same_grid(first.wcs, image.wcs, first.shape):
            raise InputError(
                f"{image.path} and {first.path} do not have the same pixels on the sky; bring the bands of "
                f"{mosaic.name} onto one grid (package reproject)"
            )
    return first
