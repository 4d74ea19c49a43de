"""Joins the annotated tiles to one artifact and says what became of every object."""

from pathlib import Path

import polars as pl

from skyloom.sky.survey.bands import CLASSES
from skyloom.store import Build

WHY = {
    "empty_mask": "the object is nowhere above the threshold, or its mask lies outside of the cutout",
    "small_mask": "the mask has fewer than min_area_px pixels in the cutout",
    "no_flux": "the truth table has no magnitude for it in any band",
    "bad_shape": "its size, shape or shear in the truth table is not possible",
    "not_reaching": "its centre is outside of the cutout (truth_margin_px), and hardly any of its mask inside",
    "duplicate_id": "an object of the same id stands before it in the cutout",
    "no_noise": "all bands of the cutout are blank or constant, so there is no threshold",
    "unmatched": "no true object within the matching radius of this detection",
    "not_in_cutout": "the true object of this detection is not in the cutout, or is neither galaxy nor star",
    "galsim_fail": "GalSim could draw it in no band (compat=deepdisc)",
    "invalid_contours": "the mask lies outside of the cutout (compat=deepdisc)",
}
MAX_EXAMPLES = 20


def join_annotations(build: Build, pieces: list[Path], tiles: list[str]) -> None:
    """Give the tables of the pieces their place, and write images, categories and counts."""
    for name in ("annotations", "rejected"):
        with build.write(name) as folder:
            folder.mkdir()
            for piece, tile in zip(pieces, tiles, strict=True):
                (folder / f"{tile}.parquet").hardlink_to(piece / f"{name}.parquet")
    images = pl.concat([pl.read_parquet(piece / "images.parquet") for piece in pieces])
    with build.write("images.parquet") as path:
        images.write_parquet(path, compression="zstd", statistics=True)
    build.write_json("categories.json", [{"id": i, "name": name} for i, name in enumerate(CLASSES)])
    build.table = "images.parquet"
    kept, lost = int(images["annotations"].sum()), int(images["rejected"].sum())
    build.count(
        read=kept + lost, kept=kept, cutouts=len(images), cutouts_without=int((images["annotations"] == 0).sum())
    )
    rejected = pl.scan_parquet([piece / "rejected.parquet" for piece in pieces])
    counts = rejected.group_by("reason").len().sort("reason").collect()
    for reason, number in counts.iter_rows():
        some = rejected.filter(pl.col("reason") == reason).head(MAX_EXAMPLES).collect()
        examples = [f"{object_id}: {detail}" for object_id, detail in some.select("object_id", "detail").iter_rows()]
        build.drop(reason, number, why=WHY.get(reason, WHY["small_mask"]), examples=examples)
