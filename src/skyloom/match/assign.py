"""Who belongs to whom: one-to-one assignment within connected components, nearest, and mutual nearest neighbours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from skyloom.errors import ConfigError
from skyloom.match.pairs import Pairs

DENSE_CELLS = 4_000_000  # a component with a larger cost matrix (32 MB) is solved as a sparse graph


@dataclass(frozen=True)
class Assignment:
    """Which edges of a set of pairs were taken.

    Attributes
    ----------
    edge
        int64, shape (K,): edges of the pairs, in their order.
    left, right
        int64, shape (K,): rows of either catalogue.
    sep_arcsec
        float64, shape (K,).
    cost
        float64, shape (K,): what was minimised.
    sizes
        Rows of either catalogue.
    """

    edge: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    sep_arcsec: NDArray[np.float64]
    cost: NDArray[np.float64]
    sizes: tuple[int, int]

    def __len__(self) -> int:
        return len(self.edge)

    @property
    def of_left(self) -> NDArray[np.int64]:
        """Right row of each left row, shape (N,); -1 without one. Of several (nearest only) the closest."""
        return _partner(self.left, self.right, self.sep_arcsec, self.sizes[0])

    @property
    def of_right(self) -> NDArray[np.int64]:
        """Left row of each right row, shape (M,); -1 without one. Of several (nearest only) the closest."""
        return _partner(self.right, self.left, self.sep_arcsec, self.sizes[1])


def assign(pairs: Pairs, cost: np.ndarray | None = None, *, max_cost: float | None = None) -> Assignment:
    """One-to-one assignment with as many pairs as possible and, among such, the least total cost.

    Each connected component of the graph is solved by itself, exactly, with the Hungarian method (Kuhn 1955; the
    implementations are scipy's: Crouse 2016 for small components, LAPJVsp for those with a large cost matrix).

    Parameters
    ----------
    pairs
        The pairs that may be matched.
    cost
        Of each pair, shape (M,), finite; None takes the separation in arcsec. See :func:`mixed_cost`.
    max_cost
        Pairs that cost more are not matched, however many stay alone; None: the radius alone decides.

    Raises
    ------
    ConfigError
        A cost is missing or not finite.
    """
    cost = pairs.sep_arcsec if cost is None else np.asarray(cost, dtype=np.float64)
    if cost.shape != (len(pairs),) or not np.isfinite(cost).all():
        raise ConfigError(
            f"cost: expected {len(pairs)} finite numbers, one per pair, got {cost.size}, of which "
            f"{int((~np.isfinite(cost)).sum())} are not finite; give pairs without a magnitude a cost of their own"
        )
    allowed = np.arange(len(pairs)) if max_cost is None else np.flatnonzero(cost <= max_cost)
    left, right = pairs.left[allowed], pairs.right[allowed]
    graph = Pairs(left, right, pairs.sep_arcsec[allowed], pairs.sizes)
    component = graph.components()[0][left] if len(graph) else np.empty(0, dtype=np.int64)
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(component[order]) > 0]) if len(order) else order
    ends = np.r_[starts[1:], len(order)]
    single = ends - starts == 1
    taken = [order[starts[single]]]  # a component of one edge needs no solving
    for start, end in zip(starts[~single].tolist(), ends[~single].tolist(), strict=True):
        edges = order[start:end]
        taken.append(edges[_solve(left[edges], right[edges], cost[allowed[edges]])])
    return _assignment(pairs, np.sort(allowed[np.concatenate(taken)]), cost)


def nearest(pairs: Pairs) -> Assignment:
    """The nearest right row of each left row; a right row may be taken by several."""
    return _assignment(pairs, np.sort(_nearest_edge(pairs.left, pairs.sep_arcsec)), pairs.sep_arcsec)


def mutual_nearest(pairs: Pairs) -> Assignment:
    """Pairs in which each is the other's nearest."""
    both = np.intersect1d(_nearest_edge(pairs.left, pairs.sep_arcsec), _nearest_edge(pairs.right, pairs.sep_arcsec))
    return _assignment(pairs, both, pairs.sep_arcsec)


def mixed_cost(
    pairs: Pairs,
    *,
    sep_scale_arcsec: float,
    left_mag: np.ndarray | None = None,
    right_mag: np.ndarray | None = None,
    mag_scale: float = 1.0,
    unknown_mag_sigma: float = 3.0,
    iou: np.ndarray | None = None,
    iou_weight: float = 1.0,
) -> np.ndarray:
    """Cost from separation, magnitude difference and overlap, as a sum of squares of what is expected.

    ``(sep / sep_scale)^2 + (|m_left - m_right| / mag_scale)^2 + iou_weight * (1 - IoU)``: with Gaussian errors in
    position and magnitude the first two terms are -2 ln of the likelihood that the pair is one source, up to a
    constant (the likelihood ratio of Sutherland & Saunders 1992, MNRAS 259, 413, without its prior).

    Parameters
    ----------
    pairs
        The pairs.
    sep_scale_arcsec
        Expected error of a separation.
    left_mag, right_mag
        Magnitudes of the rows of either catalogue, shapes (N,) and (M,); None leaves the term out.
    mag_scale
        Expected error of a magnitude difference.
    unknown_mag_sigma
        A pair of which one magnitude is NaN counts as this many ``mag_scale`` apart.
    iou
        Overlap of the masks of each pair, shape (M,), 0 to 1; None leaves the term out.
    iou_weight
        Cost of no overlap at all.

    Returns
    -------
    ndarray
        float64, shape (M,).
    """
    if not sep_scale_arcsec > 0 or not mag_scale > 0:
        raise ConfigError(f"sep_scale_arcsec={sep_scale_arcsec}, mag_scale={mag_scale}: expected numbers above 0")
    cost = (pairs.sep_arcsec / sep_scale_arcsec) ** 2
    if left_mag is not None and right_mag is not None:
        apart = (np.asarray(left_mag)[pairs.left] - np.asarray(right_mag)[pairs.right]) / mag_scale
        cost = cost + np.where(np.isfinite(apart), apart, unknown_mag_sigma) ** 2
    if iou is not None:
        cost = cost + iou_weight * (1 - np.asarray(iou))
    return cost


def _solve(left: np.ndarray, right: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Edges taken in one component; costs may be negative."""
    rows, row = np.unique(left, return_inverse=True)
    cols, col = np.unique(right, return_inverse=True)
    cost = cost - cost.min()
    # Dearer than all edges together: leaving a possible pair out never pays.
    alone = float(cost.max()) * (min(len(rows), len(cols)) + 1) + 1.0
    if len(rows) * len(cols) <= DENSE_CELLS:
        matrix = np.full((len(rows), len(cols)), alone)
        edge = np.full(matrix.shape, -1, dtype=np.int64)
        matrix[row, col], edge[row, col] = cost, np.arange(len(left))
        found = edge[linear_sum_assignment(matrix)]
        return found[found >= 0]
    # A column of its own for each row stands for staying alone; no edge may cost 0, which a sparse graph leaves out.
    tiny = alone * 1e-12
    values = np.concatenate([cost + tiny, np.full(len(rows), alone)])
    at = np.concatenate([row, np.arange(len(rows))]), np.concatenate([col, len(cols) + np.arange(len(rows))])
    graph = csr_array((values, at), shape=(len(rows), len(cols) + len(rows)))
    i, j = min_weight_full_bipartite_matching(graph)
    number = csr_array((np.arange(1, len(left) + 1), (row, col)), shape=(len(rows), len(cols)))
    real = j < len(cols)
    return np.asarray(number[i[real], j[real]]).ravel().astype(np.int64) - 1


def _nearest_edge(side: np.ndarray, sep: np.ndarray) -> np.ndarray:
    """The shortest edge of each row that has one; of equals the first."""
    order = np.lexsort((np.arange(len(side)), sep, side))
    first = np.r_[True, np.diff(side[order]) > 0] if len(order) else np.empty(0, dtype=bool)
    return order[first]


def _assignment(pairs: Pairs, edge: np.ndarray, cost: np.ndarray) -> Assignment:
    return Assignment(edge, pairs.left[edge], pairs.right[edge], pairs.sep_arcsec[edge], cost[edge], pairs.sizes)


def _partner(side: np.ndarray, other: np.ndarray, sep: np.ndarray, number: int) -> NDArray[np.int64]:
    partner = np.full(number, -1, dtype=np.int64)
    order = np.argsort(-sep, kind="stable")  # the closest is written last
    partner[side[order]] = other[order]
    return partner
