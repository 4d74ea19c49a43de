"""Writes a report: the page, its pictures beside it and its numbers."""

from collections.abc import Mapping
from typing import Any

from skyloom.report.lineage import ancestor, lineage_of, text_of
from skyloom.report.page import Section, render
from skyloom.store import Artifact, Build
from skyloom.store.provenance import code


def write_report(
    build: Build,
    *,
    title: str,
    lead: str,
    facts: list[tuple[str, str]],
    sections: list[Section],
    numbers: dict[str, Any],
    inputs: Mapping[str, Artifact | None],
    words: Mapping[str, str] | None = None,
    report: str | None = None,
) -> None:
    """Write ``report.html``, ``numbers.json`` and the pictures of all sections.

    Parameters
    ----------
    build
        Where to write; its request gives id and options.
    title, lead, facts, sections
        As for :func:`skyloom.report.page.render`.
    numbers
        Plain values, ready for JSON.
    inputs
        By parameter the artifacts that were given; the lineage table starts from them.
    words
        How inputs and parameters stand on the command line, where that is not plain: inputs that may be files, and
        mappings with free keys. None: inputs are artifacts, and mappings are written key by key.
    report
        How the report is called on the command line; None: by the name of its function.
    """
    request = build.request
    given = {name: artifact for name, artifact in inputs.items() if artifact is not None}
    special = {name: artifact.id for name, artifact in given.items()} if words is None else words
    plain = {name: value for name, value in request.parameters.items() if name not in special}
    line = [f"{name}={word}" for name, word in special.items()]
    line += [f"{key}={_word(value)}" for key, value in _options(plain)]
    own = ancestor(request.kind, request.id, request.step, request.parameters, {})
    made_by = code()
    commit = f", commit {made_by['git_commit']}" if made_by["git_commit"] else ""
    page = render(
        title=title,
        kind=request.kind,
        id=request.id,
        lead=lead,
        facts=facts,
        sections=sections,
        lineage=[own, *lineage_of(list(given.values()))],
        command=f"python analyze.py report={report or request.step} {' '.join(line)}",
        code=f"Made by skyloom {made_by['version']}{commit}{' with local changes' if made_by['git_dirty'] else ''}.",
    )
    for plot in (plot for section in sections for plot in section.plots):
        with build.write(plot.name) as path:
            path.write_bytes(plot.png)
    with build.write("report.html") as path:
        path.write_text(page, encoding="utf-8")
    build.write_json("numbers.json", numbers)


def _options(parameters: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Parameters as dotted keys of the command line."""
    found = []
    for key, value in parameters.items():
        found += _options(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def _word(value: Any) -> str:
    text = text_of(value)
    return f"'{text}'" if isinstance(value, list) or " " in text else text
