"""step=cutouts for surveys with bands: windows of tiles, or the footprints of another survey's cutouts, as tables."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from skyloom.errors import ConfigError
from skyloom.progress import progress
from skyloom.step.cutouts.footprints.strategy import footprint_cutouts
from skyloom.step.cutouts.tiles.join import join_tiles
from skyloom.step.cutouts.tiles.pieces import TileTask, cut_tile
from skyloom.step.images import SurveyFacts
from skyloom.step.tiles import TileSet, open_tiles
from skyloom.store import Artifact, Build, Store, builds

GRID = ("window_px", "border_px", "max_sep_px")
FOOTPRINTS = ("shape", "side_px", "min_coverage", "max_offset_px", "truth_margin_px")


def open_match(value: Any, _parameters: Mapping[str, Any], store: Store) -> Artifact | None:
    """Resolver of the input ``match``: cutouts of a survey with bands, or None."""
    if value is None:
        return None
    artifact = store.open(value, "cutouts")
    if "pieces.parquet" not in artifact.manifest["files"]:
        raise ConfigError(
            f"match={value}: cutouts {artifact.id} have one image each; expected cutouts of a survey with bands, such "
            "as step=cutouts survey=roman makes"
        )
    return artifact


def unused_options(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Options that are not read: those of the grid with ``match``, those of footprints without; a margin of nothing."""
    if not values["match"]:
        return FOOTPRINTS
    return GRID if values["truth_margin_px"] else (*GRID, "truth_margin_px")


@builds(
    "cutouts",
    version=1,
    inputs={"images": open_tiles, "match": open_match},
    free=("workers",),
    pieces=True,
    unused=unused_options,
)
def tile_cutouts(
    build: Build,
    *,
    images: TileSet,
    survey: SurveyFacts,
    match: Artifact | None,
    window_px: PositiveInt,
    border_px: NonNegativeInt,
    max_sep_px: Annotated[float, Field(gt=0)],
    shape: Literal["constant", "footprint"],
    side_px: PositiveInt | None,
    min_coverage: Annotated[float, Field(ge=0, le=1)],
    max_offset_px: Annotated[float, Field(gt=0)] | None,
    truth_margin_px: NonNegativeInt,
    on_missing: Literal["error", "skip"],
    on_bad_image: Literal["error", "skip"],
    workers: PositiveInt,
) -> None:
    """Index cutouts of a survey with bands; no pixel is copied.

    Without ``match`` the cutouts lie on a regular grid on each tile; with it, each shows the sky of one of those
    cutouts, under its id. Writes ``cutouts.parquet``, ``images.parquet`` (a row per image and band),
    ``pieces.parquet`` (which rectangles of images fill a cutout), ``files.parquet`` (the other files of each tile) and
    per tile ``truth/<tile>.parquet``, ``detections/<tile>.parquet`` and, on a grid, ``matches/<tile>.parquet``.

    Parameters
    ----------
    build
        Where to write.
    images
        The tiles.
    survey
        Facts of the survey.
    match
        Cutouts of another survey whose footprints are cut; None: a grid.
    window_px
        Grid: side of a cutout in pixels.
    border_px
        Grid: pixels along the edges of a tile that no cutout touches.
    max_sep_px
        Grid: largest distance in pixels between a detection and the true object that it is taken for.
    shape
        Footprints: ``constant`` for one shape, or each as large as its footprint.
    side_px
        Footprints: side of ``shape=constant``; None: the longest side of all footprints.
    min_coverage
        Footprints: smallest part of a cutout that images must fill; others are dropped.
    max_offset_px
        Footprints: how far catalogue positions may lie from where the WCS puts them; None: reported only.
    truth_margin_px
        Footprints: true objects up to this many pixels outside of a cutout are listed for it, too.
    on_missing
        ``error`` stops at a tile that lacks a file; ``skip`` counts and names it.
    on_bad_image
        ``error`` stops at a tile that cannot be used; ``skip`` counts and names it.
    workers
        Tiles worked on at the same time, each by a process of its own.

    Raises
    ------
    InputError
        A file is missing, damaged or does not fit, or no cutout is left.
    StoreError
        A worker was killed.
    """
    build.count(tiles=len(images.tiles) + len(images.incomplete))
    build.drop("incomplete tile", len(images.incomplete), why="the tile lacks a file (on_missing=skip)",
               examples=[f"{name}: {why}" for name, why in images.incomplete.items()])  # fmt: skip
    skip = on_bad_image == "skip"
    if match is not None:
        footprint_cutouts(
            build, tiles=images, match=match, survey=survey, shape=shape, side_px=side_px, min_coverage=min_coverage,
            max_offset_px=max_offset_px, truth_margin_px=truth_margin_px, workers=workers, skip_bad=skip,
        )  # fmt: skip
        return
    tasks = {
        f"{i:06d}": TileTask.of(images, tile, survey, build.request.id, window_px, border_px, max_sep_px, skip)
        for i, tile in enumerate(images.tiles)
    }
    with progress(len(tasks), "cutouts", "tiles") as bar:
        pieces = build.shards_in_parallel(
            tasks, cut_tile, workers=workers, done=bar.advance, describe=lambda task: task.name
        )
    join_tiles(build, pieces, survey=survey, window_px=window_px)
