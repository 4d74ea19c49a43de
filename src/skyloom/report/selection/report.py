"""report=selection: how evenly a selection covers the clusters, what it looks like and where it lies."""

from typing import Annotated, Any

from pydantic import Field, NonNegativeInt

from skyloom.cluster.sampling import random_selection
from skyloom.report.curated import open_curated
from skyloom.report.lineage import ancestor, lineage_of
from skyloom.report.page import Section, render
from skyloom.report.selection.numbers import selection_numbers, stream
from skyloom.report.selection.sections import (
    balance_section,
    features_section,
    sky_section,
    snr_section,
    thumbnails_section,
    training_section,
)
from skyloom.store import Artifact, Build, builds, of_kind
from skyloom.store.provenance import code


@builds(
    "report",
    version=3,
    inputs={"selection": of_kind("selection"), "model": of_kind("model")},
    free=("image_roots",),
)
def selection(
    build: Build,
    *,
    selection: Artifact,
    model: Artifact | None,
    thumbnails: NonNegativeInt,
    dpi: Annotated[int, Field(ge=50, le=600)],
    seed: NonNegativeInt,
    image_roots: str | None,
) -> None:
    """Report on a selection of cutouts.

    Writes ``report.html`` (self-contained), ``numbers.json`` and the plots as PNG.

    Parameters
    ----------
    build
        Where to write.
    selection
        Artifact of kind ``selection``; its clusters, features and cutouts are found by their lineage.
    model
        Trained model whose ``metrics.csv`` is shown; None leaves that part out.
    thumbnails
        Cutouts shown of each set; 0 shows none and reads no image.
    dpi
        Pixels per inch of the plots, 50 to 600.
    seed
        Start of the random streams: the baseline, and which cutouts are shown.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    InputError
        An image is gone or has changed, or two artifacts of the chain do not fit together.
    StoreError
        A part of the chain is not in the store.
    """
    data = open_curated(selection, image_roots=image_roots)
    number = len(data.rows)
    baseline = random_selection(number, min(len(data.selected), number), stream(seed, "baseline"))
    snr = data.column("peak_snr")
    numbers = selection_numbers(data.assignments, data.clusters_per_level, data.selected, baseline, snr)
    sections = [
        balance_section(data, numbers, baseline, dpi),
        thumbnails_section(data, snr, thumbnails, dpi, seed),
        features_section(data, numbers, dpi, seed),
        sky_section(data, numbers, dpi, seed),
        snr_section(data, numbers, snr, dpi),
    ]
    if model is not None:
        sections.append(training_section(model, selection, dpi))
    _write(build, sections, numbers, [a for a in (selection, model) if a is not None])
    build.count(cutouts=number, selected=len(data.selected))


def _write(build: Build, sections: list[Section], numbers: dict[str, Any], inputs: list[Artifact]) -> None:
    request, selection = build.request, inputs[0]
    given = {name: artifact.id for name, artifact in zip(("selection", "model"), inputs, strict=False)}
    options = {**given, **request.parameters}
    first = numbers["levels"][0]
    before, after = first["all"], first["selection"]
    facts = [
        (f"{numbers['cutouts']:,}", "cutouts"),
        (f"{numbers['selected']:,}", "selected"),
        (f"{numbers['duplicates']:,}", "duplicates"),
        (f"{after['coverage']:.3f}", "coverage, level 1"),
        (f"{before['normalised_entropy']:.3f} → {after['normalised_entropy']:.3f}", "evenness, level 1"),
        (f"{before['gini']:.3f} → {after['gini']:.3f}", "Gini, level 1"),
    ]
    lead = (
        f"{numbers['selected']:,} of {numbers['cutouts']:,} cutouts ({100 * numbers['selected_fraction']:.3g} %) were "
        "selected from their clusters. This page shows how balanced the selection is, next to all cutouts and to a "
        "random choice of the same size."
    )
    own = ancestor(request.kind, request.id, request.step, request.parameters, {})
    made_by = code()
    commit = f", commit {made_by['git_commit']}" if made_by["git_commit"] else ""
    page = render(
        title=f"Selection {selection.id}",
        kind=request.kind,
        id=request.id,
        lead=lead,
        facts=facts,
        sections=sections,
        lineage=[own, *lineage_of(inputs)],
        command="python analyze.py report=selection " + " ".join(f"{key}={value}" for key, value in options.items()),
        code=f"Made by skyloom {made_by['version']}{commit}{' with local changes' if made_by['git_dirty'] else ''}.",
    )
    for plot in (plot for section in sections for plot in section.plots):
        with build.write(plot.name) as path:
            path.write_bytes(plot.png)
    with build.write("report.html") as path:
        path.write_text(page, encoding="utf-8")
    build.write_json("numbers.json", numbers)
