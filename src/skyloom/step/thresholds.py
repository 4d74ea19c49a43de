"""step=thresholds: which score and NMS threshold of a sweep to take, as a small artifact."""

import math

from skyloom.datamodule.table_input import TableInput, table_resolver
from skyloom.datamodule.threshold_sweep import SWEEP_KINDS, read_sweep
from skyloom.metric.thresholds import Strategy, rank_thresholds
from skyloom.store import Build, builds

RANKED = "ranked.parquet"
CHOSEN = "thresholds.json"


@builds("thresholds", version=1, inputs={"sweep": table_resolver(*SWEEP_KINDS)})
def thresholds(
    build: Build,
    *,
    sweep: TableInput,
    metrics: list[str],
    strategy: Strategy,
    constraints: dict[str, float] | None,
    lower_is_better: list[str],
) -> None:
    """Choose a point of a threshold sweep.

    Writes ``thresholds.json`` (``score``, ``nms``, ``merit``, ``stability`` and the values of all metrics there) and
    ``ranked.parquet``, the whole sweep, best first.

    Parameters
    ----------
    build
        Where to write.
    sweep
        Table with columns ``score``, ``nms`` and metrics, one row per pair of thresholds: a file, or an artifact of
        kind ``sweep``.
    metrics
        Columns by which the points are ranked.
    strategy
        How their ranks become one number, see :func:`skyloom.metric.thresholds.rank_thresholds`.
    constraints
        Least allowed value by column; of a ``lower_is_better`` column the largest.
    lower_is_better
        Columns of which less is better.

    Raises
    ------
    InputError
        The sweep is empty, lacks a column, or has several rows of one pair of thresholds.
    ConfigError
        No point meets the constraints.
    """
    ranked = rank_thresholds(
        read_sweep(sweep), metrics, strategy=strategy, constraints=constraints, lower_is_better=lower_is_better
    )
    with build.write(RANKED) as path:
        ranked.write_parquet(path, compression="zstd")
    best = ranked.row(0, named=True)
    chosen = {key: value if math.isfinite(value) else None for key, value in best.items() if key != "allowed"}
    build.write_json(CHOSEN, chosen)
    build.table = RANKED
    build.count(read=len(ranked), allowed=int(ranked["allowed"].sum()))
    build.note(score=chosen["score"], nms=chosen["nms"], metrics=metrics)
