"""Keeps of truth and catalogues what lies in the images that every catalogue's detector looked at."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from skyloom.datamodule.table_input import TableInput
from skyloom.errors import InputError
from skyloom.report.detections.tables import Sources
from skyloom.sky.geometry.footprint import in_images


def tells_images(given: TableInput) -> bool:
    """Whether a table says which images were searched: an artifact of kind ``catalog``."""
    return given.artifact is not None and given.artifact.kind == "catalog"


def in_common_area(
    truth: Sources, found: Mapping[str, Sources], tables: list[TableInput]
) -> tuple[Sources, dict[str, Sources]]:
    """Rows whose position lies in an image of each table that tells its images.

    Parameters
    ----------
    truth, found
        All sources that were read.
    tables
        The tables behind them; those that do not tell their images are passed over.

    Returns
    -------
    truth, found
        The same, cut; ``counts["outside_images"]`` says how many rows each lost.

    Raises
    ------
    InputError
        No true object lies in all of them.
    """
    areas = {_images(one) for one in tables if tells_images(one)}
    every = [truth, *found.values()]
    ra, dec = (np.concatenate([one.frame[name].to_numpy() for one in every]) for name in ("ra_deg", "dec_deg"))
    inside = np.ones(len(ra), dtype=bool)
    for images in areas:
        inside &= in_images(ra, dec, images)
    parts = np.split(inside, np.cumsum([len(one) for one in every])[:-1])
    if areas and not parts[0].any():
        raise InputError(
            f"none of {len(truth)} true objects lies in the images that all catalogues looked at; give the truth of "
            "that sky, or judge all rows of every table: common_area=false"
        )
    cut = [_kept(one, part) for one, part in zip(every, parts, strict=True)]
    return cut[0], dict(zip(found, cut[1:], strict=True))


def _images(given: TableInput) -> tuple[tuple[str, int, int], ...]:
    """WCS cards, height and width of the searched images."""
    assert given.artifact is not None
    images = given.artifact.table("images.parquet").drop_nulls("fits_header")
    return tuple(images.select("fits_header", "height_px", "width_px").iter_rows())


def _kept(sources: Sources, inside: np.ndarray) -> Sources:
    """Some rows of sources; their masks go with them."""
    counts = {**sources.counts, "outside_images": int((~inside).sum()), "kept": int(inside.sum())}
    rows = pl.DataFrame({"index": np.flatnonzero(inside), "to": np.arange(inside.sum())})
    masks = sources.masks
    if masks is not None:
        masks = masks.join(rows, on="index", how="inner", maintain_order="left")
        masks = masks.with_columns(index=pl.col("to")).drop("to")
    frame = sources.frame.filter(pl.Series(inside, dtype=pl.Boolean))
    return replace(sources, frame=frame, points=sources.points[inside], counts=counts, masks=masks)
