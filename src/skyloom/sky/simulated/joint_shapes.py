"""Distributions of simulated sources: places that cluster, counts by magnitude, and shapes of galaxies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyloom.sky.simulated.joint_layout import Field

MEDIAN_SIZE_ARCSEC, SIZE_SLOPE, SIZE_SCATTER_DEX = 0.55, -0.08, 0.18  # half-light radius at i=22, its change per mag
SIZE_RANGE_ARCSEC = (0.05, 4.0)
CLUSTERED, CLUSTER_RADIUS_ARCSEC, CLUSTER_MEMBERS = 0.35, 2.5, 3.0  # part in groups; radius and mean members of these
SHEAR_RMS = 0.012  # per component
EDGE_ARCSEC = 3.0  # sources this far outside still shine into the images


@dataclass(frozen=True)
class Box:
    """A piece of the sky as a plane.

    Attributes
    ----------
    frame
        Unit vectors of its centre, of east and of north there, shape (3, 3).
    reach_arcsec
        Half sides to the east and the north, shape (2,).
    """

    frame: NDArray[np.float64]
    reach_arcsec: NDArray[np.float64]

    @property
    def area_arcmin2(self) -> float:
        """Area."""
        return float(4 * self.reach_arcsec.prod() / 3600)

    @classmethod
    def around(cls, fields: Sequence[Field]) -> "Box":
        """The smallest that holds all images, and `EDGE_ARCSEC` around them; may hold a pole or cross RA 0."""
        corners = []
        for field in fields:
            x, y = field.shape[1] - 0.5, field.shape[0] - 0.5
            ra, dec = np.radians(field.wcs().all_pix2world([-0.5, x, -0.5, x], [-0.5, -0.5, y, y], 0))
            corners.append(np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1))
        points = np.concatenate(corners)
        centre = points.mean(axis=0)
        east = np.array([-centre[1], centre[0], 0.0]) if np.hypot(*centre[:2]) > 1e-9 else np.array([0.0, 1.0, 0.0])
        centre, east = centre / np.linalg.norm(centre), east / np.linalg.norm(east)
        frame = np.stack([centre, east, np.cross(centre, east)])
        flat = points @ frame.T
        return cls(frame, np.degrees(np.abs(flat[:, 1:] / flat[:, :1])).max(axis=0) * 3600 + EDGE_ARCSEC)

    def sky(self, place_arcsec: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """RA and Dec in degrees of places to the east and the north, shape (2, n)."""
        flat = np.radians(place_arcsec / 3600)
        vector = self.frame[0][:, None] + self.frame[1][:, None] * flat[0] + self.frame[2][:, None] * flat[1]
        vector /= np.linalg.norm(vector, axis=0)
        return np.degrees(np.arctan2(vector[1], vector[0])) % 360, np.degrees(np.arcsin(vector[2]))


def uniform(rng: np.random.Generator, n: int, box: Box) -> NDArray[np.float64]:
    """Places anywhere in a box, arcsec to the east and the north, shape (2, n)."""
    return rng.uniform(-1, 1, (2, n)) * box.reach_arcsec[:, None]


def clustered(rng: np.random.Generator, n: int, box: Box) -> NDArray[np.float64]:
    """Places of which some lie around common centres (a Neyman-Scott process), shape (2, n)."""
    place = uniform(rng, n, box)
    grouped = rng.random(n) < CLUSTERED
    members = int(grouped.sum())
    centres = uniform(rng, max(1, round(members / CLUSTER_MEMBERS)), box)
    own = centres[:, rng.integers(0, centres.shape[1], members)]
    place[:, grouped] = own + rng.normal(0, CLUSTER_RADIUS_ARCSEC / np.sqrt(2), (2, members))
    return place


def magnitudes(rng: np.random.Generator, n: int, low: float, high: float, slope: float) -> NDArray[np.float64]:
    """Magnitudes from ``low`` to ``high`` whose number grows by ``10**slope`` per magnitude, shape (n,)."""
    return high + np.log10(rng.uniform(10 ** (slope * (low - high)), 1.0, n)) / slope


def shapes(
    rng: np.random.Generator, mag: NDArray[np.float64], bulge_fraction: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Half-light semi-axes of disk and bulge, position angle and shear of galaxies, by column, each (n,)."""
    n = len(mag)
    size = MEDIAN_SIZE_ARCSEC * 10 ** (SIZE_SLOPE * (mag - 22) + rng.normal(0, SIZE_SCATTER_DEX, n))
    size = np.clip(size, *SIZE_RANGE_ARCSEC)
    disk = size * (1 + 0.2 * bulge_fraction)
    bulge = np.maximum(size * rng.uniform(0.3, 0.7, n), SIZE_RANGE_ARCSEC[0])
    shear = np.clip(rng.normal(0, SHEAR_RMS, (2, n)), -0.1, 0.1)
    return {
        "disk_arcsec": disk,
        "disk_minor_arcsec": disk * np.clip(rng.beta(3, 2, n), 0.2, 1.0),
        "bulge_arcsec": bulge,
        "bulge_minor_arcsec": bulge * np.clip(rng.beta(6, 2, n), 0.4, 1.0),
        "angle_deg": rng.uniform(0, 180, n),
        "shear_1": shear[0],
        "shear_2": shear[1],
    }
