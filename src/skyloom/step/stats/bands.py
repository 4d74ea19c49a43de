"""Pooled mean, standard deviation, range and percentiles by band, from an integrity report or from the pixels."""

from typing import Any

import numpy as np
import polars as pl

from skyloom.datamodule.band_index import BandIndex
from skyloom.errors import InputError
from skyloom.step.integrity.gate import corrupt_cutouts
from skyloom.step.integrity.step import measure
from skyloom.store import Artifact, Build
from skyloom.transform.moments import BINS, RELATIVE_ERROR, Moments

THREADS = 1  # histograms hold the interpreter, so that only processes help


def has_bands(cutouts: Artifact) -> bool:
    """Whether cutouts belong to a survey with one image per band."""
    return "pieces.parquet" in cutouts.manifest["files"]


def measure_bands(
    build: Build,
    cutouts: Artifact,
    selection: Artifact | None,
    integrity: Artifact | None,
    skip_corrupt: bool,
    method: str,
    percentiles: list[float],
    on_error: str,
    shard_rows: int,
    workers: int,
    image_roots: str | None,
) -> None:
    """Write ``stats.json`` of cutouts with bands; see :func:`skyloom.step.stats.step.stats`."""
    index = BandIndex(cutouts, image_roots=image_roots)
    rows = np.arange(len(index))
    if selection is not None:
        rows = np.unique(index.rows_of(selection.table()["cutout_id"].to_numpy()))
    bins = None
    if integrity is None:
        planes, bins = measure(build, index, rows, image_roots, shard_rows, THREADS, workers, bins=True)
    else:
        planes = _known_planes(integrity, cutouts, index.cutout_id[rows])
    build.drop("not in the selection", len(index) - len(rows), why="selection restricts the cutouts")
    kept = planes
    if integrity is not None and skip_corrupt:
        corrupt = corrupt_cutouts(integrity).filter(pl.col("cutout_id").is_in(planes["cutout_id"].unique().implode()))
        for reason, number in corrupt.group_by("reason").len().sort("reason").iter_rows():
            build.drop(f"corrupt: {reason}", number, why=f"integrity {integrity.id} says so; corrupt=keep keeps them")
        kept = planes.join(corrupt.select("cutout_id"), on="cutout_id", how="anti")
    kept = _without_unreadable(build, kept, on_error)
    left = kept["cutout_id"].n_unique()
    moments = [pooled(kept.filter(pl.col("band") == band)) for band in index.bands]
    for channel, (band, one) in enumerate(zip(index.bands, moments, strict=True)):
        if one.count == 0:
            raise InputError(f"cutouts {cutouts.id}: no finite pixel of band {band} in {left} cutouts; nothing can be "
                             "measured")  # fmt: skip
        if bins is not None:
            one.bins = bins[channel]
    wanted = percentiles if bins is not None else []
    raw = [{"band": band, **one.summary(wanted)} for band, one in zip(index.bands, moments, strict=True)]
    found = {
        "pooled": {"mean": [one["mean"] for one in raw], "std": [one["std"] for one in raw]},
        "mean_of_means": mean_of_means(kept, index.bands),
    }
    build.write_json("stats.json", {
        "unit": index.unit, "bands": index.bands, "cutouts": left, "method": method, **found[method], **found,
        "raw": raw, "scaled": None, "preprocess": None, "preprocess_digest": None,
        "percentiles_relative_error": RELATIVE_ERROR if wanted else None,
    })  # fmt: skip
    build.count(read=len(index), kept=left)
    build.note(unit=index.unit, bands=index.bands, method=method, **found[method])


def pooled(planes: pl.DataFrame) -> Moments:
    """Put the numbers of planes together: those of all their pixels at once.

    The pairwise formula of Chan, Golub & LeVeque (1983, Am. Stat. 37, 242, eq. 2.1), summed over all parts.

    Parameters
    ----------
    planes
        Rows with `count`, `nan_count`, `inf_count`, `mean`, `m2`, `low` and `high`.

    Returns
    -------
    Moments
        Without its histogram.
    """
    blank = int(planes["nan_count"].sum()) + int(planes["inf_count"].sum())
    some = planes.filter(pl.col("count") > 0)
    bins = np.zeros(BINS, dtype=np.int64)
    if some.is_empty():
        return Moments(0, blank, 0.0, 0.0, np.nan, np.nan, bins)
    number, mean, squares = (some[name].to_numpy().astype(np.float64) for name in ("count", "mean", "m2"))
    count = int(some["count"].sum())
    centre = mean[0]  # of this order, so that a large common mean costs no digits
    total = centre + float(np.sum(number * (mean - centre))) / count
    between = float(np.sum(number * np.square(mean - total)))
    low, high = float(some["low"].to_numpy().min()), float(some["high"].to_numpy().max())
    return Moments(count, blank, total, float(np.sum(squares)) + between, low, high, bins)


def mean_of_means(planes: pl.DataFrame, bands: tuple[str, ...]) -> dict[str, list[float | None]]:
    """Means, over cutouts, of the mean and of the standard deviation of each: those of the predecessor, by band.

    Every cutout counts the same, whatever its size, and the spread between cutouts is not part of the result.
    """
    some = planes.filter(pl.col("count") > 0).group_by("band").agg(pl.col("mean", "image_std").mean())
    by_band = {band: (mean, std) for band, mean, std in some.select("band", "mean", "image_std").iter_rows()}
    return {"mean": [by_band[band][0] for band in bands], "std": [by_band[band][1] for band in bands]}


def _known_planes(integrity: Artifact, cutouts: Artifact, ids: np.ndarray) -> pl.DataFrame:
    """Planes of cutouts by id from a report, in its order."""
    about = integrity.manifest["inputs"]["cutouts"]["id"]
    if about != cutouts.id:
        raise InputError(
            f"integrity {integrity.id} is about cutouts {about}; expected cutouts {cutouts.id}: run step=integrity "
            f"cutouts={cutouts.id}"
        )
    planes: Any = integrity.table("integrity.parquet")
    return planes.filter(pl.col("cutout_id").is_in(ids.tolist()))


def _without_unreadable(build: Build, planes: pl.DataFrame, on_error: str) -> pl.DataFrame:
    """Leave out cutouts of which a band cannot be read, or stop at the first."""
    bad = planes.filter("unreadable")
    if bad.is_empty():
        return planes
    if on_error == "stop":
        raise InputError(f"{bad['message'][0]} (on_error=skip leaves such cutouts out)")
    build.drop("unreadable", bad["cutout_id"].n_unique(), why="an image could not be read",
               examples=bad["message"].unique(maintain_order=True).to_list())  # fmt: skip
    return planes.join(bad.select("cutout_id"), on="cutout_id", how="anti")
