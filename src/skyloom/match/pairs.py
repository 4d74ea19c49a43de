"""All pairs of two catalogues that are close on the sky, and the connected parts of their graph."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from skyloom.errors import ConfigError
from skyloom.match.points import Points
from skyloom.sky.geometry.sphere import angle_arcsec, chord


@dataclass(frozen=True)
class Pairs:
    """Edges between two catalogues, sorted by left and then by right row.

    Attributes
    ----------
    left, right
        int64, shape (M,): rows of either catalogue.
    sep_arcsec
        float64, shape (M,): great-circle separation.
    sizes
        Rows of either catalogue.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    sep_arcsec: NDArray[np.float64]
    sizes: tuple[int, int]

    def __len__(self) -> int:
        return len(self.left)

    def components(self) -> tuple[np.ndarray, np.ndarray]:
        """Connected component of each left row (N,) and of each right row (M,); a row without edges is one alone."""
        n, m = self.sizes
        graph = coo_array((np.ones(len(self), dtype=np.int8), (self.left, self.right + n)), shape=(n + m, n + m))
        label = connected_components(graph, directed=False)[1] if n + m else np.empty(0, dtype=np.int32)
        return label[:n].astype(np.int64), label[n:].astype(np.int64)


def close_pairs(left: Points, right: Points, radius_arcsec: float) -> Pairs:
    """Pairs of a left and a right point at most ``radius_arcsec`` apart, the radius included.

    Parameters
    ----------
    left, right
        Unit vectors, shapes (N, 3) and (M, 3); either may be empty.
    radius_arcsec
        0 finds coincident points only.

    Raises
    ------
    ConfigError
        For a radius that is negative or not finite.
    """
    if not np.isfinite(radius_arcsec) or radius_arcsec < 0:
        raise ConfigError(f"radius_arcsec={radius_arcsec}: expected a number that is not negative")
    sizes = len(left), len(right)
    if 0 in sizes:
        none = np.empty(0, dtype=np.int64)
        return Pairs(none, none, np.empty(0), sizes)
    # One part in 10^9 more, which is what a k-d tree may lose by rounding; the exact cut comes below.
    found = cKDTree(left).sparse_distance_matrix(
        cKDTree(right), float(chord(radius_arcsec)) * (1 + 1e-9) + 1e-15, output_type="ndarray"
    )
    i, j = found["i"].astype(np.int64), found["j"].astype(np.int64)
    # The chord of a difference of unit vectors keeps 1e-16 of a radian, arccos of a product would not.
    sep = angle_arcsec(np.linalg.norm(left[i] - right[j], axis=1))
    inside = sep <= radius_arcsec * (1 + 1e-12) + 1e-9  # 1e-9 arcsec: rounding of a position in degrees
    order = np.lexsort((j[inside], i[inside]))
    return Pairs(i[inside][order], j[inside][order], sep[inside][order], sizes)
