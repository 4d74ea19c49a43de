"""step=annotate: a mask, box and keypoint for every true object of cutouts, drawn with GalSim or from a map."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from skyloom.errors import ConfigError
from skyloom.progress import progress
from skyloom.step.annotate.columns import require_table
from skyloom.step.annotate.join import join_annotations
from skyloom.step.annotate.segments import SegmentTask, annotate_from_segments
from skyloom.step.annotate.truth import TruthTask, annotate_from_truth
from skyloom.step.images import SurveyFacts
from skyloom.store import Artifact, Build, builds, of_kind

DRAWING = ("snr", "matched_filter", "dilate_px", "noise", "compat")


def unused_options(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Options that are not read: those of drawing with a segmentation map, those that compat fixes with it."""
    if values["source"] == "segmentation":
        return DRAWING
    return ("matched_filter", "dilate_px") if values["compat"] else ()


@builds(
    "annotations",
    version=1,
    inputs={"cutouts": of_kind("cutouts")},
    free=("workers", "image_roots"),
    pieces=True,
    unused=unused_options,
)
def annotate(
    build: Build,
    *,
    cutouts: Artifact,
    survey: SurveyFacts,
    source: Literal["truth", "segmentation"],
    snr: Annotated[float, Field(gt=0)],
    matched_filter: bool,
    dilate_px: NonNegativeInt | None,
    min_area_px: PositiveInt,
    noise: dict[str, Annotated[float, Field(gt=0)]] | None,
    compat: Literal["deepdisc"] | None,
    workers: PositiveInt,
    image_roots: str | None,
) -> None:
    """Annotate the true objects of band cutouts.

    Writes per tile ``annotations/<tile>.parquet`` (mask, box, keypoint, magnitudes and all truth columns per object)
    and ``rejected/<tile>.parquet`` (every other object, and why); ``images.parquet`` (one row per cutout with counts
    and noise) and ``categories.json``. A tile is one resumable piece.

    Parameters
    ----------
    build
        Where to write.
    cutouts
        Artifact of kind ``cutouts`` of a survey with bands and a table of true objects.
    survey
        Facts of the survey that the cutouts are of: bands with PSFs, names of the truth columns.
    source
        ``truth``: draws each object alone and without noise, and takes the pixels above a threshold in any band.
        ``segmentation``: takes the survey's own map, for detections that were matched to a true object.
    snr
        Threshold in units of the noise.
    matched_filter
        Whether the threshold is that of a matched filter (drawn object convolved with the PSF once more, noise scaled
        accordingly) or that of single pixels.
    dilate_px
        Width of the ellipse by which masks are dilated; None: two sigma of the PSF, rounded down.
    min_area_px
        Masks with fewer pixels in the cutout are rejected.
    noise
        Noise per band in the unit of the pixels; None: measured in each cutout.
    compat
        ``deepdisc``: drawn with the choices of that pipeline, to compare.
    workers
        Tiles annotated at the same time, each by a process of its own.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    ConfigError
        The cutouts are of another survey, or the survey's file does not say what drawing needs.
    InputError
        A table lacks a column, or an image cannot be read or has changed.
    """
    tiles = _checked(cutouts, survey, source, noise)
    common = (cutouts.path, image_roots)
    with progress(len(tiles), "annotate", "tiles") as bar:
        if source == "truth":
            drawn = {
                f"{i:06d}": TruthTask(
                    *common, tile, survey, snr, matched_filter, dilate_px, min_area_px, noise, compat is not None
                )
                for i, tile in enumerate(tiles)
            }
            pieces = build.shards_in_parallel(
                drawn, annotate_from_truth, workers=workers, done=bar.advance, describe=lambda task: task.name
            )
        else:
            taken = {f"{i:06d}": SegmentTask(*common, tile, survey, min_area_px) for i, tile in enumerate(tiles)}
            pieces = build.shards_in_parallel(
                taken, annotate_from_segments, workers=workers, done=bar.advance, describe=lambda task: task.name
            )
    join_annotations(build, pieces, tiles)
    drawing = {"snr": snr, "matched_filter": matched_filter, "compat": compat} if source == "truth" else {}
    build.note(cutouts=cutouts.id, survey=survey.name, source=source, min_area_px=min_area_px,
               bands=[band.name for band in survey.bands], snr=None, compat=None)  # fmt: skip
    build.note(**drawing)


def _checked(cutouts: Artifact, survey: SurveyFacts, source: str, noise: dict[str, float] | None) -> list[str]:
    """Tiles of the cutouts, once all that is needed for them is there."""
    if "pieces.parquet" not in cutouts.manifest["files"]:
        raise ConfigError(
            f"cutouts {cutouts.id} have one image each; expected cutouts of a survey with bands, such as "
            "step=cutouts survey=lsst makes"
        )
    of, bands = cutouts.notes["survey"], [band.name for band in survey.bands]
    if of != survey.name or cutouts.notes["bands"] != bands:
        raise ConfigError(
            f"cutouts {cutouts.id} are of survey {of} with bands {', '.join(cutouts.notes['bands'])}, not of "
            f"{survey.name} with {', '.join(bands) or 'none'}; give survey={of}"
        )
    if survey.truth is None:
        raise ConfigError(f"survey {survey.name} does not say what the columns of its truth table are; fill in truth")
    if noise is not None and (absent := [band for band in bands if band not in noise]):
        raise ConfigError(f"noise has no value for {', '.join(absent)}; give one per band, or noise=null to measure it")
    tiles = sorted(cutouts.table("cutouts.parquet")["tile"].unique().to_list())
    names = cutouts.manifest["files"]
    for tile in tiles:
        for folder in ("truth",) if source == "truth" else ("truth", "detections", "matches"):
            require_table(names, folder, tile, f"cutouts {cutouts.id}")
    return tiles
