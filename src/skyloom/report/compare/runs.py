"""report=compare runs=…: runs side by side, a line each, with what differs between them and what they reached."""

from dataclasses import dataclass
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from skyloom.progress import say
from skyloom.report.compare.entries import differing, facts_of
from skyloom.report.compare.run_folders import Runs, open_runs
from skyloom.report.compare.run_metrics import Direction, Measured, chosen_metric, falls, measured
from skyloom.report.compare.runs_sections import runs_sections, runs_table
from skyloom.report.writing import write_report
from skyloom.store import Build, builds

SHOWN = 6  # further numbers in the table when nobody chooses
FIRST_SHOWN = ("test/", "val/", "monitor/knn", "train/loss")  # by how their names begin, before all others


@dataclass(frozen=True)
class RunLine:
    """A line of the table.

    Attributes
    ----------
    id : str
        Of the artifact.
    facts : dict of str
        Parameters in which the runs differ; ``-`` where one has none of that name.
    numbers : Measured
        What it has reached.
    value : float or None
        What it ended with, of the number by which lines are sorted.
    best, best_epoch : float or None
        Best value of that number on the way, and its epoch.
    """

    id: str
    facts: dict[str, str]
    numbers: Measured
    value: float | None
    best: float | None
    best_epoch: float | None


@builds("report", version=1, inputs={"runs": open_runs})
def compare_runs(
    build: Build,
    *,
    runs: Runs,
    sort: str | None,
    direction: Direction,
    shown: list[str] | None,
    dpi: Annotated[int, Field(ge=50, le=600)],
) -> None:
    """Compare runs.

    Writes ``comparison.parquet`` (a row per run, with last, lowest and highest value of every number),
    ``numbers.json``, ``report.html`` and the plots as PNG; the table goes to stderr too.

    Parameters
    ----------
    build
        Where to write.
    runs
        Artifacts of one kind, and the jobs of their sweeps that have left none.
    sort
        The number by which lines are sorted; None takes that of the weights that were kept, else the first of
        :data:`skyloom.report.compare.run_metrics.PREFERRED` that all have.
    direction
        Whether less or more of it is better; ``auto``: less of a loss, more of anything else.
    shown
        Further numbers in the table; None chooses some.
    dpi
        Pixels per inch of the plots, 50 to 600.

    Raises
    ------
    ConfigError
        No run has the number ``sort``.
    InputError
        The runs have no number in common.
    """
    found = [measured(artifact) for artifact in runs.artifacts]
    metric = chosen_metric(found, sort)
    lines = _lines(runs, found, metric, direction)
    others = _others(found, metric) if shown is None else shown
    table = runs_table(lines, metric, others)
    with build.write("comparison.parquet") as path:
        as_frame(lines).write_parquet(path)
    build.table = "comparison.parquet"
    build.count(runs=len(lines), unfinished=len(runs.unfinished))
    numbers = {
        "metric": metric, "better": "low" if falls(metric, direction) else "high",
        "rows": [_numbers(line) for line in lines], "unfinished": [vars(u) for u in runs.unfinished],
    }  # fmt: skip
    best, kind = lines[0], runs.artifacts[0].kind
    reached = "-" if best.value is None else f"{best.value:.4g}"
    late = f" {len(runs.unfinished)} jobs have left nothing." if runs.unfinished else ""
    write_report(
        build,
        title=f"Comparison of {len(lines)} runs",
        lead=f"{len(lines)} runs ({kind}) by {metric}, best first: what differs, and what they reached.{late}",
        facts=[
            (str(len(lines)), "runs"),
            (str(len(best.facts)), "differing parameters"),
            (reached, f"{metric}, first line"),
        ],
        sections=runs_sections(lines, runs.unfinished, table, metric, dpi),
        numbers=numbers,
        inputs={artifact.id: artifact for artifact in runs.artifacts},
        words={"runs": f"'[{','.join(artifact.id for artifact in runs.artifacts)}]'"},
        report="compare",
    )
    say(table.text())
    for job in runs.unfinished:
        say(f"job {job.job} {job.state}: {' '.join(job.overrides)} {job.error}".rstrip())


def as_frame(lines: list[RunLine]) -> pl.DataFrame:
    """Lines as a flat table: id, what differs, and of every number the last, lowest and highest value."""
    names = _names([line.numbers for line in lines])
    flat = []
    for line in lines:
        row: dict[str, Any] = {
            "id": line.id, **line.facts, "value": line.value, "best": line.best, "best_epoch": line.best_epoch,
        }  # fmt: skip
        for name in names:
            values = [value for _, value in line.numbers.series.get(name, [])]
            row |= {f"{name}_last": values[-1] if values else None}
            row |= {f"{name}_min": min(values, default=None), f"{name}_max": max(values, default=None)}
        flat.append(row)
    texts = {"id", *lines[0].facts}
    return pl.DataFrame(flat, schema={key: pl.String if key in texts else pl.Float64 for key in flat[0]})


def _lines(runs: Runs, found: list[Measured], metric: str, direction: Direction) -> list[RunLine]:
    facts = [facts_of(artifact, own="") for artifact in runs.artifacts]
    columns = differing(facts, [])
    lines = []
    for artifact, own, numbers in zip(runs.artifacts, facts, found, strict=True):
        epoch, best = numbers.best(metric, direction)
        said = {name: own.get(name, "-") for name in columns}
        lines.append(RunLine(artifact.id, said, numbers, numbers.value(metric), best, epoch))
    sign = 1.0 if falls(metric, direction) else -1.0
    return sorted(lines, key=lambda line: (line.value is None, sign * (line.value or 0.0), line.id))


def _names(found: list[Measured]) -> list[str]:
    return sorted({name for run in found for name in run.series})


def _others(found: list[Measured], metric: str) -> list[str]:
    """Numbers beside the one that sorts, those of validation first."""
    names = [name for name in _names(found) if name != metric]
    place = {name: next((i for i, s in enumerate(FIRST_SHOWN) if name.startswith(s)), 9) for name in names}
    return sorted(names, key=lambda name: (place[name], name))[:SHOWN]


def _numbers(line: RunLine) -> dict[str, Any]:
    values = {name: [value for _, value in series] for name, series in sorted(line.numbers.series.items())}
    return {
        "id": line.id, "facts": line.facts, "value": line.value, "best": line.best, "best_epoch": line.best_epoch,
        "numbers": {name: {"last": v[-1], "min": min(v), "max": max(v)} for name, v in values.items()},
    }  # fmt: skip
