"""Friends of friends on the sphere: who is linked by steps no longer than a linking length forms one group."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from skyloom.errors import ConfigError, InputError
from skyloom.match.points import Catalog, Points, points_of
from skyloom.sky.geometry.sphere import chord

PAIRS_AT_ONCE = 50_000_000  # 0.8 GB of pairs; more are found block by block
SAMPLE = 10_000  # points from which the number of pairs is told beforehand


def friends_of_friends(points: Points, linking_length_arcsec: float) -> np.ndarray:
    """Group points of which each is within the linking length of another of the group.

    Distances are chords of the unit sphere, as great-circle separations for any pair that close. Groups are the
    connected components of the graph of close pairs, which a k-d tree finds (Davis et al. 1985, ApJ 292, 371).

    Parameters
    ----------
    points
        Unit vectors, shape (N, 3).
    linking_length_arcsec
        Separations up to and including this link two points; 0 links coincident ones.

    Returns
    -------
    ndarray
        int64, shape (N,): number of the group, from 0, in the order of their first members.
    """
    if not np.isfinite(linking_length_arcsec) or linking_length_arcsec < 0:
        raise ConfigError(f"linking_length_arcsec={linking_length_arcsec}: expected a number that is not negative")
    if len(points) == 0:
        return np.empty(0, dtype=np.int64)
    radius = float(chord(linking_length_arcsec))
    tree = cKDTree(points, balanced_tree=False, compact_nodes=True)
    rng = np.random.default_rng(0)
    sample = points if len(points) <= SAMPLE else points[rng.integers(len(points), size=SAMPLE)]
    friends = tree.query_ball_point(sample, radius, return_length=True).mean() - 1
    expected = friends * len(points) / 2
    label = np.arange(len(points))
    if expected <= PAIRS_AT_ONCE:
        return _renumbered(_joined(label, tree.query_pairs(radius, output_type="ndarray")))
    rows = max(1, int(PAIRS_AT_ONCE / (4 * friends)))
    for start in range(0, len(points), rows):  # dense fields: slower, but the pairs of some rows only are in memory
        near = tree.query_ball_point(points[start : start + rows], radius, return_sorted=False)
        counts = np.fromiter(map(len, near), dtype=np.int64, count=len(near))
        left = np.repeat(np.arange(start, start + len(near)), counts)
        right = np.concatenate([np.asarray(found, dtype=np.int64) for found in near])
        label = _joined(label, np.column_stack([left, right]))
    return _renumbered(label)


def _joined(label: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Groups when pairs of points are linked besides what ``label`` says."""
    number = int(label.max()) + 1
    left, right = label[pairs[:, 0]].astype(np.int32), label[pairs[:, 1]].astype(np.int32)
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(number, number))
    return np.asarray(connected_components(graph, directed=False)[1])[label]


def _renumbered(label: np.ndarray) -> np.ndarray:
    """The same groups, numbered by their first members."""
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def fof_groups(points: Points, linking_lengths: float | Mapping[float, int | None]) -> np.ndarray:
    """Friends of friends, with groups that are too large split by shorter linking lengths.

    Lengths are taken from the longest to the shortest. Members of a group with more than its length's maximum are
    grouped anew, all of them together, with the next shorter one; a maximum of None accepts any group and ends there.
    What is too large at the shortest length stays. So does FoFCatalogMatching (Mao et al. 2021, github.com/yymao).

    Parameters
    ----------
    points
        Unit vectors, shape (N, 3).
    linking_lengths
        One length in arcsec, or largest group (or None) by length.

    Returns
    -------
    ndarray
        int64, shape (N,), numbers from 0 by first member.
    """
    limits = linking_lengths if isinstance(linking_lengths, Mapping) else {linking_lengths: None}
    if not limits:
        raise ConfigError("linking_lengths is empty; expected a length in arcsec")
    label: np.ndarray = np.zeros(len(points), dtype=np.int64)
    again = np.ones(len(points), dtype=bool)
    for length in sorted(limits, key=float, reverse=True):
        largest = limits[length]
        if largest is not None and int(largest) < 1:
            raise ConfigError(f"linking_lengths: the largest group at {length} arcsec is {largest}; expected 1 or more")
        label[again] = friends_of_friends(points[again], float(length)) + (label.max(initial=-1) + 1)
        label = _renumbered(label)
        if largest is None:
            break
        again = np.bincount(label, minlength=1)[label] > int(largest)
        if not again.any():
            break
    return label


def fof_table(
    catalogs: Mapping[str, Catalog],
    linking_lengths: float | Mapping[float, int | None],
    *,
    ra: str = "ra",
    dec: str = "dec",
) -> pl.DataFrame:
    """Group the rows of any number of catalogues, of one as of several.

    Parameters
    ----------
    catalogs
        By name; a catalogue may be empty. Members of the same catalogue link, too.
    linking_lengths
        One length in arcsec, or largest group (or None) by length; see :func:`fof_groups`.
    ra, dec
        Columns of the position in degrees.

    Returns
    -------
    polars.DataFrame
        ``group_id`` Int64, ``catalog_key`` String, ``row_index`` Int64, one row per row of each catalogue, by group.

    Raises
    ------
    InputError
        There is no catalogue, a column is missing or a position is not valid.
    """
    if not catalogs:
        raise InputError("no catalogue was given; expected one or more by name")
    points = [points_of(catalog, ra=ra, dec=dec, name=name) for name, catalog in catalogs.items()]
    keys = np.repeat(np.array(list(catalogs), dtype=object), [len(part) for part in points])
    table = pl.DataFrame(
        {
            "group_id": fof_groups(np.concatenate(points), linking_lengths),
            "catalog_key": pl.Series(keys, dtype=pl.String),
            "row_index": np.concatenate([np.arange(len(part)) for part in points]),
        },
        schema={"group_id": pl.Int64, "catalog_key": pl.String, "row_index": pl.Int64},
    )
    return table.sort("group_id", maintain_order=True)
