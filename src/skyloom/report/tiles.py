"""Cutouts of any size as small pictures of one size and one stretch, and maps made of them."""

import numpy as np

from skyloom.report.feature_set import FeatureSet
from skyloom.report.figures import stretch


def read_tiles(data: FeatureSet, positions: np.ndarray, tile_px: int) -> np.ndarray:
    """Pictures of some cutouts, stretched by their noise.

    Parameters
    ----------
    data
        The features and their cutouts.
    positions
        (n,) among the N of ``data``.
    tile_px
        Side of the pictures; larger cutouts are averaged, smaller ones repeat their pixels.

    Returns
    -------
    ndarray
        (n, tile_px, tile_px) in [0, 1], NaN where blank.

    Raises
    ------
    InputError
        An image is gone or has changed.
    """
    used, back = np.unique(positions, return_inverse=True)
    rows = data.rows[used]
    rms = data.column("rms")[used]
    tiles = np.empty((len(used), tile_px, tile_px))
    sizes = data.index.sizes[rows]
    for size in np.unique(sizes):
        mine = np.flatnonzero(sizes == size)
        tiles[mine] = resize(stretch(data.index.read(rows[mine]), rms[mine]), tile_px)
    return tiles[back]


def resize(pictures: np.ndarray, size_px: int) -> np.ndarray:
    """Pictures (n, S, S) at (n, size_px, size_px): means of whole pixels, or repeated ones; blank only if all are."""
    side = pictures.shape[-1]
    if side <= size_px:
        pick = np.arange(size_px) * side // size_px
        return pictures[:, pick][:, :, pick]
    edges = np.arange(size_px) * side // size_px
    good = np.isfinite(pictures)
    sums = np.where(good, pictures, 0.0)
    number = good.astype(np.float64)
    for axis in (1, 2):
        sums, number = np.add.reduceat(sums, edges, axis=axis), np.add.reduceat(number, edges, axis=axis)
    return np.where(number > 0, sums / np.maximum(number, 1), np.nan)


def grid_cells(xy: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each cell of a grid over a map, the point nearest to its centre.

    Parameters
    ----------
    xy
        (M, 2) finite.
    cells
        Per side; the grid spans the 0.5 to 99.5 % quantiles, so that a few far points do not empty it.

    Returns
    -------
    point, row, column : ndarray
        int64 (C,): point and cell of each cell that holds any; row 0 is the lowest.
    """
    low, high = np.quantile(xy, [0.005, 0.995], axis=0)
    span = np.where(high > low, high - low, 1.0)
    place = (xy - low) / span * cells
    cell = np.floor(place).astype(np.int64)
    inside = ((place >= 0) & (place <= cells)).all(axis=1)
    cell = cell.clip(0, cells - 1)
    distance = np.sum((place - cell - 0.5) ** 2, axis=1)
    points = np.flatnonzero(inside)
    order = points[np.lexsort((points, distance[points], cell[points, 0], cell[points, 1]))]
    number = cell[order, 1] * cells + cell[order, 0]
    first = order[np.r_[True, np.diff(number) != 0]] if len(order) else order
    return first, cell[first, 1], cell[first, 0]


def mosaic(tiles: np.ndarray, row: np.ndarray, column: np.ndarray, cells: int) -> np.ndarray:
    """One picture (cells * S, cells * S) of tiles (C, S, S) at their cells, NaN elsewhere; row 0 of it is the top."""
    size = tiles.shape[-1]
    picture = np.full((cells, size, cells, size), np.nan)
    picture[cells - 1 - row, :, column] = tiles[:, ::-1]  # FITS rows count from the bottom
    return picture.reshape(cells * size, cells * size)
