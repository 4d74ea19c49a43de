"""The part of step=annotate source=truth that is done per tile: every true object drawn alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from astropy.stats import sigma_clipped_stats

from skyloom.datamodule.band_index import BandIndex, truth_of
from skyloom.datamodule.table_input import OUTSIDE
from skyloom.sky.drawing.psf import psf_model
from skyloom.sky.drawing.truth_galaxy import Sources, check_columns, sources_of
from skyloom.sky.drawing.truth_mask import MaskDrawer
from skyloom.sky.geometry.local_frame import sky_jacobian
from skyloom.sky.mask.deepdisc import DeepDiscDrawer
from skyloom.sky.survey.facts import Survey
from skyloom.step.annotate.columns import (
    IMAGE_COLUMNS,
    REJECTED_COLUMNS,
    annotation_table,
    image_row,
    mask_row,
)
from skyloom.store import Artifact

NO_MASK = ("empty_mask", "small_mask", "invalid_contours")
NOT_REACHING = ("not_reaching", "its centre is outside of the cutout, and so is its mask")


@dataclass(frozen=True)
class TruthTask:
    """What a worker needs to annotate one tile."""

    cutouts: Path
    image_roots: str | None
    tile: str
    survey: Survey
    snr: float
    matched_filter: bool
    dilate_px: int | None
    min_area_px: int
    noise: Mapping[str, float] | None
    deepdisc: bool

    @property
    def name(self) -> str:
        """Name of the tile."""
        return self.tile


def annotate_from_truth(folder: Path, task: TruthTask) -> None:
    """Write the piece of one tile: its annotations, rejected objects and images."""
    index, drawer, peer = _opened(task)
    facts, bands = task.survey.truth, task.survey.bands
    assert facts is not None
    truth = truth_of(index.artifact, task.tile)
    check_columns(truth.columns, facts, bands, f"truth/{task.tile}.parquet of cutouts {index.artifact.id}")
    truth = truth.with_row_index("_row")
    sources = sources_of(truth, facts, bands)
    of_cutout = {key[0]: part for key, part in truth.partition_by("cutout_id", as_dict=True).items()}
    rows: list[int] = []  # of the truth, one per mask
    masks: list[dict[str, Any]] = []
    rejected, images = [], []
    for row in np.flatnonzero((index.table["tile"] == task.tile).to_numpy()):
        place = index.table.row(int(row), named=True)
        id = place["cutout_id"]
        noise = band_noise(index, int(row), task)
        own = of_cutout.get(id, truth.clear())
        outcome = _outcomes(index, int(row), own, sources[own["_row"].to_numpy()], noise, task, drawer, peer)
        if OUTSIDE in own.columns:
            outcome = [
                NOT_REACHING if far and isinstance(one, tuple) and one[0] in NO_MASK else one
                for far, one in zip(own[OUTSIDE], outcome, strict=True)
            ]
        kept = [i for i, one in enumerate(outcome) if isinstance(one, dict)]
        lost = [(id, name, *one) for name, one in zip(own["object_id"], outcome, strict=True) if isinstance(one, tuple)]
        rows += own["_row"].gather(kept).to_list()
        masks += [one for one in outcome if isinstance(one, dict)]
        rejected += lost
        images.append(image_row(place, len(kept), len(lost), noise))
    folder.mkdir()
    schema = IMAGE_COLUMNS | {f"noise_{band.name}": pl.Float64() for band in bands}
    for name, table in {
        "annotations": annotation_table(truth[rows].drop("_row"), masks, facts, bands),
        "rejected": pl.DataFrame(rejected, schema=REJECTED_COLUMNS, orient="row"),
        "images": pl.DataFrame(images, schema=schema),
    }.items():
        table.write_parquet(folder / f"{name}.parquet", compression="zstd", statistics=True)


def band_noise(index: BandIndex, row: int, task: TruthTask) -> dict[str, float | None]:
    """Noise per band: as given, or the sigma-clipped standard deviation of the cutout's pixels.

    3 sigma, 5 rounds (:func:`astropy.stats.sigma_clipped_stats`). None: the band has no pixel, or all are equal.
    """
    if task.noise is not None:
        return {band: float(task.noise[band]) for band in index.bands}
    found: dict[str, float | None] = {}
    for band, plane in zip(index.bands, index.read(row), strict=True):
        good = plane[np.isfinite(plane)]
        level = float(sigma_clipped_stats(good)[2]) if len(good) else 0.0
        found[band] = level if level > 0 else None
    return found


@lru_cache(maxsize=1)
def _open(folder: Path, image_roots: str | None) -> BandIndex:
    return BandIndex(Artifact(folder), image_roots=image_roots)


_DRAWERS: dict[str, tuple[MaskDrawer, DeepDiscDrawer | None]] = {}  # one per process: making it takes as long as a tile


def _opened(task: TruthTask) -> tuple[BandIndex, MaskDrawer, DeepDiscDrawer | None]:
    index = _open(task.cutouts, task.image_roots)
    key = str((task.survey.parameter(), index.pixel_scale_arcsec, task.matched_filter, task.dilate_px, task.deepdisc))
    if key not in _DRAWERS:
        psfs = [psf_model(band) for band in task.survey.bands]
        scale = index.pixel_scale_arcsec
        drawer = MaskDrawer(psfs, scale, matched=task.matched_filter, dilate_px=task.dilate_px)
        _DRAWERS.clear()
        _DRAWERS[key] = drawer, DeepDiscDrawer(psfs, scale, task.survey.bands) if task.deepdisc else None
    return index, *_DRAWERS[key]


def _outcomes(
    index: BandIndex,
    row: int,
    truth: pl.DataFrame,
    sources: Sources,
    noise: Mapping[str, float | None],
    task: TruthTask,
    drawer: MaskDrawer,
    peer: DeepDiscDrawer | None,
) -> list[dict[str, Any] | tuple[str, str]]:
    """Per object of a cutout the columns of its mask, or why it has none."""
    if not len(truth):
        return []
    levels = np.array([np.nan if noise[band] is None else noise[band] for band in index.bands], np.float64)
    first = truth["object_id"].is_first_distinct().to_list()
    outcome: list[Any] = [
        problem or (None if new else ("duplicate_id", "an object of this id stands before it in the cutout"))
        for problem, new in zip(sources.problem, first, strict=True)
    ]
    shape = index.shape(row)
    if not np.isfinite(levels).any():
        return [one or ("no_noise", "all bands are blank or constant in this cutout") for one in outcome]
    rows = np.flatnonzero([one is None for one in outcome])
    x, y = (truth[name].to_numpy()[rows] for name in ("x_px", "y_px"))
    if peer is not None:
        for i, px, py in zip(rows.tolist(), x, y, strict=True):
            outcome[i] = peer.row(sources, i, px, py, levels, task.snr, shape, task.min_area_px)
        return outcome
    jacobian = sky_jacobian(index.wcs(row), x, y)
    threshold = drawer.thresholds(levels, task.snr)
    for i, mask in zip(rows.tolist(), drawer.masks(sources[rows], x, y, jacobian, threshold, shape), strict=True):
        if mask is None:
            outcome[i] = "empty_mask", "below the threshold in every band"
        else:
            outcome[i] = mask_row(mask.pixels, mask.row0, mask.col0, shape, task.min_area_px)
    return outcome
