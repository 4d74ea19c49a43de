"""Joins the pieces of all images to the tables of a cutout index and tells what was left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.sky.catalog import Catalog
from skyloom.step.cutouts.table import COLUMNS, IMAGE_COLUMNS
from skyloom.store import Build

REASONS = {
    "blank": "more blank (NaN or infinite) pixels than nan_policy and max_nan_frac allow",
    "faint": "peak S/N below min_peak_snr",
    "large": "the window is larger than the image",
    "repeated": "the very same window stands for another source or size",
    "blanked": "the source's own pixel is blank",
    "unsized": "the size of the source is missing",
    "elsewhere": "another image shows the source farther from edges and blanks (images_per_source=best)",
    "outside": "the source lies on none of the images",
    "no position": "the position of the source is missing or impossible",
}
MAX_NAMES = 20


def join(build: Build, pieces: list[Path], *, survey: str, strategy: str, notes: dict[str, Any],
         catalog: Catalog | None, best: bool) -> None:  # fmt: skip
    """Write ``cutouts.parquet``, ``images.parquet`` and ``dropped.parquet``.

    Parameters
    ----------
    build
        Where to write.
    pieces
        Pieces of the images, in the order of their names.
    survey, strategy
        For notes and messages.
    notes
        What the manifest is to tell besides.
    catalog
        The catalogue of ``strategy=catalog``.
    best
        Keep one window per source of the catalogue only.

    Raises
    ------
    InputError
        No image can be used, units differ, or no window is left.
    """
    bad = [json.loads((p / "bad.json").read_text()) for p in pieces if (p / "bad.json").exists()]
    good = [p for p in pieces if not (p / "bad.json").exists()]
    build.drop("bad image", len(bad), why="the image cannot be used (on_bad_image=skip)",
               examples=[f"{item['image']}: {item['error']}" for item in bad])  # fmt: skip
    if not good:
        raise InputError(f"none of the {len(pieces)} images can be used; the first one: {bad[0]['error']}")
    told = [json.loads((p / "image.json").read_text()) for p in good]
    facts = pl.DataFrame([item["facts"] for item in told], schema=IMAGE_COLUMNS)
    units = _one_unit(facts)
    windows = pl.concat([pl.read_parquet(p / "windows.parquet") for p in good], how="diagonal")
    lost = None
    if catalog is not None:
        windows, lost = _with_sources(windows, catalog, best), _lost(windows, catalog)
        windows = windows.select(*COLUMNS, "source_id", "reason")
    kept = windows.filter(pl.col("reason").is_null()).drop("reason")
    dropped = windows.filter(pl.col("reason").is_not_null())
    if lost is not None:
        dropped = pl.concat([dropped, lost], how="diagonal")
    counts = dict(dropped["reason"].value_counts().iter_rows())
    for reason, why in REASONS.items():
        build.drop(f"{reason} window" if reason in ("blank", "faint", "large", "repeated") else reason,
                   counts.get(reason, 0), why=f"{why}; all are listed in dropped.parquet")  # fmt: skip
    if kept.is_empty():
        raise InputError(_nothing_left(strategy, len(dropped), counts))
    if kept["cutout_id"].n_unique() != len(kept):
        raise InputError("two windows have the same cutout_id; rename one of the images and index again")
    sizes = kept["size_px"].value_counts().sort("size_px")
    without_sky = facts.filter(~pl.col("has_wcs"))["image"].to_list()
    build.count(images=len(pieces), read=len(kept) + len(dropped), kept=len(kept))
    if catalog is not None:
        build.count(sources=len(catalog))
    if strategy == "mask":
        build.count(sources=sum(item["sources"] for item in told))
        notes = notes | {"larger_than_window": _larger_than_window(kept)}
    build.note(
        survey=survey,
        strategy=strategy,
        unit=units[0] if units else None,
        window_px=sizes["size_px"][0] if len(sizes) == 1 else None,
        images_without_wcs={"number": len(without_sky), "names": without_sky[:MAX_NAMES],
                            "meaning": "their cutouts have null ra_deg, dec_deg and healpix"},
        **notes,
    )  # fmt: skip
    if len(sizes) > 1:
        build.note(sizes_px={str(size): number for size, number in sizes.iter_rows()})
    for name, table in (("cutouts", kept), ("images", facts), ("dropped", dropped)):
        with build.write(f"{name}.parquet") as path:
            table.write_parquet(path, compression="zstd", statistics=True)
    build.table = "cutouts.parquet"


def _one_unit(facts: pl.DataFrame) -> list[str]:
    units = facts["unit"].drop_nulls().unique().sort().to_list()
    if len(units) > 1:
        first = {unit: facts.filter(pl.col("unit") == unit)["image"][0] for unit in units}
        raise InputError(f"the images have different units ({first}); index them apart")
    return units


def _with_sources(windows: pl.DataFrame, catalog: Catalog, best: bool) -> pl.DataFrame:
    """Name the source of each window, and choose among images."""
    if best:
        # Sorted so that the first row of a source is the one to keep; images come in the order of their names.
        ranked = (
            windows.with_row_index("at")
            .filter(pl.col("reason").is_null())
            .sort("source_row", "margin_px", "at", descending=[False, True, False])
        )
        beaten = ranked.filter(~pl.col("source_row").is_first_distinct())["at"]
        windows = windows.with_row_index("at").with_columns(
            reason=pl.when(pl.col("at").is_in(beaten.implode())).then(pl.lit("elsewhere")).otherwise(pl.col("reason"))
        ).drop("at")  # fmt: skip
    return windows.with_columns(source_id=catalog.source_id.gather(windows["source_row"]))


def _lost(windows: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """Sources without any window, in the order of the catalogue."""
    at = np.ones(len(catalog), bool)
    at[windows["source_row"].to_numpy()] = False
    ra, dec = (pl.Series(values[at]).fill_nan(None) for values in (catalog.ra_deg, catalog.dec_deg))
    lost = pl.DataFrame({"source_id": catalog.source_id.filter(pl.Series(at)), "ra_deg": ra, "dec_deg": dec})
    reason = pl.when(pl.col("ra_deg").is_null()).then(pl.lit("no position")).otherwise(pl.lit("outside"))
    return lost.with_columns(reason=reason)


def _larger_than_window(kept: pl.DataFrame) -> dict[str, Any]:
    """Sources that no window of theirs shows whole."""
    sources = kept.group_by("image", "island").agg(pl.col("extent_px").first(), pl.col("size_px").max())
    larger = sources.filter(pl.col("extent_px") > pl.col("size_px")).sort("image", "island")
    names = [f"{image}: island {island}, {extent} px" for image, island, extent, _ in larger.iter_rows()]
    return {"number": len(larger), "names": names[:MAX_NAMES], "meaning": "extent_px is above size_px in every window"}


def _nothing_left(strategy: str, number: int, counts: dict[str, int]) -> str:
    if not number:
        return "the masks hold no source (no pixel is above 0), so there is no window; check survey.mask_name"
    why = ", ".join(f"{n} {r}" for r, n in sorted(counts.items()))
    advice = {
        "sliding": "raise max_nan_frac, lower min_peak_snr or use a smaller window_px",
        "mask": "raise max_nan_frac, lower min_peak_snr or use smaller mask.sizes",
        "catalog": "check that images and catalogue show the same sky and which columns were taken, raise max_nan_frac "
        "or lower min_peak_snr",
    }
    return f"none of {number} windows is left ({why}); {advice[strategy]}"
