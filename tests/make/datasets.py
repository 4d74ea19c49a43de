"""Annotations and integrity reports made directly, for tests of the steps and datamodules that read them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

import skyloom
from skyloom.sky.mask.rle import encode
from skyloom.store import Artifact, Build, Store, builds, of_kind

CATEGORIES = [{"id": 0, "name": "galaxy"}, {"id": 1, "name": "star"}]


def disk(x: float, y: float, radius: float, shape: tuple[int, int]) -> np.ndarray:
    """Mask of the pixels whose centre is within a radius."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (cols - x) ** 2 <= radius**2


def annotate_disks(
    store: Path | Store,
    cutouts: Artifact,
    *,
    without: Sequence[int] = (),
    edit: dict[str, pl.Expr] | None = None,
    repeat: bool = False,
) -> Artifact:
    """An ``annotations`` artifact: a disk of 3 px about each truth object; cutouts numbered ``without`` have none.

    ``edit`` replaces columns of the annotations; ``repeat`` writes the first of each tile twice.
    """
    table = cutouts.table("cutouts.parquet")
    shapes = {row["cutout_id"]: (row["height_px"], row["width_px"]) for row in table.iter_rows(named=True)}
    empty = set(table.filter(pl.col("number").is_in(list(without)))["cutout_id"])
    tiles = {}
    for tile in sorted(table["tile"].unique()):
        rows = []
        for truth in cutouts.table(f"truth/{tile}.parquet").iter_rows(named=True):
            if truth["cutout_id"] in empty:
                continue
            shape = shapes[truth["cutout_id"]]
            mask = disk(truth["x_px"], truth["y_px"], 3.0, shape)
            ys, xs = np.nonzero(mask)
            rows.append(
                {"cutout_id": truth["cutout_id"], "object_id": truth["object_id"], "category_id": truth["category_id"],
                 "bbox_x_px": xs.min(), "bbox_y_px": ys.min(), "bbox_w_px": np.ptp(xs) + 1,
                 "bbox_h_px": np.ptp(ys) + 1, "area_px": mask.sum(), "rle": encode(mask),
                 "keypoint_x_px": truth["x_px"], "keypoint_y_px": truth["y_px"],
                 "clipped": bool(xs.min() == 0 or ys.min() == 0), "ra_deg": truth["ra_deg"],
                 "dec_deg": truth["dec_deg"],
                 "mag_i": 20.5, "flux_i_njy": 23000.0, "redshift": float("nan")}
            )  # fmt: skip
        boxes = pl.col("bbox_x_px", "bbox_y_px", "bbox_w_px", "bbox_h_px").cast(pl.Float32)
        frame = pl.DataFrame(rows).with_columns(boxes, pl.col("category_id").cast(pl.Int8))
        frame = frame.with_columns(pl.col("area_px").cast(pl.Int32), **(edit or {}))
        tiles[tile] = pl.concat([frame[:1], frame]) if repeat else frame
    counts = pl.concat(tiles.values()).group_by("cutout_id").len("annotations")
    images = table.select("cutout_id", "tile", "number", "file_name", "height_px", "width_px")
    images = images.join(counts, on="cutout_id", how="left", maintain_order="left").with_columns(
        pl.col("annotations").fill_null(0), rejected=pl.lit(0), noise_i=pl.lit(0.05)
    )

    @builds("annotations", version=1, inputs={"cutouts": of_kind("cutouts")})
    def fake_annotate(build: Build, *, cutouts: Artifact, digest: str) -> None:
        files = {"images": images}
        for tile, frame in tiles.items():
            files[f"annotations/{tile}"] = frame
            lost = {"cutout_id": [1, 1, 1], "object_id": ["a", "b", "c"], "detail": None}
            reasons = ["empty_mask", "galsim_fail", "empty_mask"]
            files[f"rejected/{tile}"] = pl.DataFrame(lost).with_columns(reason=pl.Series(reasons))
        for folder in ("annotations", "rejected"):
            (build.path / folder).mkdir()
        for name, frame in files.items():
            with build.write(f"{name}.parquet") as path:
                frame.write_parquet(path)
        build.write_json("categories.json", CATEGORIES)
        build.count(read=len(images), kept=len(images))
        build.note(cutouts=cutouts.id, survey="lsst", snr=5.0, compat=None)

    digest = str([frame.hash_rows().sum() for frame in (images, *tiles.values())])
    return fake_annotate(cutouts=cutouts, digest=digest, store=store)


def integrity_report(store: Path | Store, cutouts: Artifact, corrupt: Sequence[int]) -> Artifact:
    """An ``integrity`` artifact in which cutouts of these ids have NaN in their first band."""
    ids, bands = cutouts.table("cutouts.parquet")["cutout_id"], cutouts.notes["bands"]
    table = pl.DataFrame({"cutout_id": ids}).join(pl.DataFrame({"band": bands}), how="cross")
    bad = pl.col("cutout_id").is_in(list(corrupt)) & (pl.col("band") == bands[0])
    no = pl.lit(False)
    table = table.with_columns(
        nan_count=bad.cast(pl.Int64) * 7, inf_count=pl.lit(0, pl.Int64), all_zero=no, unreadable=no, wrong_shape=no,
        wrong_dtype=no, count=pl.lit(9, pl.Int64), mean=0.0, m2=1.0, low=-1.0, high=1.0, image_std=1.0,
    )  # fmt: skip

    @builds("integrity", version=1, inputs={"cutouts": of_kind("cutouts")})
    def fake_integrity(build: Build, *, cutouts: Artifact, corrupt: list[int]) -> None:
        with build.write("integrity.parquet") as path:
            table.write_parquet(path)
        build.table = "integrity.parquet"
        build.count(read=len(ids), kept=len(ids) - len(corrupt))

    return fake_integrity(cutouts=cutouts, corrupt=sorted(corrupt), store=store)


def dataset(
    store: Path | Store, cutouts: Artifact, *, annotations: Artifact | None = None, **options: object
) -> Artifact:
    """A ``dataset`` artifact by step=assemble of disks about the truth objects."""
    made = annotations or annotate_disks(store, cutouts)
    return skyloom.curate("assemble", annotations=made.id, **{"by": "cutout", **options}, store=store)
