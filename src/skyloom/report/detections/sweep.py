"""The part of a page on a threshold sweep: heat maps, and the point that would be chosen."""

from collections.abc import Mapping
from typing import Any

from skyloom.datamodule.table_input import TableInput
from skyloom.datamodule.threshold_sweep import read_sweep
from skyloom.metric.thresholds import Strategy, rank_thresholds
from skyloom.report.detections import plots
from skyloom.report.page import Plot, Section, Table

LISTED = 10  # points of the ranking on the page


def sweep_section(
    sweep: TableInput, numbers: dict[str, Any], *, metrics: list[str], strategy: Strategy,
    constraints: Mapping[str, float] | None, lower_is_better: list[str], dpi: int,
) -> Section:  # fmt: skip
    """Heat maps of a sweep and its ranking; adds ``sweep`` to ``numbers``."""
    ranked = rank_thresholds(
        read_sweep(sweep), metrics, strategy=strategy, constraints=constraints, lower_is_better=lower_is_better
    )
    keys = ["score", "nms", *dict.fromkeys([*metrics, *(constraints or {})]), "merit", "stability"]
    best = ranked.row(0, named=True)
    numbers["sweep"] = {key: best[key] for key in keys} | {
        "points": len(ranked), "allowed": int(ranked["allowed"].sum()), "strategy": strategy,
    }  # fmt: skip
    rows = [[f"{value:.4g}" for value in row] for row in ranked.select(keys).head(LISTED).rows()]
    said = ", ".join(f"{name} {'at most' if name in lower_is_better else 'at least'} {value:g}"
                     for name, value in (constraints or {}).items())  # fmt: skip
    said = f" ({said})" if said else ""
    text = (
        f"Of {len(ranked)} points {numbers['sweep']['allowed']} are allowed{said}. By {strategy} the best has score "
        f"{best['score']:g} and NMS {best['nms']:g}. Stability is the least merit of a point and its neighbours: far "
        "below the merit, the choice is a lucky spike. step=thresholds writes the choice as an artifact."
    )
    caption = "Metrics and merit over the two thresholds; the ring is the point that is chosen."
    return Section(
        "Thresholds", text=[text], tables=[Table(keys, rows, text_columns=0)],
        plots=[Plot("sweep.png", plots.sweep_plot(ranked, [*keys[2:-1]], dpi=dpi), caption)],
    )  # fmt: skip
