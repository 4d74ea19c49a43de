"""Which points can be near which rows: balls around groups of rows, which spare most distances without an error."""

from dataclasses import dataclass

import numpy as np

_SLACK = 1e-5  # of all distances; covers the rounding of float32, so that nothing is left out wrongly
_SLAB = 2**22  # distances held at once: 32 MB


@dataclass(frozen=True)
class Guide:
    """Groups of neighbouring rows, each inside a ball.

    The triangle inequality tells which points cannot be near any row of a ball. Elkan (2003, "Using the triangle
    inequality to accelerate k-means") bounds single rows; with balls, what is left is a few dense products.

    Attributes
    ----------
    label
        (N,) int16, the group of each row.
    centre
        (G, D) float64.
    radius
        (G,) float64; all rows of the group lie within it.
    """

    label: np.ndarray
    centre: np.ndarray
    radius: np.ndarray

    def subset(self, indices: np.ndarray | slice) -> "Guide":
        """Guide of the rows at ``indices``; the balls stay."""
        return Guide(self.label[indices], self.centre, self.radius)

    def nearest_candidates(self, centroids: np.ndarray) -> np.ndarray:
        """Mark the centroids (K, D) that can be the nearest one of some row of each group: (G, K) bool.

        Let d be the distance from the centre of a ball of radius r to the centroid nearest to it. Each row of the ball
        has that centroid within d + r, so one further than d + 2 r from the centre is never the nearest.
        """
        keep = np.empty((len(self.centre), len(centroids)), dtype=bool)
        step = max(1, _SLAB // len(centroids))
        shift = self.centre.mean(axis=0)
        right = centroids - shift
        norms = np.einsum("ij,ij->i", right, right)
        for start in range(0, len(keep), step):
            left = self.centre[start : start + step] - shift
            squared = np.einsum("ij,ij->i", left, left)[:, None] + norms - 2 * left @ right.T
            distance = np.sqrt(np.maximum(squared, 0, out=squared), out=squared)
            radius = self.radius[start : start + step, None]
            keep[start : start + step] = distance <= distance.min(axis=1, keepdims=True) + (2 + _SLACK) * radius
        return keep

    def gaps(self, points: np.ndarray) -> np.ndarray:
        """Lower bound of the distance from any row of each group to each of a few points (M, D): (G, M) float32."""
        shift = self.centre.mean(axis=0)
        left, right = (self.centre - shift).astype(np.float32), (points - shift).astype(np.float32)
        lengths = np.einsum("ij,ij->i", left, left)[:, None] + np.einsum("ij,ij->i", right, right)
        squared = (1 - _SLACK) * lengths - 2 * left @ right.T  # less than it is by more than float32 may be wrong
        np.sqrt(np.maximum(squared, 0, out=squared), out=squared)
        return squared - (1 + _SLACK) * self.radius[:, None].astype(np.float32)
