"""report=compare: probes side by side, with the parameters in which what they were made from differs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, NonNegativeInt

from skyloom.errors import ConfigError, InputError
from skyloom.metric.classification import METRICS
from skyloom.progress import say
from skyloom.report.compare.entries import READERS, open_entry
from skyloom.report.compare.sections import compare_sections, mean_text
from skyloom.report.compare.table import Row, compare_rows
from skyloom.report.lineage import ancestor, lineage_of
from skyloom.report.page import Section, render
from skyloom.store import Artifact, Build, Store, builds
from skyloom.store.provenance import code


class Probes(list[Artifact]):
    """The artifacts that are compared, in the order given."""

    def identity(self) -> list[dict[str, str]]:
        """Kind and id of each."""
        return [artifact.identity() for artifact in self]


def open_probes(value: Any, parameters: Mapping[str, Any], store: Store) -> Probes:
    """Resolver of the input ``probes``: a list of ids or names, one of them, or ``all`` (of ``labels``, if given)."""
    if value == "all":
        known = store.readable(lambda error: say(f"skipped: {error}"))
        given = parameters.get("labels")
        wanted = None if given is None else store.open(given, ("labels", "cutouts")).id
        found = [a for a in known if a.kind == "probe" and (wanted is None or a.notes.get("labels") == wanted)]
        if not found:
            of = f" of labels {wanted}" if wanted else ""
            raise InputError(f"the store {store.root} holds no probe{of}; make some with train.py task=probe")
        return Probes(found)
    if value is None:
        raise ConfigError("give what is compared: probes=[ID,ID] or probes=all, or runs=[ID,ID], FOLDER or all")
    names = value if isinstance(value, list | tuple) else [value]
    artifacts = [store.open(name, tuple(READERS)) for name in names]
    if not artifacts:
        raise ConfigError("probes=[]: expected at least one id or name, as probes=[ID,ID], or probes=all")
    return Probes({artifact.id: artifact for artifact in artifacts}.values())


def open_baseline(value: Any, parameters: Mapping[str, Any], store: Store) -> Artifact:
    """Resolver of the input ``baseline``: one of the probes, by default the first."""
    probes: Probes = parameters["probes"]
    if value is None:
        return probes[0]
    chosen = store.open(value, tuple(READERS))
    if chosen.id not in [probe.id for probe in probes]:
        raise ConfigError(f"baseline={value} is not one of the probes; add it to probes=[…]")
    return chosen


@builds("report", version=1, inputs={"probes": open_probes, "baseline": open_baseline})
def compare(
    build: Build,
    *,
    probes: Probes,
    baseline: Artifact,
    labels: str | None,
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"],
    average: list[str],
    bootstrap: NonNegativeInt,
    dpi: Annotated[int, Field(ge=50, le=600)],
    seed: NonNegativeInt,
) -> None:
    """Compare probes.

    Writes ``comparison.parquet`` (a row per set of parameters, method and fraction), ``numbers.json`` (the same,
    with the ids behind each row), ``report.html`` (self-contained) and the plots as PNG.

    Parameters
    ----------
    build
        Where to write.
    probes
        Artifacts of kind ``probe``.
    baseline
        One of them: differences are taken from it, piece by piece.
    labels
        With ``probes=all``: only probes of these labels; None takes all.
    metric
        By which the rows are sorted, and which is drawn.
    average
        Parameters, by the last part of their name, over which is averaged instead of making rows of their own.
    bootstrap
        Resamples of an official test part for the intervals; 0 makes none.
    dpi
        Pixels per inch of the plots, 50 to 600.
    seed
        Start of the bootstrap.

    Raises
    ------
    InputError
        Nothing can be compared.
    """
    entries = [open_entry(artifact) for artifact in probes]
    first = next(entry for entry in entries if entry.artifact.id == baseline.id)
    rows = compare_rows(entries, average=average, baseline=first, metric=metric, samples=bootstrap, seed=seed)
    table = as_table(rows)
    with build.write("comparison.parquet") as path:
        table.write_parquet(path)
    build.table = "comparison.parquet"
    build.write_json(
        "numbers.json", {"baseline": baseline.id, "metric": metric, "rows": [_numbers(row) for row in rows]}
    )
    sections = compare_sections(rows, first, metric, dpi)
    for plot in (plot for section in sections for plot in section.plots):
        with build.write(plot.name) as path:
            path.write_bytes(plot.png)
    with build.write("report.html") as path:
        path.write_text(_page(build, probes, rows, sections, metric), encoding="utf-8")
    build.count(probes=len(probes), rows=len(rows))
    say(sections[0].tables[0].text())


def as_table(rows: list[Row]) -> pl.DataFrame:
    """Rows as a flat table: facts, what was measured, and per metric mean, spreads, interval and difference."""
    flat = []
    for row in rows:
        line: dict[str, Any] = {
            "labels": row.labels, "split": row.scheme, "method": row.method, "fraction": row.fraction,
            **row.facts, "runs": len(row.entries), "pieces": len(row.pieces),
            "ids": [entry.artifact.id for entry in row.entries],
        }  # fmt: skip
        for name in METRICS:
            line |= {f"{name}_{key}": value for key, value in row.metrics[name].items()}
            difference = row.difference.get(name, {})
            line |= {
                f"{name}_difference_{k}": difference.get(k) for k in ("mean", "std", "pieces", "better", "low", "high")
            }
        flat.append(line)
    numbers = {key: pl.Float64 for key in flat[0] if key.startswith(METRICS)}
    return pl.DataFrame(flat, infer_schema_length=None, schema_overrides=numbers)


def _numbers(row: Row) -> dict[str, Any]:
    return {
        "facts": row.facts, "method": row.method, "fraction": row.fraction, "labels": row.labels, "split": row.scheme,
        "ids": [entry.artifact.id for entry in row.entries], "pieces": len(row.pieces), "metrics": row.metrics,
        "difference": row.difference,
    }  # fmt: skip


def _page(build: Build, probes: Probes, rows: list[Row], sections: list[Section], metric: str) -> str:
    request, best = build.request, rows[0]
    options = {k: v for k, v in request.parameters.items() if v is not None}
    options |= {"average": f"[{','.join(options['average'])}]"}
    given = {"probes": f"[{','.join(p.id for p in probes)}]", "baseline": request.inputs["baseline"]["id"], **options}
    made_by = code()
    commit = f", commit {made_by['git_commit']}" if made_by["git_commit"] else ""
    measured = (mean_text(best.metrics[metric]).split(" [")[0], f"{metric.replace('_', ' ')}, first line")
    return render(
        title=f"Comparison of {len(probes)} probes",
        kind=request.kind,
        id=request.id,
        lead=f"{len(probes)} probes in {len(rows)} lines: what differs between them, and what it does to the score.",
        facts=[(str(len(probes)), "probes"), (str(len(rows)), "lines"), measured],
        sections=sections,
        lineage=[ancestor(request.kind, request.id, request.step, request.parameters, {}), *lineage_of(list(probes))],
        command="python analyze.py report=compare " + " ".join(f"'{k}={v}'" for k, v in given.items()),
        code=f"Made by skyloom {made_by['version']}{commit}{' with local changes' if made_by['git_dirty'] else ''}.",
    )  # fmt: skip
