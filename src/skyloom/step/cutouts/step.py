"""step=cutouts: windows of survey images as an index table; no pixel is copied."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from skyloom.errors import ConfigError
from skyloom.progress import progress
from skyloom.sky.catalog import Catalog, read_catalog
from skyloom.step.cutouts.join import join
from skyloom.step.cutouts.options import (
    CatalogFile,
    MaskOptions,
    SourceOptions,
    blank_limit,
    open_catalog,
    unused_options,
)
from skyloom.step.cutouts.pieces import Task, index_image
from skyloom.step.images import ImageSet, SurveyFacts, open_images
from skyloom.store import Build, builds

POSITIONS = "positions.npy"


@builds(
    "cutouts",
    version=2,
    inputs={"images": open_images, "catalog": open_catalog},
    free=("threads", "workers"),
    unused=unused_options,
    pieces=True,
)
def cutouts(
    build: Build,
    *,
    images: ImageSet,
    survey: SurveyFacts,
    strategy: Literal["sliding", "mask", "catalog"],
    window_px: PositiveInt,
    overlap: Annotated[float, Field(ge=0, lt=1)],
    cover_edge: bool,
    mask: MaskOptions,
    catalog: CatalogFile | None,
    sources: SourceOptions,
    nan_policy: Literal["reject", "max_fraction", "fill"],
    max_nan_frac: Annotated[float, Field(ge=0, le=1)] | None,
    fill_value: float | Literal["median"],
    min_peak_snr: float | None,
    rms_samples: Annotated[int, Field(ge=16)],
    on_bad_image: Literal["error", "skip"],
    threads: PositiveInt,
    workers: PositiveInt,
) -> None:
    """Index windows of a set of images.

    Writes ``cutouts.parquet`` (one row per kept window, images by name), ``images.parquet`` (path, fingerprint,
    shape, unit and scale of each image) and ``dropped.parquet`` (one row per window or source that was left out,
    with the reason).

    Parameters
    ----------
    build
        Where to write.
    images
        The images, with their source masks when ``strategy`` is ``mask``.
    survey
        Facts of the survey.
    strategy
        ``sliding``: a regular grid over each image, from its first pixel on. ``mask``: around each connected source
        of the island mask beside the image. ``catalog``: around each position of a catalogue.
    window_px
        Side of a window in pixels; not used by ``mask``, nor by ``catalog`` with a size column.
    overlap
        Fraction of the side shared by neighbours; the stride is ``round(window_px * (1 - overlap))``.
    cover_edge
        Whether one more row and column of windows, flush with the far edges, covers what the stride leaves over.
    mask
        Which islands make a source, and how large its windows are.
    catalog
        The catalogue of ``strategy=catalog``.
    sources
        Columns of the catalogue, and what is made of them.
    nan_policy
        ``reject`` drops windows with any blank pixel; ``max_fraction`` those with more than ``max_nan_frac``; so does
        ``fill``, and whoever reads a window later gets ``fill_value`` in place of its blanks.
    max_nan_frac
        Largest fraction of blank pixels; None stands for 0 with ``max_fraction``, and for no limit with ``fill``, which
        still drops windows without any good pixel.
    fill_value
        In the unit of the image, or ``median`` of the window's good pixels.
    min_peak_snr
        Windows whose peak is below this many rms are dropped; None keeps all.
    rms_samples
        Pixels per window from which the robust rms is measured.
    on_bad_image
        ``error`` stops at an image that cannot be used; ``skip`` counts and names it.
    threads
        Threads per image (``sliding``).
    workers
        Images that are worked on at the same time, each by a process of its own.

    Raises
    ------
    InputError
        An image, mask or catalogue is missing, damaged, or does not fit; or no window is left.
    StoreError
        A worker was killed.
    """
    limit = blank_limit(nan_policy, max_nan_frac)
    if isinstance(fill_value, float) and not np.isfinite(fill_value):
        raise ConfigError(f"fill_value={fill_value}: expected a finite number in the unit of the image, or median")
    table = _catalog(catalog, sources)
    positions = build.shard(POSITIONS, lambda path: _write_positions(path, table)) if table else None
    tasks = {
        f"{i:06d}": Task(
            listed, *images.recorded_path(listed), build.request.id, survey, strategy, window_px, overlap, cover_edge,
            limit, nan_policy != "fill", min_peak_snr, rms_samples, threads, on_bad_image == "skip", mask, sources,
            positions, table is not None and table.size_in_px,
        )
        for i, listed in enumerate(images.images)
    }  # fmt: skip
    with progress(len(tasks), "cutouts", "images") as bar:
        pieces = build.shards_in_parallel(
            tasks, index_image, workers=workers, done=bar.advance, describe=lambda task: task.listed.name
        )
    notes: dict[str, Any] = {"nan_policy": nan_policy, "fill_value": fill_value if nan_policy == "fill" else None}
    if table:
        notes["catalog_columns"] = table.columns
    best = sources.images_per_source == "best"
    join(build, pieces, survey=survey.name, strategy=strategy, notes=notes, catalog=table, best=best)


def _catalog(catalog: CatalogFile | None, sources: SourceOptions) -> Catalog | None:
    if catalog is None:
        return None
    return read_catalog(
        catalog.path, ra=sources.ra, dec=sources.dec, id=sources.id, size=sources.size, size_unit=sources.size_unit
    )


def _write_positions(path: Path, catalog: Catalog) -> None:
    """Write what the workers need of the catalogue where each can map it: 24 bytes per source, not one copy each."""
    records = np.empty(len(catalog), [("ra_deg", "f8"), ("dec_deg", "f8"), ("size", "f8")])
    records["ra_deg"], records["dec_deg"] = catalog.ra_deg, catalog.dec_deg
    records["size"] = np.nan if catalog.size is None else catalog.size
    with path.open("wb") as file:
        np.save(file, records)
