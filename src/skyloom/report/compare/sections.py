"""The parts of a page that compares: the table, the bars, the cost of fewer labels, and what is taken for what."""

from collections.abc import Mapping

from skyloom.metric.classification import METRICS
from skyloom.report.compare.entries import Entry
from skyloom.report.compare.plots import bars_plot, confusion_plot, fractions_plot, short
from skyloom.report.compare.table import Row, pooled_confusion
from skyloom.report.page import Plot, Section, Table

SHOWN_BARS = 40  # rows drawn; the table has all
SHOWN_MATRICES = 6


def compare_sections(rows: list[Row], baseline: Entry, metric: str, dpi: int) -> list[Section]:
    """Table, plots and confusion matrices; differences are those from ``baseline``."""
    heads, lines = _lines(rows, metric)
    text = [
        "Each line is the mean over the pieces (seeds and folds, of all runs with the same parameters) ± their "
        "standard deviation. In brackets: 95 % of the resamples of an official test part lie there. Best first, within "
        "labels, method and fraction.",
        f"The difference is taken from the line with the parameters of probe {baseline.artifact.id}, measured in the "
        "same way, piece by piece; in brackets its own interval, or in how many pieces it is positive.",
    ]
    sections = [Section("Table", text=text, tables=[Table(heads, lines, text_columns=len(rows[0].facts) + 1)])]
    shown = rows[:SHOWN_BARS]
    some = "" if len(shown) == len(rows) else f" The first {SHOWN_BARS} of {len(rows)} lines."
    caption = "Mean, with the standard deviation over the pieces (dark) and the bootstrap interval (grey)." + some
    plots = [Plot("bars.png", bars_plot(shown, metric, dpi=dpi), caption)]
    if len({row.fraction for row in rows}) > 1:
        caption = "What fewer training labels cost; bars are standard deviations over the pieces."
        plots.append(Plot("fractions.png", fractions_plot(rows, metric, dpi=dpi), caption))
    sections.append(Section("Plots", plots=plots))
    most = max(row.fraction for row in rows)
    found = [(row, pooled_confusion(row)) for row in rows if row.fraction == most]
    matrices = [(f"{row.name} ({row.method})", *matrix) for row, matrix in found if matrix][:SHOWN_MATRICES]
    if matrices:
        caption = (
            f"Official test part, all seeds together, {100 * most:g} % of the training labels; percent of each class."
        )
        sections.append(Section("Confusion", plots=[Plot("confusion.png", confusion_plot(matrices, dpi=dpi), caption)]))
    return sections


def _lines(rows: list[Row], metric: str) -> tuple[list[str], list[list[str]]]:
    heads = [
        *rows[0].facts,
        "method",
        "labels used",
        "runs",
        "pieces",
        *(m.replace("_", " ") for m in METRICS),
        "difference",
    ]
    lines = [
        [*map(short, row.facts.values()), row.method, f"{100 * row.fraction:g} %", str(len(row.entries)),
         str(len(row.pieces)), *(mean_text(row.metrics[name]) for name in METRICS), _difference(row, metric)]
        for row in rows
    ]  # fmt: skip
    if len({(row.labels, row.scheme) for row in rows}) > 1:
        heads = ["labels", *heads]
        lines = [[f"{row.labels[:8]} {row.scheme}", *line] for row, line in zip(rows, lines, strict=True)]
    return heads, lines


def mean_text(value: Mapping[str, float | None]) -> str:
    """Mean ± spread [interval], as far as there are any."""
    if value["mean"] is None:
        return "-"
    text = f"{value['mean']:.3f}" + (f" ± {value['std']:.3f}" if value["std"] is not None else "")
    return text + (f" [{value['low']:.3f}, {value['high']:.3f}]" if value["low"] is not None else "")


def _difference(row: Row, metric: str) -> str:
    value = row.difference.get(metric)
    if not value or value["mean"] is None:
        return "-"
    text = f"{value['mean']:+.3f}"
    if value["low"] is not None:
        return f"{text} [{value['low']:+.3f}, {value['high']:+.3f}]"
    return f"{text} ({value['better']} of {value['pieces']})"
