"""report=features: what features hold, without labels: maps, spectra, neighbours, tests and outliers."""

from contextlib import ExitStack
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, NonNegativeInt, PositiveInt

from skyloom.cluster.rows import Metric
from skyloom.metric.representation import Moments
from skyloom.progress import progress
from skyloom.report.feature_set import FeatureSet, open_features
from skyloom.report.features.embedding import Embedding, Method, UmapOptions, embed, engine_of
from skyloom.report.features.galleries import neighbours_section, outliers_section
from skyloom.report.features.sections import colour_values, map_section, representation_section
from skyloom.report.features.tests import check_comparable, physical_section, two_sample_section
from skyloom.report.selection.numbers import stream
from skyloom.report.writing import write_report
from skyloom.store import Artifact, Build, builds, of_kind


@builds(
    "report",
    version=1,
    inputs={
        "features": of_kind("features"),
        "selection": of_kind("selection"),
        "other": of_kind("features"),
        "labels": of_kind("labels", "cutouts"),
    },
    free=("image_roots",),
)
def features(
    build: Build,
    *,
    features: Artifact,
    selection: Artifact | None,
    other: Artifact | None,
    other_digests: Literal["refuse", "allow"],
    labels: Artifact | None,
    color: str | None,
    embedding: Method,
    embedding_rows: PositiveInt | None,
    umap: UmapOptions,
    queries: list[int] | None,
    galleries: NonNegativeInt,
    neighbours: PositiveInt,
    metric: Metric,
    pairs: NonNegativeInt,
    test_rows: Annotated[int, Field(ge=5)],
    uniformity_rows: Annotated[int, Field(ge=2)],
    outliers: NonNegativeInt,
    outlier_neighbour: PositiveInt,
    outlier_reference: PositiveInt,
    thumbnails: NonNegativeInt,
    dpi: Annotated[int, Field(ge=50, le=600)],
    seed: NonNegativeInt,
    image_roots: str | None,
) -> None:
    """Report on features.

    Writes ``report.html`` (self-contained), ``numbers.json``, the plots as PNG, ``embedding.parquet`` (``cutout_id``,
    ``x``, ``y``) and ``outliers.parquet``. Features larger than half a GB stay on disk and are read in some passes; a
    part that sees a random sample only says so on the page.

    Parameters
    ----------
    build
        Where to write.
    features
        Artifact of kind ``features``.
    selection
        Only the cutouts of this selection, each once; None takes all.
    other
        Features to compare with, by a two-sample test; None leaves that part out.
    other_digests
        ``refuse`` other features of another backbone, preprocessing or layer, or ``allow`` them.
    labels
        Labels of the same cutouts, with ``color=label``.
    color
        Numeric column of the cutout index that colours the map, or ``label``; None gives one colour.
    embedding
        How the map is made: ``umap``, ``pca``, or ``none`` for no map.
    embedding_rows
        At most so many cutouts on the map, drawn at random; None places all.
    umap
        Options of UMAP.
    queries
        Cutout ids whose nearest neighbours are shown; None draws ``galleries`` of them.
    galleries, neighbours
        Number of drawn cutouts, and of neighbours of each.
    metric
        Of the galleries: ``cosine`` or ``l2``.
    pairs
        Windows drawn for the physical-neighbour test; 0 leaves it out.
    test_rows
        Cutouts of each set in the two-sample test.
    uniformity_rows
        Cutouts of which all pairs make the uniformity.
    outliers
        How many of the most isolated cutouts are listed; 0 leaves that part out.
    outlier_neighbour
        Isolation is the distance to this neighbour.
    outlier_reference
        Cutouts drawn to screen all others by.
    thumbnails
        Cells per side of the map of thumbnails; 0 reads no image.
    dpi
        Pixels per inch of the plots.
    seed
        Start of the random streams.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    ConfigError
        ``embedding=umap`` without the extra ``analysis``, or an unknown colour.
    InputError
        Artifacts that do not fit together, features that are not finite, an image that has gone or changed.
    """
    engine_of(embedding, umap)  # tells what is not installed before any work is done
    with ExitStack() as stack:
        data = stack.enter_context(open_features(features, selection=selection, image_roots=image_roots))
        values, names = colour_values(data, color, labels)
        second = None
        if other is not None:
            second = stack.enter_context(open_features(other, image_roots=image_roots))
            check_comparable(data, second, allow=other_digests == "allow")
        found = _moments(data)
        numbers: dict[str, Any] = {"cutouts": len(data), "dimensions": found.dimensions}
        sections = [
            representation_section(data, found, numbers, uniformity_rows=uniformity_rows, dpi=dpi, seed=seed),
        ]
        if embedding != "none":
            plane = embed(data.x, found.covariance(), found.mean, method=embedding, options=umap,
                          max_rows=embedding_rows, rng=stream(seed, "embedding"), seed=seed)  # fmt: skip
            _write_plane(build, data, plane)
            sections.append(map_section(data, plane, numbers, color=color, values=values, names=names,
                                        thumbnails=thumbnails, dpi=dpi))  # fmt: skip
        sections.append(neighbours_section(data, numbers, queries=queries, galleries=galleries, neighbours=neighbours,
                                           metric=metric, pictures=thumbnails > 0, dpi=dpi, seed=seed))  # fmt: skip
        sections.append(physical_section(data, numbers, pairs=pairs, dpi=dpi, seed=seed))
        if second is not None:
            sections.append(two_sample_section(data, second, numbers, rows=test_rows, dpi=dpi, seed=seed))
        section, table = outliers_section(data, numbers, outliers=outliers, neighbour=outlier_neighbour,
                                          reference=outlier_reference, pictures=thumbnails > 0, dpi=dpi,
                                          seed=seed)  # fmt: skip
        sections.append(section)
    if table is not None:
        with build.write("outliers.parquet") as path:
            table.write_parquet(path)
    inputs = {"features": features, "selection": selection, "other": other, "labels": labels}
    write_report(build, title=f"Features {features.id}", lead=_lead(numbers), facts=_facts(numbers), sections=sections,
                 numbers=numbers, inputs=inputs)  # fmt: skip
    build.count(cutouts=len(data))


def _moments(data: FeatureSet) -> Moments:
    found = Moments()
    with progress(len(data), "moments", "cutouts") as bar:
        for _, block in data.x.blocks():
            found.update(block)
            bar.advance(len(block))
    return found


def _write_plane(build: Build, data: FeatureSet, plane: Embedding) -> None:
    ids = data.cutout_id[plane.positions]
    with build.write("embedding.parquet") as path:
        pl.DataFrame({"cutout_id": ids, "x": plane.xy[:, 0], "y": plane.xy[:, 1]}).write_parquet(path)
    build.table = "embedding.parquet"
    build.note(embedding=plane.method, embedding_fitted=plane.fitted)


def _lead(numbers: dict[str, Any]) -> str:
    found = numbers["representation"]
    start = f"{numbers['cutouts']:,} cutouts have features of {numbers['dimensions']} dimensions. "
    if found["collapsed"]:
        return start + found["collapse"]
    return start + (
        f"{found['dimensions_99']} principal components hold 99 % of their variance, and RankMe is "
        f"{found['rankme']:.3g} of at most {min(numbers['cutouts'], numbers['dimensions'])}."
    )


def _facts(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    found = numbers["representation"]
    facts = [
        (f"{numbers['cutouts']:,}", "cutouts"),
        (f"{numbers['dimensions']}", "dimensions"),
        (f"{found['rankme']:.4g}", "RankMe"),
        (f"{found['effective_rank']:.4g}", "effective rank"),
    ]
    if found["alpha"] is not None:
        facts.append((f"{found['alpha']:.2f}", "alpha of the spectrum"))
    for test in numbers.get("physical_neighbours", {}).get("tests", []):
        if (test["first"], test["second"]) == ("touching", "random"):
            facts.append((f"{test['auc']:.3f}", "AUC, neighbours on the sky"))
    if "two_sample" in numbers:
        facts.append((f"{100 * numbers['two_sample']['accuracy']:.1f} %", "told apart from the other set"))
    return facts
