"""Shapes of elliptical profiles as quadratic forms of the frequency, on the pixels of an image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Profiles:
    """Profiles before the PSF, in pixels.

    Attributes
    ----------
    disk, bulge
        Quadratic forms (a, b, c), shape (n, 3): ``a kx² + 2 b kx ky + c ky²`` is the square of frequency (radians per
        pixel) times half-light radius in the frame in which the part is round; all 0 is a point.
    """

    disk: NDArray[np.float64]
    bulge: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.intp]) -> "Profiles":
        return Profiles(self.disk[rows], self.bulge[rows])


def forms(
    hlr_arcsec: NDArray[np.float64],
    q: NDArray[np.float64],
    position_angle_deg: NDArray[np.float64],
    shear: NDArray[np.float64],
    jacobian: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Quadratic forms of elliptical parts that are lensed and lie on pixels.

    Parameters
    ----------
    hlr_arcsec, q, position_angle_deg
        As in :func:`skyloom.sky.drawing.light_profile.galaxy`, shape (n,).
    shear
        Reduced shear (g1, g2), shape (n, 2).
    jacobian
        Arcsec per pixel, shape (n, 2, 2), of :func:`skyloom.sky.geometry.local_frame.sky_jacobian`.

    Returns
    -------
    array of float64, shape (n, 3)
        See :class:`Profiles`.
    """
    g = (1 - q) / (1 + q)
    angle = 2 * np.radians(90 - position_angle_deg)
    total = _shear(shear[:, 0], shear[:, 1]) @ _shear(g * np.cos(angle), g * np.sin(angle))
    pixels = np.linalg.inv(jacobian) @ total * hlr_arcsec[:, None, None]
    gram = pixels @ pixels.transpose(0, 2, 1)
    return np.column_stack([gram[:, 0, 0], gram[:, 0, 1], gram[:, 1, 1]])


def axes(form: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Half-light radius along the major axis (px) and product of both (px²)."""
    a, b, c = form.T
    half = (a + c) / 2
    return np.sqrt(half + np.sqrt(np.maximum(half**2 - (a * c - b * b), 0))), np.sqrt(np.maximum(a * c - b * b, 0))


def _shear(g1: NDArray[np.float64], g2: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2)
    return np.ascontiguousarray(np.moveaxis(matrix, 2, 0))
