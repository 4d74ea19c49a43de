"""report=detections: catalogues of detections against one truth: found, missed, blended, and how well measured."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from skyloom.datamodule.table_input import TableInput, table_resolver
from skyloom.datamodule.threshold_sweep import SWEEP_KINDS
from skyloom.errors import ConfigError
from skyloom.metric.thresholds import Strategy
from skyloom.report.detections.area import in_common_area, tells_images
from skyloom.report.detections.columns import Columns
from skyloom.report.detections.compare import compare, lead_and_facts, page_sections
from skyloom.report.detections.inputs import TRUTH, TRUTH_KINDS, Catalogs, command_words, open_catalogs
from skyloom.report.detections.match import Cost, Matching, Method
from skyloom.report.detections.options import (
    Bins,
    Density,
    Limit,
    Linking,
    Neighbours,
    Nominal,
    TurnOff,
    limits_in_mag,
    linking_names,
)
from skyloom.report.detections.output import finite, write_drops, write_tables
from skyloom.report.detections.sweep import sweep_section
from skyloom.report.detections.tables import Sources, read_sources
from skyloom.report.writing import write_report
from skyloom.store import Artifact, Build, builds, of_kind


def _unused(values: Any) -> tuple[str, ...]:
    """Options that are not read with such values."""
    names: tuple[str, ...] = ()
    if values["method"] != "assign" or values["cost"] != "mixed":
        names += ("sep_scale_arcsec", "mag_scale")
    if values["sweep"] is None:
        names += ("metrics", "strategy", "constraints", "lower_is_better")
    if values["images"] is None or not values["examples"]:
        names += ("example_size_arcsec", "example_band")
    if not any(map(tells_images, (values["truth"], *values["catalogs"].values()))):
        names += ("common_area",)
    return names


@builds(
    "report",
    version=1,
    inputs={
        "truth": table_resolver(*TRUTH_KINDS),
        "catalogs": open_catalogs,
        "images": of_kind("cutouts"),
        "sweep": table_resolver(*SWEEP_KINDS),
    },
    free=("image_roots",),
    unused=_unused,
)
def detections(
    build: Build,
    *,
    truth: TableInput,
    catalogs: Catalogs,
    images: Artifact | None,
    columns: dict[str, Columns] | None,
    on_bad_position: Literal["error", "skip"],
    common_area: bool,
    radius_arcsec: NonNegativeFloat,
    method: Method,
    cost: Cost,
    sep_scale_arcsec: PositiveFloat,
    mag_scale: PositiveFloat,
    linking: list[Linking],
    limits: list[Limit],
    nominal: Nominal,
    turn_off: TurnOff,
    bins: Bins,
    neighbours: Neighbours,
    density: Density,
    bootstrap: NonNegativeInt,
    sweep: TableInput | None,
    metrics: list[str],
    strategy: Strategy,
    constraints: dict[str, float] | None,
    lower_is_better: list[str],
    examples: NonNegativeInt,
    example_size_arcsec: PositiveFloat,
    example_band: str | None,
    dpi: Annotated[int, Field(ge=50, le=600)],
    seed: NonNegativeInt,
    image_roots: str | None,
) -> None:
    """Compare catalogues of detections with one truth.

    Writes ``report.html`` (self-contained), ``numbers.json``, the plots as PNG, and as Parquet the scores of all
    catalogues, their bins, groups, unrecognised blends and residuals, and per catalogue ``matches_<name>``,
    ``flags_truth_<name>`` and ``flags_detected_<name>``.

    Parameters
    ----------
    build
        Where to write.
    truth
        File, or artifact of kind ``cutouts``, ``annotations``, ``dataset`` or ``catalog``.
    catalogs
        The same by name.
    images
        Band cutouts from which blends are drawn; None draws none.
    columns
        Columns of ``truth`` and of each catalogue, by name; None looks for the usual ones.
    on_bad_position
        ``skip`` leaves rows without a position out and counts them.
    common_area
        Judge only what lies in the images that every artifact of kind ``catalog`` was made from; the rest is counted.
    radius_arcsec
        Within which a truth and a detection may belong together: the one radius of matches and flags.
    method
        ``assign`` (one-to-one, as many as possible), ``mutual`` nearest, or ``nearest`` truth of each detection.
    cost
        What ``assign`` minimises: ``separation``, or ``mixed`` with magnitudes.
    sep_scale_arcsec, mag_scale
        Expected errors, with ``cost=mixed``.
    linking
        Lengths in arcsec of the friends-of-friends groups, each a number or largest groups by length.
    limits
        Magnitudes at which both sides are cut: ``gold``, ``nominal``, ``turn_off`` or numbers; "all" is always there.
    nominal, turn_off
        How those are found.
    bins
        Edges of the bins by quantity.
    neighbours
        Circle and magnitude window of the neighbour counts.
    density
        Circle in which truths are counted, and number of bins.
    bootstrap
        Resamples; 0 makes no such intervals.
    sweep
        Table of scores over thresholds, a file or an artifact of kind ``sweep``; None leaves it out.
    metrics, strategy, constraints, lower_is_better
        How its points are ranked, see :func:`skyloom.metric.thresholds.rank_thresholds`.
    examples
        Blends drawn per catalogue; 0 draws none.
    example_size_arcsec
        Side of a stamp.
    example_band
        Its band; None takes the last one of the images.
    dpi
        Pixels per inch of the plots, 50 to 600.
    seed
        Start of the random streams.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    InputError
        A table lacks a column, repeats an id, or has rows without positions.
    ConfigError
        Options do not fit together or to the tables.
    """
    columns = columns or {}
    if unknown := sorted(set(columns) - {TRUTH, *catalogs}):
        raise ConfigError(f"columns: {', '.join(unknown)} is neither {TRUTH} nor one of {', '.join(catalogs)}")
    how = Matching(radius_arcsec, method, cost, sep_scale_arcsec, mag_scale)
    need_mag = bins.mag is not None or bool(limits) or cost == "mixed"

    def read(name: str, given: TableInput, role: str) -> Sources:
        own = columns.get(name, Columns())
        return read_sources(
            given, name=name, role=role, columns=own, on_bad_position=on_bad_position, need_mag=need_mag
        )

    true = read(TRUTH, truth, "truth")
    found = {name: read(name, given, "detections") for name, given in catalogs.items()}
    if common_area:
        true, found = in_common_area(true, found, [truth, *catalogs.values()])
    if limits and (bare := [one.name for one in (true, *found.values()) if "mag" not in one.has]):
        raise ConfigError(f"limits cut both sides by magnitude, and {', '.join(bare)} has none; use limits=[]")
    cuts = limits_in_mag(limits, nominal, turn_off, found)
    result = compare(
        true, found, how, cuts=cuts, linking=linking_names(linking), bins=bins, neighbours=neighbours, density=density,
        bootstrap=bootstrap, seed=seed,
    )  # fmt: skip
    sections = page_sections(
        result, cuts=cuts, radius_arcsec=radius_arcsec, images=images, image_roots=image_roots, examples=examples,
        example_size_arcsec=example_size_arcsec, example_band=example_band, dpi=dpi, seed=seed,
    )  # fmt: skip
    numbers: dict[str, Any] = {"truth": true.counts, "limits_mag": cuts, "radius_arcsec": radius_arcsec}
    numbers |= {"catalogs": result.numbers}
    if sweep is not None:
        sections.append(
            sweep_section(sweep, numbers, metrics=metrics, strategy=strategy, constraints=constraints,
                          lower_is_better=lower_is_better, dpi=dpi)
        )  # fmt: skip
    write_tables(build, result)
    lead, facts = lead_and_facts(result, radius_arcsec, method)
    given = {"truth": truth, "catalogs": catalogs, "images": images, "sweep": sweep}
    artifacts = {"truth": truth.artifact, **catalogs.artifacts, "images": images}
    artifacts |= {"sweep": sweep.artifact if sweep is not None else None}
    write_report(
        build, title=f"{len(found)} catalogue{'s' * (len(found) != 1)} against one truth", lead=lead, facts=facts,
        sections=sections, numbers=finite(numbers), inputs=artifacts,
        words=command_words(build.request.parameters, given),
    )  # fmt: skip
    build.count(truths=len(true), **{f"detections_{name}": len(one) for name, one in found.items()})
    write_drops(build, [true, *found.values()])
