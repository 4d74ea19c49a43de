"""The piece of one image: its windows after each strategy, what is in them, and why some are left out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.sky.files.image import Image, open_image
from skyloom.sky.survey.facts import Survey
from skyloom.sky.window.catalog import sources_on
from skyloom.sky.window.clearance import clearance
from skyloom.sky.window.mask import find_sources, read_mask, windows_around
from skyloom.sky.window.placed import centred_start, measure_windows_at
from skyloom.sky.window.sliding import WindowStats, measure_windows
from skyloom.step.cutouts.options import MaskOptions, SourceOptions
from skyloom.step.cutouts.table import MASK_COLUMNS, window_table
from skyloom.step.images import ListedImage


@dataclass(frozen=True)
class Task:
    """What a worker needs to index one image; the same for all images but for the first three."""

    listed: ListedImage
    artifact: str | None
    """id of the artifact that holds the image"""
    recorded_path: str
    source: str
    """id of the index that is being made"""
    survey: Survey
    strategy: str
    window_px: int
    overlap: float
    cover_edge: bool
    blank_limit: float
    all_blank: bool
    """whether windows without a single good pixel are accepted"""
    min_peak_snr: float | None
    rms_samples: int
    threads: int
    skip_bad: bool
    mask: MaskOptions
    sources: SourceOptions
    positions: Path | None
    """file of the catalogue's positions: (N,) records of ra_deg, dec_deg and size (NaN where missing)"""
    size_in_px: bool


def index_image(folder: Path, task: Task) -> None:
    """Write the piece of one image: a table of all its windows and the facts of the image."""
    folder.mkdir()
    listed = task.listed
    try:
        with open_image(listed.path) as image:
            table, sources = {"sliding": _sliding, "mask": _mask, "catalog": _catalog}[task.strategy](image, task)
            facts = {
                "image": listed.name,
                "artifact": task.artifact,
                "path": task.recorded_path,
                "fingerprint": listed.fingerprint,
                "height_px": image.shape[0],
                "width_px": image.shape[1],
                "dtype": image.dtype.str,
                "unit": image.unit or task.survey.unit,
                "pixel_scale_arcsec": image.pixel_scale_arcsec or task.survey.pixel_scale_arcsec,
                "has_wcs": image.wcs is not None,
                "mask_fingerprint": listed.mask_fingerprint,
            }
    except InputError as error:
        if not task.skip_bad:
            raise
        (folder / "bad.json").write_text(json.dumps({"image": listed.name, "error": str(error)}))
        return
    table.write_parquet(folder / "windows.parquet")
    (folder / "image.json").write_text(json.dumps({"facts": facts, "sources": sources}))


def _sliding(image: Image, task: Task) -> tuple[pl.DataFrame, int]:
    stats = measure_windows(
        image, task.window_px, task.overlap, cover_edge=task.cover_edge, rms_samples=task.rms_samples,
        threads=task.threads,
    )  # fmt: skip
    if np.all(stats.nan_frac == 1):
        raise InputError(f"{image.path} has only blank (NaN) pixels; remove it or set on_bad_image=skip")
    return _table(stats, image, task), 0


def _mask(image: Image, task: Task) -> tuple[pl.DataFrame, int]:
    assert task.listed.mask is not None
    boxes = find_sources(read_mask(task.listed.mask, image.shape), join_px=task.mask.join_px)
    found = windows_around(boxes, task.mask.rules(), image.shape)
    placed = found.fits
    stats = measure_windows_at(
        image, found.row0[placed], found.col0[placed], found.size_px[placed], rms_samples=task.rms_samples
    )
    extra = pl.DataFrame(
        {"island": found.island, "extent_px": found.extent_px, "size_rule": found.size_rule.tolist()},
        schema=MASK_COLUMNS,
    )
    table = _table(stats, image, task, np.where(found.repeated[placed], "repeated", ""))
    table = pl.concat([table, extra.filter(placed)], how="horizontal")
    return _with_large(table, task, found.size_px[~placed], extra.filter(~placed)), len(boxes)


def _catalog(image: Image, task: Task) -> tuple[pl.DataFrame, int]:
    assert task.positions is not None
    catalog = np.load(task.positions, mmap_mode="r")
    at, row, col = sources_on(image, catalog["ra_deg"], catalog["dec_deg"])
    size_px, known = _sizes(image, task, catalog["size"][at])
    margin_px, blank = clearance(image, row, col)
    placed = known & (size_px <= min(image.shape))
    room = np.where(placed, size_px, 1)
    row0, col0 = centred_start(row, room, image.shape[0]), centred_start(col, room, image.shape[1])
    stats = measure_windows_at(image, row0[placed], col0[placed], size_px[placed], rms_samples=task.rms_samples)
    windows = np.stack([row0, col0, size_px])[:, placed]
    repeated = np.ones(placed.sum(), bool)
    repeated[np.unique(windows, axis=1, return_index=True)[1]] = False  # of equal windows the first stands
    reason = np.where(blank[placed], "blanked", np.where(repeated, "repeated", ""))
    extra = pl.DataFrame({"source_row": at, "margin_px": margin_px})
    table = pl.concat([_table(stats, image, task, reason), extra.filter(placed)], how="horizontal")
    table = _with_large(table, task, size_px[known & ~placed], extra.filter(known & ~placed))
    return _with_large(table, task, np.full((~known).sum(), None), extra.filter(~known), "unsized"), len(at)


def _sizes(image: Image, task: Task, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sides of windows around sources, and whether the size of the source is known."""
    if task.sources.size is None:
        return np.full(len(size), task.window_px), np.ones(len(size), bool)
    scale = 1.0 if task.size_in_px or image.pixel_scale_arcsec is None else image.pixel_scale_arcsec
    known = np.isfinite(size) & (size >= 0)
    sides = np.ceil(np.where(known, size, 0.0) * task.sources.size_factor / scale - 1e-9)
    return np.clip(sides, task.sources.min_window_px, 1 << 30).astype(np.int64), known


def _table(stats: WindowStats, image: Image, task: Task, reason: np.ndarray | str = "") -> pl.DataFrame:
    """Windows with the column ``reason``, null for those that are kept; a reason given before stands."""
    blank = stats.nan_frac > task.blank_limit
    if not task.all_blank:
        blank |= stats.nan_frac == 1
    faint = np.zeros(len(stats), bool)
    if task.min_peak_snr is not None:
        faint = ~(stats.peak_snr >= task.min_peak_snr)
    found = np.where(blank, "blank", np.where(faint, "faint", ""))
    reason = np.where(np.asarray(reason) == "", found, reason)
    table = window_table(stats, image, task.listed.name, task.source, task.survey.name)
    return table.with_columns(pl.Series("reason", reason.tolist(), dtype=pl.String).replace({"": None}))


def _with_large(
    table: pl.DataFrame, task: Task, size_px: np.ndarray, extra: pl.DataFrame, reason: str = "large"
) -> pl.DataFrame:
    """Add rows for windows that have no place on the image."""
    if extra.is_empty():
        return table
    given: dict[str, Any] = {
        "survey": task.survey.name, "image": task.listed.name, "source": task.source, "reason": reason,
    }  # fmt: skip
    rows = extra.with_columns(
        pl.Series("size_px", size_px.tolist(), dtype=pl.Int32), *(pl.lit(v).alias(k) for k, v in given.items())
    )
    return pl.concat([table, rows], how="diagonal")
