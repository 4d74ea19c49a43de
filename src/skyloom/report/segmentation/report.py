"""report=segmentation: detectors' masks and boxes against the truth of a data set, by COCO's scores, on one page."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, NonNegativeInt, PositiveInt

from skyloom.report.detections.inputs import Catalogs, command_words
from skyloom.report.detections.output import finite
from skyloom.report.segmentation import sections as parts
from skyloom.report.segmentation.found import read_found
from skyloom.report.segmentation.inputs import Part, Selection, TruthBins, open_found
from skyloom.report.segmentation.judge import Compared, common_rows, compare
from skyloom.report.segmentation.numbers import ANY, CLASSES, MODES
from skyloom.report.segmentation.truth import open_truth
from skyloom.report.writing import write_report
from skyloom.store import Artifact, Build, builds, of_kind


def _unused(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Options that are not read with such values."""
    names: tuple[str, ...] = () if values["examples"] else ("example_band",)
    candidates = any(one.kind == "candidates" for one in values["catalogs"].artifacts.values())
    return names if candidates else (*names, "selection")


@builds(
    "report",
    version=1,
    inputs={"dataset": of_kind("dataset"), "catalogs": open_found},
    free=("image_roots",),
    unused=_unused,
)
def segmentation(
    build: Build,
    *,
    dataset: Artifact,
    part: str | None,
    catalogs: Catalogs,
    selection: Selection,
    on_missing: Literal["error", "skip"],
    areas_px2: dict[str, tuple[float, float]],
    max_detections: PositiveInt,
    band: str | None,
    bins: TruthBins,
    operating_score: Part | None,
    examples: NonNegativeInt,
    example_band: str | None,
    dpi: Annotated[int, Field(ge=50, le=600)],
    seed: NonNegativeInt,
    image_roots: str | None,
) -> None:
    """Judge catalogues of masks and boxes.

    Writes ``report.html`` (self-contained), ``numbers.json``, the plots as PNG, and as Parquet ``scores``, ``bins``,
    ``curves`` and ``confusion`` of all catalogues.

    Parameters
    ----------
    build
        Where to write.
    dataset
        The truth, of kind ``dataset``.
    part
        Part of its split or subset; None takes all its images.
    catalogs
        Artifacts of kind ``catalog`` or ``candidates`` by name. Where their grid is not that of the annotations, masks
        and boxes are brought there by the WCS.
    selection
        What is chosen of candidates.
    on_missing
        ``error``, or ``skip``: all are judged on the images that every catalogue looked at, and the rest is counted.
    areas_px2
        Ranges of the true masks' areas by name.
    max_detections
        The best so many of each image and class are judged.
    band
        Of magnitudes and signal to noise; None: the one in the middle of those that the annotations have.
    bins
        Edges of the bins of both.
    operating_score
        From which detections enter the confusion matrix and the pictures; None: that of the best F1 of each catalogue.
    examples
        Images shown; 0 shows none.
    example_band
        Their band; None: ``band``, where the images have it.
    dpi
        Pixels per inch of the plots, 50 to 600.
    seed
        Start of the random stream: which images are shown.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    InputError
        Catalogue and data set do not fit together, or a catalogue lacks images.
    ConfigError
        No such part or band, areas that do not rise, a score below what was kept.
    """
    truth = open_truth(dataset, part, band=band, image_roots=image_roots)
    found = {
        name: read_found(name, artifact, truth.data.cutout_id, selection=selection, band=truth.band,
                         classes=truth.classes)
        for name, artifact in catalogs.artifacts.items()
    }  # fmt: skip
    rows = common_rows(truth, found, part, on_missing)
    edges = {} if truth.band is None else bins.edges()
    result = compare(truth, found, rows, areas=areas_px2, max_detections=max_detections, edges=edges,
                     operating_score=operating_score)  # fmt: skip
    tables, least = _tables(result), {name: one.least_score for name, one in found.items()}
    _write(build, tables)
    own, classes = result.catalogs, truth.classes
    sections = [
        parts.scores_section(own, least),
        parts.areas_section(own, areas_px2),
        parts.classes_section(own, classes, dpi),
        parts.curves_section(tables["curves"], list(own), classes, dpi),
        parts.bins_section(tables["bins"], own, truth, edges, dpi),
        parts.examples_section(truth, own, rows, examples, example_band, dpi, seed),
        parts.coverage_section(result.counts, part),
    ]
    facts = [(f"{result.counts['judged']:,}", "images"), (f"{result.counts['truths']:,}", "true objects")]
    facts += [(parts.text_of(one.numbers[ANY]["mask_ap50"]), f"mask AP50 of {name}") for name, one in own.items()]
    numbers = {"part": part, "band": truth.band, **{k: v for k, v in result.counts.items() if k != "catalogs"}}
    numbers["catalogs"] = {name: one.numbers | result.counts["catalogs"][name] for name, one in own.items()}
    write_report(
        build, title=f"Masks and boxes of {len(own)} catalogue{'s' * (len(own) != 1)}",
        lead=f"{result.counts['truths']:,} true objects in {result.counts['judged']:,} images: how well their masks, "
        "boxes and classes are found, by size, brightness and signal to noise.",
        facts=facts, sections=sections, numbers=finite(numbers), inputs={"dataset": dataset, **catalogs.artifacts},
        words=command_words(build.request.parameters, {"dataset": dataset, "catalogs": catalogs}),
    )  # fmt: skip
    _count(build, result)


def _tables(result: Compared) -> dict[str, pl.DataFrame]:
    """The tables of all catalogues; ``scores`` has a row per catalogue and mode."""
    rows = [
        {"catalog": name, "mode": mode, "images": result.counts["judged"], "truths": result.counts["truths"],
         "detections": one.numbers["detections"], **one.numbers[mode]}
        for name, one in result.catalogs.items() for mode in MODES
    ]  # fmt: skip
    first = {key: None for row in rows if row["mode"] == CLASSES for key in row}
    tables = {"scores": pl.DataFrame([{**first, **row} for row in rows], infer_schema_length=None)}
    for key in ("bins", "curves", "confusion"):
        each = [(name, getattr(one, key)) for name, one in result.catalogs.items()]
        tables[key] = pl.concat(own.select(pl.lit(name).alias("catalog"), pl.all()) for name, own in each)
    return tables


def _write(build: Build, tables: Mapping[str, pl.DataFrame]) -> None:
    for name, table in tables.items():
        with build.write(f"{name}.parquet") as path:
            table.with_columns(pl.selectors.float().fill_nan(None)).write_parquet(path, compression="zstd")
    build.table = "scores.parquet"


def _count(build: Build, result: Compared) -> None:
    counts = result.counts
    build.count(images=counts["judged"], truths=counts["truths"])
    build.count(**{f"detections_{name}": one.numbers["detections"] for name, one in result.catalogs.items()})
    build.drop("images not judged", counts["images"] - counts["judged"], why="a catalogue lacks them (on_missing=skip)")
    for name, own in counts["catalogs"].items():
        build.drop(f"{name}: images it lacks", own["missing"], why="it did not look at them (on_missing=skip)")
        build.drop(f"{name}: images outside the part", own["other_images"], why="nobody asked for them")
        build.drop(f"{name}: detections off image", own["outside"], why="they lie outside the image of the truth")
