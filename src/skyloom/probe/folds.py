"""Fixed folds that keep groups whole and classes even, and subsets of labels in which every class remains."""

import numpy as np

from skyloom.errors import ConfigError


def grouped_folds(targets: np.ndarray, group: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Divide labelled items into folds.

    Parameters
    ----------
    targets
        bool (N, C), the classes of each item.
    group
        int64 (N,); items of one group (a cell of the sky, an object seen twice) come into one fold.
    folds
        Number of folds, 2 or more.
    seed
        Start of the random stream that orders groups and items.

    Returns
    -------
    ndarray
        int64 (N,), 0 to folds - 1. Each class is spread as evenly as its groups allow.

    Raises
    ------
    ConfigError
        There are fewer groups than folds.

    Notes
    -----
    Groups of several items are dealt greedily, those with the most uneven classes first, each to the fold that leaves
    the classes most even (as ``StratifiedGroupKFold`` of scikit-learn does); items that are alone in their group fill
    up what is missing, class by class, the rarest class of each counting.
    """
    numbers, of_item, sizes = np.unique(group, return_inverse=True, return_counts=True)
    if folds < 2 or folds > len(numbers):
        raise ConfigError(
            f"task.folds={folds}: expected 2 to {len(numbers)}, the number of groups (of {len(targets)} labelled "
            "cutouts) that must stay whole"
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x666F6C64]))
    held = np.zeros((len(numbers), targets.shape[1]))
    np.add.at(held, of_item, targets)
    total = np.maximum(targets.sum(0), 1)
    inside = np.zeros((folds, targets.shape[1]))  # items of each class in each fold so far
    items = np.zeros(folds)
    fold_of_group = np.full(len(numbers), -1)
    several = rng.permutation(np.flatnonzero(sizes > 1))
    for g in several[np.argsort(-(held[several].std(1) + 1e-6 * sizes[several]), kind="stable")]:
        # Adding h to fold f changes the sum of squares of the class shares by (2 inside + h) h; the rest is the same.
        cost = ((2 * inside + held[g]) * held[g] / total**2).sum(1)
        f = int(np.lexsort((items, np.round(cost, 12)))[0])
        fold_of_group[g] = f
        inside[f] += held[g]
        items[f] += sizes[g]
    alone = rng.permutation(np.flatnonzero(sizes == 1))
    rarest = np.where(held[alone] > 0, total, np.inf).argmin(1)
    rarest[held[alone].sum(1) == 0] = -1  # multi-label items without any class
    for c in np.unique(rarest):
        members = alone[rarest == c]
        level = inside[:, c] if c >= 0 else items
        for g, f in zip(members, _fill(level, items, len(members)), strict=True):
            fold_of_group[g] = f
            inside[f] += held[g]
            items[f] += 1
    return fold_of_group[of_item]


def _fill(level: np.ndarray, items: np.ndarray, number: int) -> np.ndarray:
    """Folds for ``number`` more items of a class, each to the fold that holds least of it (then least of all)."""
    folds = len(level)
    rank = np.lexsort((items, level))
    steps = np.arange(number + 1)
    # The n-th item that fold f would get raises it to level f + n: take the lowest of all these.
    heights = (level[rank][:, None] + steps[None, :]).ravel()
    chosen = np.lexsort((np.repeat(np.arange(folds), number + 1), heights))[:number]
    return rank[chosen // (number + 1)]
