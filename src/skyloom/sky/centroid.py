"""Measured positions of bright, lone objects, to tell whether catalogue and world coordinates agree."""

import numpy as np
from scipy.spatial import cKDTree

SIGMA_PX = 2.0  # of the weight: somewhat wider than the PSF of a ground-based survey at 0.2" per pixel
HALF_PX = 7  # half the side of the stamp that is looked at
STEPS = 30
SETTLED_PX = 1e-3
FARTHEST_PX = 4.0  # an object measured farther from its position than this is another one
FAINTEST_SNR = 20.0  # positions of fainter ones are noisier than 0.1 px


def lone(x_px: np.ndarray, y_px: np.ndarray, mag: np.ndarray, *, apart_px: float, fainter_mag: float) -> np.ndarray:
    """Whether each object (N,) has no other within ``apart_px`` that is at most ``fainter_mag`` fainter than itself."""
    points = np.column_stack([x_px, y_px])
    alone = np.ones(len(points), bool)
    if len(points):
        first, second = cKDTree(points).query_pairs(apart_px, output_type="ndarray").reshape(-1, 2).T
        alone[first[mag[second] < mag[first] + fainter_mag]] = False
        alone[second[mag[first] < mag[second] + fainter_mag]] = False
    return alone


def centroid(pixels: np.ndarray, x_px: float, y_px: float) -> tuple[float, float] | None:
    """Centre of light near a position, with a Gaussian weight that moves along (XWIN of Source Extractor).

    Bertin & Arnouts (1996, A&AS 117, 393; manual of version 2, section on windowed positions): each step adds twice the
    weighted mean distance from the present centre.

    Parameters
    ----------
    pixels
        Image (H, W).
    x_px, y_px
        Where to start; the centre of the first pixel is 0.

    Returns
    -------
    tuple or None
        x, y in pixels; None near an edge or blank pixels, for faint objects, and when it does not settle nearby.
    """
    row, col = round(y_px), round(x_px)
    box = pixels[max(row - HALF_PX, 0) : row + HALF_PX + 1, max(col - HALF_PX, 0) : col + HALF_PX + 1]
    side = 2 * HALF_PX + 1
    if box.shape != (side, side) or not np.isfinite(box).all():
        return None
    rim = np.concatenate([box[0], box[-1], box[1:-1, 0], box[1:-1, -1]])
    light = box - np.median(rim)
    noise = 1.4826 * float(np.median(np.abs(rim - np.median(rim))))
    at = np.arange(side) - HALF_PX
    x, y = x_px - col, y_px - row
    for _ in range(STEPS):
        weight = np.exp(-((at[:, None] - y) ** 2 + (at - x) ** 2) / (2 * SIGMA_PX**2))
        total = float((weight * light).sum())
        if total <= FAINTEST_SNR * noise * float(np.sqrt((weight**2).sum())):
            return None
        step_x = 2 * float((weight * light * (at - x)).sum()) / total
        step_y = 2 * float((weight * light * (at[:, None] - y)).sum()) / total
        x, y = x + step_x, y + step_y
        if np.hypot(x + col - x_px, y + row - y_px) > FARTHEST_PX:
            return None
        if np.hypot(step_x, step_y) < SETTLED_PX:
            return x + col, y + row
    return None
