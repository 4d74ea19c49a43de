"""How the pixels, masks and positions of one survey's cutout come onto the grid of another's."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from skyloom.datamodule.band_index import BandIndex
from skyloom.errors import InputError, unknown_choice
from skyloom.sky.geometry.pixel_map import PixelMap
from skyloom.sky.geometry.resample import coverage, pad, padding, resample, resample_masks, resize
from skyloom.sky.geometry.wcs_cards import wcs_of

COMBINE = ("wcs", "resize", "pad")
Points = tuple[np.ndarray, np.ndarray]
Frame = tuple[str, tuple[int, int]]
"""FITS cards of the world coordinates of an image, and its height and width in pixels."""


class Placement(Protocol):
    """Brings one cutout onto a grid; positions are 0 at the centre of the first pixel."""

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """Float32 (C, H, W) of float32 (C, h, w)."""

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """Bool (n, H, W) of bool (n, h, w)."""

    def points(self, x_px: np.ndarray, y_px: np.ndarray) -> Points:
        """Where positions of the cutout lie on the grid."""


class Same:
    """The cutout is the grid."""

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """As it is."""
        return pixels

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """As they are."""
        return masks

    def points(self, x_px: np.ndarray, y_px: np.ndarray) -> Points:
        """As they are."""
        return x_px, y_px


@dataclass(frozen=True)
class ByWcs:
    """Interpolates by position on the sky."""

    to_source: PixelMap
    to_grid: PixelMap
    interpolation: str
    conserve_flux: bool

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """Interpolate, blank outside."""
        return resample(pixels, self.to_source, interpolation=self.interpolation, conserve_flux=self.conserve_flux)

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """Take the nearest pixel."""
        return resample_masks(masks, self.to_source)

    def points(self, x_px: np.ndarray, y_px: np.ndarray) -> Points:
        """Through the sky."""
        return self.to_grid.at(x_px, y_px)


@dataclass(frozen=True)
class Resized:
    """Stretches the cutout so that its edges lie on those of the grid, whatever the sky says."""

    own: tuple[int, int]
    grid: tuple[int, int]

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """Cubic interpolation."""
        return resize(pixels, self.grid)

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """Take the nearest pixel."""
        rows, cols = (
            np.floor((np.arange(new) + 0.5) * old / new).astype(np.int64)
            for old, new in zip(self.own, self.grid, strict=True)
        )
        return masks[:, rows[:, None], cols[None, :]]

    def points(self, x_px: np.ndarray, y_px: np.ndarray) -> Points:
        """Scale from the edge."""
        (height, width), (own_height, own_width) = self.grid, self.own
        return (x_px + 0.5) * width / own_width - 0.5, (y_px + 0.5) * height / own_height - 0.5


@dataclass(frozen=True)
class Padded:
    """Puts the cutout in the middle of zeros, pixel by pixel."""

    own: tuple[int, int]
    grid: tuple[int, int]

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """Add zeros around."""
        return pad(pixels, self.grid)

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """Add nothing around."""
        return pad(masks, self.grid)

    def points(self, x_px: np.ndarray, y_px: np.ndarray) -> Points:
        """Move."""
        row0, col0 = padding(self.own, self.grid)
        return x_px + col0, y_px + row0


def placement(own: Frame, grid: Frame, *, combine: str, interpolation: str, conserve_flux: bool) -> Placement:
    """Choose how a cutout comes onto a grid.

    Parameters
    ----------
    own, grid
        Cards and shape of the cutout and of the grid. Those of the survey that gives the grid are the same.
    combine
        ``wcs``: by position on the sky. ``resize``: edge upon edge. ``pad``: in the middle of zeros.
    interpolation, conserve_flux
        As in :func:`skyloom.sky.geometry.resample.resample`, for ``wcs``.

    Raises
    ------
    ConfigError
        Unknown ``combine``.
    InputError
        The cutout and the grid do not overlap on the sky.
    """
    if combine not in COMBINE:
        raise unknown_choice("datamodule.combine", combine, COMBINE)
    if own == grid:
        return Same()
    if combine == "resize":
        return Resized(own[1], grid[1])
    if combine == "pad":
        return Padded(own[1], grid[1])
    own_wcs, grid_wcs = wcs_of(own[0]), wcs_of(grid[0])
    to_source = PixelMap.between(grid_wcs, own_wcs, grid[1])
    if coverage(to_source, own[1]) == 0.0:
        raise InputError(
            "two images of one cutout do not overlap on the sky; check the WCS in their FITS headers, and that both "
            "are cutouts of one match"
        )
    return ByWcs(to_source, PixelMap.between(own_wcs, grid_wcs, own[1]), interpolation, conserve_flux)


def frame_of(index: BandIndex, row: int) -> Frame:
    """Cards and shape of a cutout."""
    return index.header(row), index.shape(row)
