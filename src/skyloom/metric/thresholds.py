"""Which score and NMS threshold of a sweep to take: by metrics, under constraints, and how stable the choice is."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import polars as pl

from skyloom.errors import ConfigError, InputError, unknown_choice

Strategy = Literal["minimax", "mean_rank", "mean_value"]
STRATEGIES = get_args(Strategy)


def rank_thresholds(
    sweep: pl.DataFrame,
    metrics: Sequence[str],
    *,
    strategy: Strategy = "mean_rank",
    constraints: Mapping[str, float] | None = None,
    lower_is_better: Sequence[str] = (),
    keys: tuple[str, str] = ("score", "nms"),
) -> pl.DataFrame:
    """Rank the points of a threshold sweep.

    Each metric becomes a percentile rank over all points (1 is the best, ties share their mean rank). ``minimax``
    orders by the worst of a point's ranks, ``mean_rank`` by their mean, ``mean_value`` by the mean of the metrics
    themselves. Points that break a constraint come last.

    Parameters
    ----------
    sweep
        One row per point: ``keys`` and a column per metric.
    metrics
        Columns to judge by.
    strategy
        How ranks become one number.
    constraints
        Least allowed value by column, as ``{"purity": 0.85}``; of a ``lower_is_better`` column the largest allowed.
    lower_is_better
        Columns of which less is better.
    keys
        The two thresholds.

    Returns
    -------
    polars.DataFrame
        The sweep, best first, with ``merit``, ``allowed`` and ``stability``: the least merit among a point and its
        neighbours on the grid, which is low for a lucky spike.

    Raises
    ------
    InputError
        A column is missing, or a metric has no value anywhere.
    ConfigError
        An unknown strategy, or no point meets the constraints.
    """
    if strategy not in STRATEGIES:
        raise unknown_choice("strategy", strategy, STRATEGIES)
    constraints = constraints or {}
    if lost := [name for name in (*keys, *metrics, *constraints) if name not in sweep.columns]:
        raise InputError(f"the sweep has no column {', '.join(lost)}; it has {', '.join(sweep.columns)}")
    if not metrics or sweep.is_empty():
        raise ConfigError("give one metric or more, and a sweep that is not empty")
    if sweep.select(keys).is_duplicated().any():
        raise InputError(f"the sweep has several rows of one pair {keys}; give one row per pair")
    values = np.column_stack(
        [sweep[name].cast(pl.Float64).to_numpy() * (-1 if name in lower_is_better else 1) for name in metrics]
    )
    if (empty := np.isnan(values).all(0)).any():
        raise InputError(f"metric {metrics[int(empty.argmax())]} has no value at any point of the sweep")
    values = np.where(np.isnan(values), -np.inf, values)  # unknown is worst
    ranks = np.column_stack([_percentile_rank(column) for column in values.T])
    merit = {"minimax": ranks.min(1), "mean_rank": ranks.mean(1), "mean_value": values.mean(1)}[strategy]
    allowed = np.ones(len(sweep), dtype=bool)
    for name, bound in constraints.items():
        column = sweep[name].cast(pl.Float64).to_numpy()
        allowed &= column <= bound if name in lower_is_better else column >= bound  # NaN meets no constraint
    if not allowed.any():
        best = {name: (sweep[name].min() if name in lower_is_better else sweep[name].max()) for name in constraints}
        raise ConfigError(f"no point of the sweep meets {dict(constraints)}; the best values are {best}; ask for less")
    result = sweep.with_columns(merit=merit, allowed=allowed, stability=_stability(sweep, keys, merit))
    return result.sort(["allowed", "merit", "stability", *keys], descending=[True, True, True, False, False])


def _percentile_rank(values: np.ndarray) -> np.ndarray:
    """Share of points that are not better, ties at their mean, 1 for the single best."""
    ordered = np.sort(values)
    below, upto = np.searchsorted(ordered, values, side="left"), np.searchsorted(ordered, values, side="right")
    return (below + upto + 1) / 2 / len(values)


def _stability(sweep: pl.DataFrame, keys: tuple[str, str], merit: np.ndarray) -> np.ndarray:
    """Least merit in the 3 x 3 neighbourhood on the grid that both thresholds span."""
    at = [np.unique(sweep[key].to_numpy(), return_inverse=True)[1] for key in keys]
    grid = np.full((at[0].max() + 3, at[1].max() + 3), np.inf)
    grid[at[0] + 1, at[1] + 1] = merit
    shifted = [grid[i : i + grid.shape[0] - 2, j : j + grid.shape[1] - 2] for i in range(3) for j in range(3)]
    return np.min(shifted, axis=0)[at[0], at[1]]
