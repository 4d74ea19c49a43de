"""Reads what a detector saw before any threshold, and chooses detections from it without another forward pass."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import torch

from skyloom.detector.candidates import Candidates, select
from skyloom.errors import ConfigError
from skyloom.sky.geometry.footprint import sky_of
from skyloom.sky.geometry.wcs_cards import wcs_of
from skyloom.store import Artifact

CANDIDATES, IMAGES = "candidates.parquet", "images.parquet"
BOX = ("x0_px", "y0_px", "x1_px", "y1_px")
KEYPOINT = ("keypoint_x_px", "keypoint_y_px")
COLUMNS: dict[str, Any] = {
    "image_row": pl.Int32,
    **dict.fromkeys(BOX, pl.Float32),
    "score": pl.Float32,
    "class": pl.Int8,
    "rle": pl.String,
    **dict.fromkeys(KEYPOINT, pl.Float32),
}


class CandidateTable:
    """The candidates of an artifact, in the order of its images.

    Parameters
    ----------
    artifact
        Of kind ``candidates``.

    Attributes
    ----------
    images : polars.DataFrame
        One row per image, see :class:`skyloom.product.detection_source.Source`.
    classes : tuple of str
        Names of the classes by number.
    least_score : float
        Score below which no candidate was kept.
    tiled : bool
        Whether images are tiles that overlap.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.images = artifact.table(IMAGES)
        self.classes = tuple(str(name) for name in artifact.notes["classes"])
        self.least_score = float(artifact.notes["score"])
        self.tiled = self.images.filter(pl.col("cutout_id").is_null())["name"].is_duplicated().any()

    def read(self, start: int = 0, stop: int | None = None, *, masks: bool, score: float = 0.0) -> pl.DataFrame:
        """Candidates of the images from row ``start`` to before ``stop`` that reach a score.

        Parameters
        ----------
        start, stop
            Rows of the images; None: to the end.
        masks
            Whether to read the column ``rle``, which is most of the file.
        score
            Least score.

        Returns
        -------
        polars.DataFrame
            ``COLUMNS``, image by image.
        """
        columns = [name for name in COLUMNS if masks or name != "rle"]
        stop = len(self.images) if stop is None else stop
        there = pl.col("image_row").is_between(start, stop, closed="left")
        strong = pl.col("score") >= pl.lit(score, pl.Float32)
        return pl.scan_parquet(self.artifact.file(CANDIDATES)).select(columns).filter(there, strong).collect()

    def check_score(self, score: float) -> None:
        """Refuse a threshold below the score from which candidates were kept.

        Raises
        ------
        ConfigError
            It is.
        """
        if score < self.least_score:
            raise ConfigError(
                f"score={score}: candidates {self.artifact.id} were kept from a score of {self.least_score} on; ask "
                f"for that or more, or run product=candidates with score={score}"
            )


def chosen_rows(
    found: pl.DataFrame, images: pl.DataFrame, *, score: float, nms: float, top_k: int, across_classes: bool
) -> np.ndarray:
    """Rows of the detections that :func:`skyloom.detector.candidates.select` chooses from candidates.

    Parameters
    ----------
    found
        Candidates, image by image; masks are not needed.
    images
        All images.
    score, nms, top_k, across_classes
        As in ``select``.

    Returns
    -------
    ndarray
        int64 (n,), image by image, the best of each first.
    """
    sizes = images.select("height_px", "width_px").to_numpy()
    boxes = torch.from_numpy(found.select(BOX).to_numpy().copy())
    scores = torch.from_numpy(found["score"].to_numpy().copy())
    labels = torch.from_numpy(found["class"].to_numpy().astype(np.int64))
    chosen = [np.empty(0, dtype=np.int64)]
    for row, start, stop in spans(found):
        height, width = (int(value) for value in sizes[row])
        number = torch.arange(start, stop)  # stands in the place of the masks, which stay in the file
        one = slice(start, stop)
        raw = Candidates((height, width), boxes[one], scores[one], labels[one], masks=number, mask_boxes=boxes[one])
        kept = select([raw], score=score, nms=nms, top_k=top_k, across_classes=across_classes)[0]
        chosen.append(kept.masks.numpy())
    return np.concatenate(chosen)


def spans(found: pl.DataFrame) -> Iterator[tuple[int, int, int]]:
    """Image row, first row and end of the candidates of each image that has some."""
    rows = found["image_row"].to_numpy()
    if not len(rows):
        return
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    ends = np.append(starts[1:], len(rows))[: len(starts)]  # of no rows there is no span
    for start, stop in zip(starts.tolist(), ends.tolist(), strict=True):
        yield int(rows[start]), start, stop


def placed(found: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """Positions of candidates in their images and on the sky.

    Parameters
    ----------
    found
        Candidates, image by image.
    images
        All images.

    Returns
    -------
    polars.DataFrame
        Float64 columns ``x_px``, ``y_px``, ``ra_deg``, ``dec_deg`` (by the keypoint, or by the box without one) and
        ``x_box_px``, ``y_box_px``, ``ra_box_deg``, ``dec_box_deg`` (centre of the box); the centre of the first pixel
        of the image is 0; null in place of a position on the sky without a WCS. ICRS.
    """
    boxes = found.select(BOX).to_numpy().astype(np.float64)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5
    point = found.select(pl.col(KEYPOINT).cast(pl.Float64).fill_null(np.nan)).to_numpy()
    point = np.where(np.isfinite(point).all(axis=1, keepdims=True), point, centre)
    sky = np.full((2, len(found), 2), np.nan)
    cards = images["fits_header"]
    for row, start, stop in spans(found):
        if cards[row] is not None:
            wcs = wcs_of(cards[row])
            for kind, values in enumerate((point, centre)):
                sky[kind, start:stop] = np.stack(sky_of(wcs, *values[start:stop].T), axis=1)
    columns: dict[str, np.ndarray] = {}
    for infix, xy, radec in (("", point, sky[0]), ("_box", centre, sky[1])):
        columns |= {f"x{infix}_px": xy[:, 0], f"y{infix}_px": xy[:, 1]}
        columns |= {f"ra{infix}_deg": radec[:, 0], f"dec{infix}_deg": radec[:, 1]}
    return pl.DataFrame(columns).with_columns(pl.col("^(ra|dec)(_box)?_deg$").fill_nan(None))
