"""Writes a tiny Roman and LSST survey of the same sky in the true file layout: round sources, no GalSim, below 1 s.

A Roman tile is 200 x 200 px; with a grid of 64 px and a border of 4 px it has 9 cutouts. Each tile has an LSST tract of
its own, of 2 x 2 patches that overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from make.band_cutouts import band_cutouts
from make.joint_pixels import LSST_NOISE, ROMAN_NOISE, draw, tangent_wcs, write_images
from make.joint_tables import (
    LSST_BANDS,
    OTHER,
    ROMAN_BANDS,
    STAR,
    ZERO_POINT_MAG,
    lsst_objects,
    lsst_truth,
    roman_truth,
    sky_sources,
)
from skyloom.store import Artifact

__all__ = ["LSST_BANDS", "ROMAN_BANDS", "Joint", "band_cutouts", "joint_store", "tangent_wcs", "write_joint"]

ROMAN_SCALE_ARCSEC, LSST_SCALE_ARCSEC = 0.0575, 0.2
TILE_PX = 200
GRID = {"window_px": 64, "border_px": 4}
ROMAN_SIGMA_PX, LSST_SIGMA_PX = 2.0, 1.8
SOURCES = 40  # per tile


@dataclass(frozen=True)
class Joint:
    """What was written.

    Attributes
    ----------
    roman, lsst
        Folders.
    tiles
        Names of the Roman tiles.
    patches
        Names of the LSST patches.
    sources
        Every object that was drawn: number, ra, dec, kind (0 galaxy, 1 star, 2 other), mag, tile.
    """

    roman: Path
    lsst: Path
    tiles: tuple[str, ...]
    patches: tuple[str, ...]
    sources: pl.DataFrame


def write_joint(
    folder: Path,
    *,
    tiles: int = 1,
    seed: int = 0,
    ra_deg: float = 50.94,
    dec_deg: float = -39.9,
    patch_overlap_px: int = 24,
    tile_px: int = TILE_PX,
) -> Joint:
    """Write ``folder/roman`` and ``folder/lsst``; see the module.

    Every tile has ``SOURCES`` objects: galaxies, stars, one of another class, some too faint to be detected, one that
    two detections claim. ``patch_overlap_px`` below a footprint (19 px) leaves footprints that no patch holds whole.
    """
    rng = np.random.default_rng(seed)
    sources, names, patches, objects = [], [], [], []
    for k in range(tiles):
        ra = (ra_deg + 0.02 * k / np.cos(np.radians(dec_deg))) % 360
        name = f"{ra:.2f}_{dec_deg:.1f}"
        wcs = tangent_wcs(ra, dec_deg, ROMAN_SCALE_ARCSEC, (tile_px, tile_px))
        found = _sources(rng, wcs, tile_px, start=1000 * (k + 1))
        _write_tile(folder / "roman", name, wcs, found, rng, tile_px)
        own, table = _write_tract(folder / "lsst", 3256 + k, ra, dec_deg, found, rng, tile_px, patch_overlap_px)
        sources.append(found.with_columns(tile=pl.lit(name)))
        names.append(name)
        patches += own
        objects.append(table)
    every = pl.concat(sources)
    lsst_truth(every).write_parquet(folder / "lsst" / "dc2_truth_summary.parquet", row_group_size=16)
    pl.concat(objects).write_parquet(folder / "lsst" / "dc2_object_dr6.parquet", row_group_size=16)
    return Joint(folder / "roman", folder / "lsst", tuple(sorted(names)), tuple(sorted(patches)), every)


def _sources(rng: np.random.Generator, wcs: WCS, tile_px: int, start: int) -> pl.DataFrame:
    x, y = rng.uniform(-3, tile_px + 2, (2, SOURCES))
    sky = wcs.pixel_to_world(x, y)
    kind = (rng.random(SOURCES) < 0.3).astype(int) * STAR
    kind[-1] = OTHER
    mag = rng.uniform(20, 24, SOURCES)
    mag[-6:] = 30.0
    return sky_sources(rng, sky.ra.deg, sky.dec.deg, kind, mag, start)


def _write_tile(
    folder: Path, name: str, wcs: WCS, sources: pl.DataFrame, rng: np.random.Generator, tile_px: int
) -> None:
    coadd, detection, truth = (folder / "images" / "coadd", folder / "detection", folder / "truth" / "coadd")
    for path in (coadd, detection, truth):
        path.mkdir(parents=True, exist_ok=True)
    shape = (tile_px, tile_px)
    total, owner = draw(sources, wcs, shape, ROMAN_SIGMA_PX, ZERO_POINT_MAG["Y106"])
    for band in ROMAN_BANDS:
        factor = 10 ** ((ZERO_POINT_MAG[band] - ZERO_POINT_MAG["Y106"]) / 2.5)
        pixels = (total * factor + rng.normal(0, ROMAN_NOISE, shape)).astype(np.float32)
        write_images(coadd / f"dc2_{band}_{name}.fits", wcs, {"SCI": pixels, "WHT": np.ones(shape, np.float32)})
    seen = np.unique(owner[owner >= 0])
    segments = np.zeros(shape, np.int32)
    for number, i in enumerate(seen, start=1):
        segments[owner == i] = number
    ra, dec = sources["ra"].to_numpy()[seen], sources["dec"].to_numpy()[seen] + 0.005 / 3600
    # One more detection claims the first one's truth: 0.035" from it, its segment a single pixel.
    ra, dec = np.append(ra, ra[0]), np.append(dec, dec[0] + 0.03 / 3600)
    x, y = wcs.all_world2pix(ra, dec, 0)
    row, col = (int(np.clip(np.rint(v[-1]), 0, tile_px - 1)) for v in (y, x))
    segments[row, col] = len(ra)
    fits.PrimaryHDU(segments, wcs.to_header()).writeto(detection / f"dc2_seg_{name}.fits.gz", overwrite=True)
    columns = {
        "number": np.arange(1, len(ra) + 1),
        "alphawin_j2000": ra,
        "deltawin_j2000": dec,
        "xwin_image": x + 1,
        "ywin_image": y + 1,
        "mag_auto_H158": np.append(sources["mag"].to_numpy()[seen], 25.0).astype(np.float32),
    }
    Table(columns).write(detection / f"dc2_det_{name}.fits.gz", overwrite=True)
    Table(roman_truth(sources)).write(truth / f"dc2_index_{name}.fits.gz", overwrite=True)


def _write_tract(
    folder: Path, tract: int, ra: float, dec: float, sources: pl.DataFrame, rng: np.random.Generator, tile_px: int,
    overlap_px: int,
) -> tuple[list[str], pl.DataFrame]:  # fmt: skip
    """Two by two patches around a tile."""
    folder.mkdir(parents=True, exist_ok=True)
    side = int(np.ceil(tile_px * ROMAN_SCALE_ARCSEC / LSST_SCALE_ARCSEC)) + 12
    wcs = tangent_wcs(ra + 0.0003 / np.cos(np.radians(dec)), dec, LSST_SCALE_ARCSEC, (side, side))
    total, _ = draw(sources, wcs, (side, side), LSST_SIGMA_PX, ZERO_POINT_MAG["u"])
    half = (side + overlap_px + 1) // 2
    starts: Sequence[int] = (0, side - half)
    names = []
    for band in LSST_BANDS:
        pixels = (total + rng.normal(0, LSST_NOISE, total.shape)).astype(np.float32)
        for i, col0 in enumerate(starts):
            for j, row0 in enumerate(starts):
                own = wcs[row0 : row0 + half, col0 : col0 + half]
                part = pixels[row0 : row0 + half, col0 : col0 + half]
                zeros = np.zeros(part.shape, np.int32)
                planes = {"IMAGE": part, "MASK": zeros, "VARIANCE": zeros.astype(np.float32) + LSST_NOISE**2}
                write_images(folder / f"tract{tract}_patch{i}_{j}_band{band}.fits", own, planes)
                names += [f"tract{tract}_patch{i}_{j}"] if band == "u" else []
    seen = sources.filter(pl.col("mag") < 27)
    return names, lsst_objects(seen, tract, ["0,0"] * len(seen))


def joint_store(
    tmp_path: Path, *, tiles: int = 1, seed: int = 0, match: bool = True, **options: Any
) -> tuple[Path, Artifact, Artifact | None]:
    """A store with the cutouts of both surveys by step=cutouts, and its folder; ``match=False`` leaves LSST out."""
    import skyloom

    joint = write_joint(tmp_path / "survey", tiles=tiles, seed=seed, **options)
    store = tmp_path / "store"
    roman = skyloom.curate("cutouts", survey="roman", images=joint.roman, **GRID, store=store)
    lsst = skyloom.curate("cutouts", survey="lsst", images=joint.lsst, match=roman, store=store) if match else None
    return store, roman, lsst
