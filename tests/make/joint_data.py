"""A data set of annotated cutouts of both surveys as step=assemble leaves it, made without running the chain."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from make.band_cutouts import band_cutouts
from skyloom.datamodule.band_index import BandIndex
from skyloom.sky.mask.rle import encode
from skyloom.store import Artifact, Build, Store, builds, of_kind

LSST_PX, ROMAN_PX = 32, 112  # 6.4" at 0.2" and at 0.0575"
SPLIT = ("train", "train", "train", "val", "test", "train")
STATS = {"mean": 0.5, "std": 2.0}


@dataclass(frozen=True)
class JointData:
    """What was made.

    Attributes
    ----------
    store
        Where.
    lsst, roman
        Cutouts with the same ids.
    dataset
        Its annotations are in LSST pixels; cutout 2 has no objects.
    stars
        Right ascension and declination in degrees of the objects of each cutout, (n, 2) by cutout id.
    """

    store: Store
    lsst: Artifact
    roman: Artifact
    dataset: Artifact
    stars: dict[int, np.ndarray]


def joint_data(folder: Path, objects: int = 3, lsst_px: int = LSST_PX, roman_px: int = ROMAN_PX) -> JointData:
    """Six cutouts, of 6.4" by default, each with round stars at known places in both surveys, and their annotations."""
    store = Store(folder)
    rng = np.random.default_rng(0)
    blank = {bands: np.zeros((6, bands, size, size), "f4") for bands, size in ((6, lsst_px), (3, roman_px))}
    empty = {n: BandIndex(band_cutouts(store, bands=n, n=6, size=p.shape[-1], pixels=p)) for n, p in blank.items()}
    stars, rows = {}, []
    for row, id in enumerate(empty[6].cutout_id.tolist()):
        xy = rng.uniform(6, lsst_px - 7, (0 if row == 2 else objects, 2))
        sky = empty[6].wcs(row).pixel_to_world(*xy.T)
        stars[id] = np.stack([sky.ra.deg, sky.dec.deg], axis=1)
        for bands, index in empty.items():
            x, y = index.wcs(row).world_to_pixel(sky)
            blank[bands][row] += _stars(index.shape(row), x, y, 1.8 if bands == 6 else 2.0)
        rows += [_annotation(id, i, x, y, *stars[id][i], lsst_px) for i, (x, y) in enumerate(xy.tolist())]
    lsst, roman = (band_cutouts(store, bands=n, n=6, size=p.shape[-1], pixels=p) for n, p in blank.items())
    return JointData(store, lsst, roman, _dataset(store, lsst, roman, pl.DataFrame(rows)), stars)


def joint_stats(data: JointData, cutouts: Artifact, number: int = 1) -> Artifact:
    """Statistics of cutouts as step=stats writes them."""

    @builds("stats", version=number, inputs={"cutouts": of_kind("cutouts")})
    def stats(build: Build, *, cutouts: Artifact) -> None:
        bands = cutouts.notes["bands"]
        build.write_json("stats.json", {"bands": bands, **{key: [value] * len(bands) for key, value in STATS.items()}})

    return stats(cutouts=cutouts, store=data.store)


def _stars(shape: tuple[int, int], x: np.ndarray, y: np.ndarray, sigma_px: float) -> np.ndarray:
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    each = (np.exp(-((cols - a) ** 2 + (rows - b) ** 2) / (2 * sigma_px**2)) for a, b in zip(x, y, strict=True))
    return np.asarray(sum(each, np.zeros(shape)), dtype=np.float32)


def _annotation(cutout_id: int, i: int, x: float, y: float, ra_deg: float, dec_deg: float, size: int) -> dict:
    rows, cols = np.mgrid[:size, :size]
    mask = (cols - x) ** 2 + (rows - y) ** 2 < 3**2
    own_rows, own_cols = np.nonzero(mask)
    x0, y0 = float(own_cols.min()), float(own_rows.min())
    return {
        "cutout_id": cutout_id, "object_id": f"{cutout_id}-{i}", "category_id": i % 2, "bbox_x_px": x0,
        "bbox_y_px": y0, "bbox_w_px": own_cols.max() + 1 - x0, "bbox_h_px": own_rows.max() + 1 - y0,
        "area_px": int(mask.sum()), "rle": encode(mask), "keypoint_x_px": x, "keypoint_y_px": y, "clipped": False,
        "ra_deg": ra_deg, "dec_deg": dec_deg, "mag_i": 20.0 + i, "redshift": None if i else 0.5,
    }  # fmt: skip


def _dataset(store: Store, lsst: Artifact, roman: Artifact, objects: pl.DataFrame) -> Artifact:
    @builds("dataset", version=1, inputs={"cutouts": of_kind("cutouts"), "match": of_kind("cutouts")})
    def dataset(build: Build, *, cutouts: Artifact, match: Artifact) -> None:
        index = BandIndex(cutouts)
        counts = objects.group_by("cutout_id").len("annotations")
        images = index.table.select("cutout_id", "tile", "number", "file_name", "height_px", "width_px").with_columns(
            split=pl.Series(SPLIT), train_2=pl.Series(i < 2 for i in range(6)),
            fits_header=pl.Series(index.header(row) for row in range(6)),
        ).join(counts, on="cutout_id", how="left", maintain_order="left").with_columns(
            pl.col("annotations").fill_null(0)
        )  # fmt: skip
        for name, table in (
            ("images", images),
            ("annotations", objects.with_row_index("annotation_id", 1).cast({"category_id": pl.Int8})),
        ):
            with build.write(f"{name}.parquet") as path:
                table.write_parquet(path)
        build.write_json("categories.json", [{"id": 0, "name": "galaxy"}, {"id": 1, "name": "star"}])
        build.note(subsets={"train_2": {"part": "train", "number": 2}})

    return dataset(cutouts=lsst, match=roman, store=store)
