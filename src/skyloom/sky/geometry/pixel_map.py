"""Where the pixels of one image lie in another: a small polynomial between two world coordinate systems."""

from functools import lru_cache

import numpy as np
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel
from numpy.polynomial import chebyshev

from skyloom.errors import InputError

TERMS = (6, 12, 24, 48)  # per axis, tried in turn; 6 are enough for a cutout under any projection, more for distortions
TOLERANCE_PX = 1e-3  # of the map; a thirtieth of the 1/32 px to which cv2.remap rounds positions
PROBES = np.array([-0.97, -0.61, -0.23, 0.08, 0.44, 0.79, 0.99])  # no node of any of the degrees above


class PixelMap:
    """Positions in an image ``to`` of the pixels of an image ``from``, with 0 at the centre of the first pixel.

    Two WCS are evaluated at the nodes of a Chebyshev polynomial of few terms only, and the polynomial at every pixel by
    two matrix products. It is checked between the nodes against the WCS to `TOLERANCE_PX`, with more terms where it
    fails. So a map takes a kilobyte to keep where an array of positions of 512 px takes 2 MB.

    Parameters
    ----------
    coefficients
        float64, shape (2, T, T): of x and y; rows are terms along y of the image, columns along x.
    shape
        Height and width of the image ``from``.
    """

    def __init__(self, coefficients: np.ndarray, shape: tuple[int, int]) -> None:
        self.coefficients, self.shape = coefficients, shape

    @classmethod
    def between(cls, start: WCS, end: WCS, shape: tuple[int, int]) -> "PixelMap":
        """Fit the map.

        Parameters
        ----------
        start, end
            Celestial WCS of the images ``from`` and ``to``; their frames (ICRS, FK5, …) may differ.
        shape
            Height and width of the image ``from`` in pixels.

        Raises
        ------
        InputError
            The one image lies outside the projection of the other, or no polynomial follows the map.
        """
        height, width = shape
        u, v = (grid.ravel() for grid in np.meshgrid(PROBES, PROBES))
        true = _moved(start, end, _pixels(u, width), _pixels(v, height))
        for terms in TERMS:
            nodes = chebyshev.chebpts1(terms)
            grid_x, grid_y = np.meshgrid(_pixels(nodes, width), _pixels(nodes, height))
            values = _moved(start, end, grid_x.ravel(), grid_y.ravel()).reshape(2, terms, terms)
            inverse = np.linalg.inv(chebyshev.chebvander(nodes, terms - 1))
            made = cls(inverse @ values @ inverse.T, shape)
            if np.abs(np.stack(made.at(_pixels(u, width), _pixels(v, height))) - true).max() < TOLERANCE_PX:
                return made
        raise InputError(
            f"the WCS of two images of one cutout differ by more than a polynomial of {TERMS[-1]} terms follows to "
            f"{TOLERANCE_PX} px; look at the FITS headers of the cutout"
        )

    def at(self, x_px: np.ndarray, y_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of points, float64 of the shape of the input; good to a few pixels outside the image too."""
        height, width = self.shape
        u = (2.0 * np.asarray(x_px, dtype=np.float64) + 1.0) / width - 1.0
        v = (2.0 * np.asarray(y_px, dtype=np.float64) + 1.0) / height - 1.0
        found = chebyshev.chebval2d(v, u, np.moveaxis(self.coefficients, 0, -1))
        return found[0], found[1]

    def positions(self, times: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Positions of every pixel, x and y, float32 (H, W); with ``times`` of as many parts per side, (H t, W t)."""
        rows, cols = (_terms(size * times, self.coefficients.shape[1]) for size in self.shape)
        x, y = (rows @ c @ cols.T for c in self.coefficients)
        return x.astype(np.float32), y.astype(np.float32)

    def step_px(self) -> float:
        """How far apart two neighbouring pixels lie in the image ``to``, in its pixels, at the middle."""
        x, y = ((size - 1) / 2 for size in self.shape[::-1])
        found = np.stack(self.at(np.array([x, x + 1, x]), np.array([y, y, y + 1])))
        return float(np.sqrt(np.abs(np.linalg.det(found[:, 1:] - found[:, :1]))))

    def area(self) -> np.ndarray:
        """Area that each pixel covers in the image ``to``, in pixels of that, float64 (H, W)."""
        height, width = self.shape
        rows, cols = (_terms(size, self.coefficients.shape[1]) for size in self.shape)
        along_x = [rows @ c @ _slopes(width, c.shape[1]).T * (2.0 / width) for c in self.coefficients]
        along_y = [_slopes(height, c.shape[0]) @ c @ cols.T * (2.0 / height) for c in self.coefficients]
        return np.asarray(np.abs(along_x[0] * along_y[1] - along_x[1] * along_y[0]))


def _moved(start: WCS, end: WCS, x_px: np.ndarray, y_px: np.ndarray) -> np.ndarray:
    found = np.stack(pixel_to_pixel(start, end, x_px, y_px)).astype(np.float64)
    if not np.isfinite(found).all():
        raise InputError(
            "two images of one cutout do not overlap on the sky (one lies outside the projection of the other); "
            "check the WCS in their FITS headers, and that both are cutouts of one match"
        )
    return found


def _pixels(unit: np.ndarray, size: int) -> np.ndarray:
    """Pixel coordinates of -1 to 1, the edges of an image."""
    return 0.5 * (unit + 1.0) * size - 0.5


@lru_cache(maxsize=64)
def _terms(size: int, terms: int) -> np.ndarray:
    return chebyshev.chebvander((2.0 * np.arange(size) + 1.0) / size - 1.0, terms - 1)


@lru_cache(maxsize=64)
def _slopes(size: int, terms: int) -> np.ndarray:
    unit = (2.0 * np.arange(size) + 1.0) / size - 1.0
    return np.stack([chebyshev.chebval(unit, chebyshev.chebder(one)) for one in np.eye(terms)], axis=1)
