"""The parts of a page on runs side by side: the table, the jobs without a result, and the plots."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from skyloom.report.compare.run_folders import Unfinished
from skyloom.report.compare.runs_plots import curves_plot, parameters_plot
from skyloom.report.page import Plot, Section, Table

if TYPE_CHECKING:
    from skyloom.report.compare.runs import RunLine

CURVES, PANELS = 12, 6  # drawn at most


def runs_table(lines: "Sequence[RunLine]", metric: str, others: Sequence[str]) -> Table:
    """A line per run: what differs, its id, the number that sorts (at the end, best, epoch of that), and ``others``."""
    heads = [*lines[0].facts, "run", metric, "best", "epoch", *others]
    rows = [
        [*line.facts.values(), line.id, *map(_text, (line.value, line.best, line.best_epoch)),
         *(_text(line.numbers.value(name)) for name in others)]
        for line in lines
    ]  # fmt: skip
    return Table(heads, rows, text_columns=len(lines[0].facts) + 1)


def runs_sections(
    lines: "Sequence[RunLine]", unfinished: Sequence[Unfinished], table: Table, metric: str, dpi: int
) -> list[Section]:
    """Table, unfinished jobs and plots."""
    text = [
        f"A line per run, sorted by {metric}: what the run ended with, or what belongs to the weights that were kept; "
        "beside it the best value on the way and its epoch. Further numbers are the last ones. The first columns are "
        "the parameters in which the runs, or what they were made from, differ; of those that tell the same, one.",
        "Losses of different tasks, views or data cannot be compared with each other.",
    ]
    sections = [Section("Table", text=text, tables=[table])]
    if unfinished:
        rows = [[job.job, job.state, " ".join(job.overrides), job.error or "-"] for job in unfinished]
        what = "Jobs without a result: failed, or started and still running, waiting to be requeued, or killed."
        sections.append(Section("Not finished", [what], tables=[Table(["job", "state", "said", "why"], rows, 4)]))
    plots = []
    if any(len(line.numbers.series.get(metric, [])) > 1 for line in lines):
        some = f" The first {CURVES} of {len(lines)} runs." if len(lines) > CURVES else ""
        plots.append(Plot("curves.png", curves_plot(lines[:CURVES], metric, dpi=dpi), f"{metric} on the way.{some}"))
    if len(lines) > 1 and lines[0].facts:
        caption = "What each run ended with, against each parameter by itself: where several change, others hide in it."
        names = list(lines[0].facts)[:PANELS]
        plots.append(Plot("parameters.png", parameters_plot(lines, names, metric, dpi=dpi), caption))
    return [*sections, Section("Plots", plots=plots)] if plots else sections


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
