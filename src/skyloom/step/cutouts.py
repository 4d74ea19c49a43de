"""step=cutouts: windows of survey images as an index table; no pixel is copied."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import Field, PositiveInt

from skyloom.errors import InputError
from skyloom.progress import progress
from skyloom.sky.image import Image, open_image
from skyloom.sky.survey import Survey
from skyloom.sky.windows import WindowStats, measure_windows
from skyloom.step.images import ImageSet, ListedImage, SurveyFacts, open_images
from skyloom.store import Build, builds

HEALPIX_LEVEL = 12  # nested cells of 0.86': coarser cells follow by dropping two bits per level

COLUMNS = {
    "cutout_id": pl.Int64,
    "survey": pl.String,
    "image": pl.String,
    "row0": pl.Int32,
    "col0": pl.Int32,
    "size_px": pl.Int32,
    "ra_deg": pl.Float64,
    "dec_deg": pl.Float64,
    "nan_frac": pl.Float32,
    "rms": pl.Float32,
    "peak": pl.Float32,
    "peak_snr": pl.Float32,
    "healpix": pl.Int64,
    "source": pl.String,
}

IMAGE_COLUMNS = {
    "image": pl.String,
    "artifact": pl.String,
    "path": pl.String,
    "fingerprint": pl.String,
    "height_px": pl.Int32,
    "width_px": pl.Int32,
    "dtype": pl.String,
    "unit": pl.String,
    "pixel_scale_arcsec": pl.Float64,
    "has_wcs": pl.Boolean,
}

REASONS = {
    "blank": "more blank (NaN or infinite) pixels than max_nan_frac allows",
    "faint": "peak S/N below min_peak_snr",
}


@builds("cutouts", version=1, inputs={"images": open_images}, free=("threads",))
def cutouts(
    build: Build,
    *,
    images: ImageSet,
    survey: SurveyFacts,
    strategy: Literal["sliding"],
    window_px: PositiveInt,
    overlap: Annotated[float, Field(ge=0, lt=1)],
    max_nan_frac: Annotated[float, Field(ge=0, le=1)],
    min_peak_snr: float | None,
    rms_samples: Annotated[int, Field(ge=16)],
    on_bad_image: Literal["error", "skip"],
    threads: PositiveInt,
) -> None:
    """Index the windows of a set of images.

    Writes ``cutouts.parquet`` (one row per kept window, images by name, windows row by row),
    ``images.parquet`` (path, fingerprint, shape, unit and scale of each image) and ``dropped.parquet`` (one
    row per window that was left out, with the reason).

    Parameters
    ----------
    build
        Where to write.
    images
        The images.
    survey
        Facts of the survey.
    strategy
        ``sliding``: a regular grid over each image, from its first pixel on; a last partial row or column of
        windows is not covered.
    window_px
        Side of a window in pixels.
    overlap
        Fraction of the side shared by neighbours; the stride is ``round(window_px * (1 - overlap))``.
    max_nan_frac
        Windows with a larger fraction of blank pixels are dropped.
    min_peak_snr
        Windows whose peak is below this many rms are dropped; None keeps all.
    rms_samples
        Pixels per window from which the robust rms is measured.
    on_bad_image
        ``error`` stops at an image that cannot be used; ``skip`` counts and names it.
    threads
        Threads per image.

    Raises
    ------
    InputError
        An image is missing, damaged, smaller than the window or entirely blank; or no window is left.
    """
    with progress(len(images.images), "cutouts", "images") as bar:
        for i, image in enumerate(images.images):

            def make(folder: Path, image: ListedImage = image) -> None:
                _index_image(folder, image, images, build.request.id, survey, window_px, overlap, rms_samples,
                             max_nan_frac, min_peak_snr, on_bad_image, threads)  # fmt: skip

            build.shard(f"{i:06d}", make)
            bar.advance()
    _join(build, images, survey)


def _index_image(
    folder: Path, listed: ListedImage, images: ImageSet, source: str, survey: Survey, window_px: int, overlap: float,
    rms_samples: int, max_nan_frac: float, min_peak_snr: float | None, on_bad_image: str, threads: int,
) -> None:  # fmt: skip
    """Write the piece of one image: a table of all its windows and the facts of the image."""
    folder.mkdir()
    try:
        with open_image(listed.path) as image:
            stats = measure_windows(image, window_px, overlap, rms_samples=rms_samples, threads=threads)
            if np.all(stats.nan_frac == 1):
                raise InputError(f"{listed.path} has only blank (NaN) pixels; remove it or set on_bad_image=skip")
            table = _table(stats, image, listed.name, source, survey, window_px, max_nan_frac, min_peak_snr)
            artifact, path = images.recorded_path(listed)
            facts = {
                "image": listed.name,
                "artifact": artifact,
                "path": path,
                "fingerprint": listed.fingerprint,
                "height_px": image.shape[0],
                "width_px": image.shape[1],
                "dtype": image.dtype.str,
                "unit": image.unit or survey.unit,
                "pixel_scale_arcsec": image.pixel_scale_arcsec or survey.pixel_scale_arcsec,
                "has_wcs": image.wcs is not None,
            }
    except InputError as error:
        if on_bad_image == "error":
            raise
        (folder / "bad.json").write_text(json.dumps({"image": listed.name, "error": str(error)}))
        return
    table.write_parquet(folder / "windows.parquet")
    (folder / "image.json").write_text(json.dumps(facts))


def _table(
    stats: WindowStats, image: Image, name: str, source: str, survey: Survey, window_px: int, max_nan_frac: float,
    min_peak_snr: float | None,
) -> pl.DataFrame:  # fmt: skip
    """Table of all windows of one image; the column ``reason`` is null for those that are kept."""
    number = len(stats.row0)
    ra, dec, healpix = sky_positions(image, stats.row0, stats.col0, window_px)
    blank = stats.nan_frac > max_nan_frac
    faint = ~blank & ~(stats.peak_snr >= min_peak_snr) if min_peak_snr is not None else np.zeros(number, bool)
    table = pl.DataFrame(
        {
            "cutout_id": cutout_ids(survey.name, name, stats.row0, stats.col0, window_px),
            "survey": [survey.name] * number,
            "image": [name] * number,
            "row0": stats.row0,
            "col0": stats.col0,
            "size_px": np.full(number, window_px),
            "ra_deg": ra,
            "dec_deg": dec,
            "nan_frac": stats.nan_frac,
            "rms": stats.rms,
            "peak": stats.peak,
            "peak_snr": stats.peak_snr,
            "healpix": healpix,
            "source": [source] * number,
        },
        schema=COLUMNS,
    )
    reason = np.where(blank, "blank", np.where(faint, "faint", ""))
    return table.with_columns(pl.Series("reason", reason).replace({"": None}))


def sky_positions(
    image: Image, row0: np.ndarray, col0: np.ndarray, size_px: int
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Positions of window centres.

    Parameters
    ----------
    image
        Image with or without WCS.
    row0, col0
        First pixel of each window, 0-based, shape (N,).
    size_px
        Side of the windows.

    Returns
    -------
    ra_deg, dec_deg, healpix
        ICRS degrees and nested HEALPix cell of level 12, each (N,); None without a WCS.
    """
    if image.wcs is None:
        return None, None, None
    import astropy.units as u
    from astropy_healpix import HEALPix

    centre = (size_px - 1) / 2
    sky = image.wcs.pixel_to_world(col0 + centre, row0 + centre).icrs
    cells = HEALPix(nside=2**HEALPIX_LEVEL, order="nested")
    healpix = cells.lonlat_to_healpix(sky.ra.to(u.deg), sky.dec.to(u.deg))
    return sky.ra.deg, sky.dec.deg, np.asarray(healpix, dtype=np.int64)


def cutout_ids(survey: str, image: str, row0: np.ndarray, col0: np.ndarray, size_px: int) -> np.ndarray:
    """Ids of windows that any machine and any run gives to the same window of the same image.

    A 63-bit hash: the finaliser of splitmix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195) over
    the image's hash, row, column and size. Among 4 million windows two share an id with a probability of 1e-6;
    the step checks that none do.

    Parameters
    ----------
    survey, image
        Names.
    row0, col0
        First pixel of each window, shape (N,).
    size_px
        Side of the windows.

    Returns
    -------
    ndarray
        int64, shape (N,), not negative.
    """
    seed = hashlib.blake2b(f"{survey}\0{image}".encode(), digest_size=8).digest()
    state = np.full(len(row0), int.from_bytes(seed, "little"), dtype=np.uint64)
    for part in (row0, col0, np.full(len(row0), size_px)):
        state = _mix(state ^ part.astype(np.uint64))
    return (state >> np.uint64(1)).astype(np.int64)


def _mix(value: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _join(build: Build, images: ImageSet, survey: Survey) -> None:
    """Join the pieces of all images to the artifact's tables and tell the manifest what was left out."""
    pieces = build.shards()
    bad = [json.loads((p / "bad.json").read_text()) for p in pieces if (p / "bad.json").exists()]
    good = [p for p in pieces if not (p / "bad.json").exists()]
    build.drop("bad image", len(bad), why="the image cannot be used (on_bad_image=skip)",
               examples=[f"{item['image']}: {item['error']}" for item in bad])  # fmt: skip
    if not good:
        raise InputError(f"none of the {len(pieces)} images can be used; the first one: {bad[0]['error']}")
    facts = pl.DataFrame([json.loads((p / "image.json").read_text()) for p in good], schema=IMAGE_COLUMNS)
    units = facts["unit"].drop_nulls().unique().sort().to_list()
    if len(units) > 1:
        first = {unit: facts.filter(pl.col("unit") == unit)["image"][0] for unit in units}
        raise InputError(f"the images have different units ({first}); index them apart")
    windows = pl.concat([pl.read_parquet(p / "windows.parquet") for p in good])
    kept = windows.filter(pl.col("reason").is_null()).drop("reason")
    dropped = windows.filter(pl.col("reason").is_not_null())
    counts = dict(dropped["reason"].value_counts().iter_rows())
    for reason, why in REASONS.items():
        build.drop(f"{reason} window", counts.get(reason, 0), why=f"{why}; all are listed in dropped.parquet")
    if kept.is_empty():
        raise InputError(
            f"none of {len(windows)} windows is left ({', '.join(f'{n} {r}' for r, n in sorted(counts.items()))}); "
            "raise max_nan_frac, lower min_peak_snr or use a smaller window_px"
        )
    if kept["cutout_id"].n_unique() != len(kept):
        raise InputError("two windows have the same cutout_id; rename one of the images and index again")
    without_sky = facts.filter(~pl.col("has_wcs"))["image"].to_list()
    build.count(images=len(pieces), read=len(windows), kept=len(kept))
    build.note(
        survey=survey.name,
        unit=units[0] if units else None,
        window_px=build.request.parameters["window_px"],
        images_without_wcs={"number": len(without_sky), "names": without_sky[:20],
                            "meaning": "their cutouts have null ra_deg, dec_deg and healpix"},
    )  # fmt: skip
    for name, table in (("cutouts", kept), ("images", facts), ("dropped", dropped.select(*COLUMNS, "reason"))):
        with build.write(f"{name}.parquet") as path:
            table.write_parquet(path, compression="zstd", statistics=True)
    build.table = "cutouts.parquet"
