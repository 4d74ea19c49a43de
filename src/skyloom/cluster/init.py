"""Where k-means starts: greedy k-means++, k-means|| or random rows."""

import numpy as np

from skyloom.cluster.assign import nearest, squared_distance
from skyloom.cluster.rows import Rows
from skyloom.cluster.tiles import SMALL, Tiles
from skyloom.cluster.work import ordered
from skyloom.errors import InputError

_ROUNDS = 5  # passes of k-means||, as in section 5 of its paper
_ROOM = 2**24  # squared distances to candidates that are held at once: 64 MB
_BLURRED = 1e-5  # of the squared lengths in a product: float32 does not tell smaller squared distances from zero
_MOST_AT_ONCE = 128  # most centroids that greedy k-means++ takes in one pass
_ONE_BY_ONE = 16  # centroids that are taken one by one, as published
_SHARE_AT_ONCE = 5  # and no more than one for so many that there are


def random_rows(
    rows: Rows,
    clusters: int,
    rng: np.random.Generator,
    _weights: np.ndarray | None = None,
    _trials: int | None = None,
) -> np.ndarray:
    """Draw ``clusters`` different rows uniformly: (clusters, D) float32."""
    return rows.take(rng.choice(len(rows), size=clusters, replace=False))


def kmeans_plus_plus(
    rows: Rows, clusters: int, rng: np.random.Generator, weights: np.ndarray | None = None, trials: int | None = None
) -> np.ndarray:
    """Draw start centroids by greedy k-means++, several at a time.

    The first is a uniformly random row. For each further one, some candidates are drawn with a probability
    proportional to their squared distance to the nearest centroid so far, and the candidate that lowers the sum of
    squared distances most is taken. After the first 16, one pass over the rows serves a fifth as many as there are
    centroids so far, at most 128: what is taken in one pass hardly interacts. A candidate that is nearer to another
    one of the same pass than to all centroids before is put back.

    Parameters
    ----------
    rows
        N checked rows. They are held in memory, twice.
    clusters
        Between 1 and N.
    rng
        Source of all randomness.
    weights
        (N,) positive, how much each row counts; None counts all the same.
    trials
        Candidates for each centroid; None takes ``2 + floor(ln clusters)``.

    Returns
    -------
    (clusters, D) float32
        Rows of the data.

    Raises
    ------
    InputError
        Fewer different rows than ``clusters``.

    Notes
    -----
    Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding", section 2.2 and, for the greedy
    choice among several candidates, their section 5.
    """
    trials = trials or 2 + int(np.log(clusters))
    # Rows on disk are in memory for the start only.
    tiles = rows.keep_tiles() if rows.in_memory else Tiles(rows.read(0, len(rows)), rows.shift, rows.guide)
    mass = None if weights is None else weights[tiles.order]
    first = int(rng.integers(len(rows))) if weights is None else int(rng.choice(len(rows), p=weights / weights.sum()))
    chosen = np.empty(clusters, dtype=np.int64)  # places
    chosen[0] = np.flatnonzero(tiles.order == first)[0]
    squared = squared_distance(tiles.centred, tiles.centred[chosen[0]])
    most = min(_MOST_AT_ONCE, max(1, _ROOM // (len(rows) * trials)))
    room = np.empty(len(rows) * trials * most, dtype=np.float32)  # made once: new memory costs more than a product
    count = 1
    while count < clusters:
        slots = min(most, 1 if count < _ONE_BY_ONE else count // _SHARE_AT_ONCE, clusters - count)
        cumulative = np.cumsum(squared if mass is None else squared * mass, dtype=np.float64)
        if cumulative[-1] <= 0:
            raise too_few_distinct(clusters)
        # side="right" skips rows of probability 0, which are the centroids so far and their duplicates
        pick = np.searchsorted(cumulative, rng.random(slots * trials) * cumulative[-1], side="right")
        pick = np.minimum(pick, len(rows) - 1)
        gain, changes = _try(tiles, pick, squared, mass, room)
        best = gain.reshape(slots, trials).argmax(axis=1) + trials * np.arange(slots)
        taken = best[_apart(tiles.centred[pick[best]], squared[pick[best]])]
        chosen[count : count + len(taken)] = pick[taken]
        _take(tiles, pick, taken, changes, squared)
        count += len(taken)
    return rows.take(tiles.order[chosen])


def _apart(points: np.ndarray, squared: np.ndarray) -> list[int]:
    """Those of the points (S, D), in order, that lie no nearer to an earlier one than ``squared`` (S,) says."""
    length = np.einsum("ij,ij->i", points, points)
    close = length[:, None] + length - 2 * points @ points.T < squared[:, None]
    bits = [int.from_bytes(row.tobytes(), "little") for row in np.packbits(close, axis=1, bitorder="little")]
    taken, so_far = [], 0
    for i, near in enumerate(bits):
        if not near & so_far:
            taken.append(i)
            so_far |= 1 << i
    return taken


_Change = tuple[slice, np.ndarray, np.ndarray]  # places of a tile, candidates (F,), change of the squared distances


def _try(
    tiles: Tiles, pick: np.ndarray, squared: np.ndarray, mass: np.ndarray | None, room: np.ndarray
) -> tuple[np.ndarray, list[_Change]]:
    """By how much each of the rows at the places ``pick`` (M,), as a centroid, would lower the sum of ``squared`` (N,).

    |x|^2 - s + |p|^2 - 2 x.p is one product, of (x, 1, |x|^2 - s) and (-2 p, |p|^2, 1); what is negative is the change.

    Parameters
    ----------
    room
        float32, at least N x M; the changes lie in it until the next call.

    Returns
    -------
    gain : (M,) float64
    changes
        Of every tile that any candidate changes.
    """
    points = tiles.centred[pick]
    factors = np.concatenate([-2 * points, tiles.length[pick, None], np.ones((len(pick), 1), np.float32)], axis=1)
    candidates = tiles.within(points + tiles.shift, squared)
    np.subtract(tiles.length, squared, out=tiles.values[:, -1])
    every = np.arange(len(pick))
    width = np.full(len(tiles), len(pick)) if candidates is None else np.array([len(few) for few in candidates])
    starts = np.concatenate([[0], np.cumsum(width * np.diff(tiles.bounds))]).tolist()

    def one(task: range) -> tuple[np.ndarray, list[_Change]]:
        gain, changes = np.zeros(len(pick)), []
        for tile in task:
            few = every if candidates is None else candidates[tile]
            if len(few) == 0:
                continue
            span = tiles.places(tile)
            change = room[starts[tile] : starts[tile + 1]].reshape(-1, len(few))
            np.matmul(tiles.values[span], (factors if candidates is None else factors[few]).T, out=change)
            np.minimum(change, 0, out=change)
            gain[few] -= change.sum(axis=0) if mass is None else mass[span] @ change
            changes.append((span, few, change))
        return gain, changes

    gain, changes = np.zeros(len(pick)), []
    for part, some in ordered(one, tiles.tasks(), alone=width.mean() < SMALL):
        gain += part
        changes += some
    return gain, changes


def _take(tiles: Tiles, pick: np.ndarray, taken: np.ndarray, changes: list[_Change], squared: np.ndarray) -> None:
    """Make the candidates ``taken`` of those at ``pick`` centroids: bring ``squared`` (N,) down, in place."""
    before = squared.copy()
    wanted = np.zeros(len(pick), dtype=bool)
    wanted[taken] = True
    ends = np.cumsum([len(few) for _, few, _ in changes])
    hits = np.flatnonzero(wanted[np.concatenate([few for _, few, _ in changes])])
    tile = np.searchsorted(ends, hits, side="right")
    new = np.flatnonzero(np.diff(tile, prepend=-1))
    for number, columns in zip(tile[new].tolist(), np.split(hits, new[1:]), strict=True):
        span, few, change = changes[number]
        columns = columns - (ends[number] - len(few))
        squared[span] += change[:, columns[0]] if len(columns) == 1 else change[:, columns].min(axis=1)
    # Rounding hides what is next to a centroid; there, the distance is taken from the differences, zero if equal.
    squared[before == 0] = 0
    points, least = tiles.centred[pick[taken]], _BLURRED * tiles.length[pick[taken]].max()
    for place in np.flatnonzero((squared < _BLURRED * tiles.length + least) & (before > 0)):
        squared[place] = min(before[place], squared_distance(points, tiles.centred[place]).min())


def kmeans_parallel(
    rows: Rows, clusters: int, rng: np.random.Generator, weights: np.ndarray | None = None, trials: int | None = None
) -> np.ndarray:
    """Draw start centroids by k-means||: a handful of passes over the rows instead of one per centroid.

    From one uniformly random row on, each of five rounds takes every row with the probability
    ``clusters / 2`` x its share of the sum of squared distances to the candidates so far, about ``clusters / 2`` rows.
    The candidates, about ``2.5 clusters``, are then weighted by the number of rows nearest to each, and greedy
    k-means++ chooses among them. Where the rounds found fewer candidates than ``clusters`` (many equal rows), greedy
    k-means++ on all rows is used instead.

    Notes
    -----
    Bahmani, Moseley, Vattani, Kumar and Vassilvitskii 2012, "Scalable k-means++", algorithm 2, with l = k / 2 and
    r = 5; their section 5 finds rounds times l above k sufficient.
    """
    factor = np.ones(len(rows)) if weights is None else weights
    first = int(rng.integers(len(rows)))
    chosen = [np.array([first])]
    owner = np.zeros(len(rows), dtype=np.int64)
    squared = np.full(len(rows), np.inf, dtype=np.float32)
    known = 0
    for round_number in range(_ROUNDS + 1):
        fresh = chosen[-1]
        if len(fresh):
            index, distance, _ = nearest(rows, rows.take(fresh), with_sums=False)
            nearer = distance < squared
            owner[nearer] = known + index[nearer]
            squared[nearer] = distance[nearer]
            known += len(fresh)
        if round_number == _ROUNDS:
            break
        cost = squared * factor
        total = cost.sum(dtype=np.float64)
        if total <= 0:
            break
        chosen.append(np.flatnonzero(rng.random(len(rows)) < clusters / 2 * cost / total))
    candidates = np.concatenate(chosen)
    if len(candidates) < clusters:
        return kmeans_plus_plus(rows, clusters, rng, weights, trials)
    mass = np.bincount(owner, weights=factor, minlength=len(candidates))
    used = np.flatnonzero(mass > 0)  # of equal candidates one owns all rows
    if len(used) < clusters:
        return kmeans_plus_plus(rows, clusters, rng, weights, trials)
    return kmeans_plus_plus(rows.subset(candidates[used]), clusters, rng, mass[used], trials)


def too_few_distinct(clusters: int) -> InputError:
    """Build the error for data with fewer different rows than clusters asked for."""
    return InputError(
        f"clusters={clusters} needs at least as many different rows, but the features hold fewer; "
        "remove duplicates or ask for fewer clusters"
    )
