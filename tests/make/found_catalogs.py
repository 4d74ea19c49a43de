"""Catalogues as product=catalog leaves them, made directly from objects in the images of a data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from skyloom.store import Artifact, Build, Store, builds

CLASSES = ("galaxy", "star")


def found_images(dataset: Artifact, cutout_id: Sequence[int] | None = None) -> pl.DataFrame:
    """``images.parquet`` of a catalogue that looked at images of a data set, in their own pixels."""
    images = dataset.table("images.parquet")
    if cutout_id is not None:
        images = images.filter(pl.col("cutout_id").is_in(list(cutout_id)))
    cards = pl.col("fits_header") if "fits_header" in images.columns else pl.lit(None, pl.String)
    return images.with_row_index("image_row").select(
        "image_row", "cutout_id", pl.col("file_name").alias("name"), "height_px", "width_px", fits_header=cards
    )


def true_rows(dataset: Artifact, **changes: Any) -> pl.DataFrame:
    """Rows of a catalogue that finds each object of a data set exactly; ``changes`` replace columns."""
    x, y, w, h = (pl.col(f"bbox_{name}_px").cast(pl.Float64) for name in "xywh")
    rows = dataset.table("annotations.parquet").select(
        "cutout_id", "rle", "area_px", x.alias("x0_px"), y.alias("y0_px"), (x + w).alias("x1_px"),
        (y + h).alias("y1_px"), pl.col("category_id").alias("class"),
        mag_mask_i=pl.col("mag_i"), score=pl.lit(0.9, pl.Float32),
    )  # fmt: skip
    return rows.with_columns(**changes)


def found_catalog(
    store: Store, rows: pl.DataFrame, images: pl.DataFrame, *, classes: Sequence[str] = CLASSES, score: float = 0.05
) -> Artifact:
    """A ``catalog`` of these rows, found in these images."""

    @builds("catalog", version=1)
    def catalog(build: Build, *, digest: Mapping[str, Any]) -> None:
        for name, table in (("catalog", rows), ("images", images)):
            with build.write(f"{name}.parquet") as path:
                table.write_parquet(path)
        build.table = "catalog.parquet"
        build.note(classes=list(classes), score=score)

    hashes = [np.bitwise_xor.reduce(table.hash_rows().to_numpy()) for table in (rows, images) if len(table)]
    return catalog(digest={"rows": str(hashes), "classes": list(classes), "score": score}, store=store)
