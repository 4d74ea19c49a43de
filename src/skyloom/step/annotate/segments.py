"""The part of step=annotate source=segmentation that is done per tile: masks from the survey's own segmentation map."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.datamodule.band_index import BandIndex, detections_of, truth_of
from skyloom.datamodule.image_files import check_unchanged, find_image, root_folders
from skyloom.errors import InputError
from skyloom.sky.files.image import Image, open_image
from skyloom.sky.survey.facts import Survey
from skyloom.step.annotate.columns import (
    ANNOTATION_COLUMNS,
    IMAGE_COLUMNS,
    REJECTED_COLUMNS,
    annotation_table,
    image_row,
    mask_row,
)
from skyloom.step.cutouts.tiles.columns import MATCH_COLUMNS
from skyloom.store import Artifact

MATCH_FACTS = [name for name in MATCH_COLUMNS if name not in ("cutout_id", "object_id")]


@dataclass(frozen=True)
class SegmentTask:
    """What a worker needs to annotate one tile from its segmentation map."""

    cutouts: Path
    image_roots: str | None
    tile: str
    survey: Survey
    min_area_px: int

    @property
    def name(self) -> str:
        """Name of the tile."""
        return self.tile


def annotate_from_segments(folder: Path, task: SegmentTask) -> None:
    """Write the piece of one tile: its annotations, rejected detections and images."""
    index = _open(task.cutouts, task.image_roots)
    facts, bands = task.survey.truth, task.survey.bands
    assert facts is not None
    artifact = index.artifact
    truth = truth_of(artifact, task.tile)
    matches = artifact.table(f"matches/{task.tile}.parquet")
    claims = detections_of(artifact, task.tile).select("cutout_id", "detection_id")
    claims = claims.join(matches, on=["cutout_id", "detection_id"], how="left", maintain_order="left")
    objects = truth.with_row_index("_row").select("cutout_id", "object_id", "_row")
    claims = claims.join(objects, on=["cutout_id", "object_id"], how="left", maintain_order="left")
    of_cutout = {key[0]: part for key, part in claims.partition_by("cutout_id", as_dict=True).items()}
    segments = _open_segments(index, task)
    rows_kept: list[int] = []
    masks: list[dict[str, Any]] = []
    rejected, images, kept_claims = [], [], [claims.clear()]
    for row in np.flatnonzero((index.table["tile"] == task.tile).to_numpy()):
        place = index.table.row(int(row), named=True)
        own = of_cutout.get(place["cutout_id"], claims.clear())
        outcome = _outcomes(segments, place, own, task.min_area_px)
        kept = [i for i, one in enumerate(outcome) if isinstance(one, dict)]
        rows_kept += own["_row"].gather(kept).to_list()
        kept_claims.append(own[kept])
        masks += [one for one in outcome if isinstance(one, dict)]
        lost = [i for i, one in enumerate(outcome) if isinstance(one, tuple)]
        rejected += [(place["cutout_id"], own["object_id"][i], *outcome[i]) for i in lost]
        images.append(image_row(place, len(kept), len(lost), dict.fromkeys(index.bands)))
    table = annotation_table(truth[rows_kept], masks, facts, bands)
    found = pl.concat(kept_claims).select(MATCH_FACTS)
    taken = [name for name in MATCH_FACTS if name not in table.columns]
    table = pl.concat([table, found.select(taken)], how="horizontal")
    folder.mkdir()
    schema = IMAGE_COLUMNS | {f"noise_{band.name}": pl.Float64() for band in bands}
    for name, frame in {
        "annotations": table.select(*ANNOTATION_COLUMNS, pl.exclude(*ANNOTATION_COLUMNS)),
        "rejected": pl.DataFrame(rejected, schema=REJECTED_COLUMNS, orient="row"),
        "images": pl.DataFrame(images, schema=schema),
    }.items():
        frame.write_parquet(folder / f"{name}.parquet", compression="zstd", statistics=True)


@lru_cache(maxsize=1)
def _open(folder: Path, image_roots: str | None) -> BandIndex:
    return BandIndex(Artifact(folder), image_roots=image_roots)


def _open_segments(index: BandIndex, task: SegmentTask) -> Image:
    files = index.artifact.table("files.parquet")
    entries = files.filter((pl.col("tile") == task.tile) & (pl.col("role") == "segmentation")).to_dicts()
    if not entries:
        raise InputError(
            f"files.parquet of cutouts {index.artifact.id} lists no segmentation map of tile {task.tile}; index tiles "
            "that have one, or use source=truth"
        )
    entry = {**entries[0], "image": f"{task.tile} (segmentation)"}
    path = find_image(index.artifact, entry, root_folders(task.image_roots))
    check_unchanged(index.artifact, entry, path)
    return open_image(path)


def _outcomes(
    segments: Image, place: dict[str, Any], claims: pl.DataFrame, min_area_px: int
) -> list[dict[str, Any] | tuple[str, str]]:
    """Per detection of a cutout the columns of its mask, or why it has none."""
    if not len(claims):
        return []
    shape = place["height_px"], place["width_px"]
    row0, col0 = max(place["row0"] - 1, 0), max(place["col0"] - 1, 0)  # one pixel more, to see who goes on outside
    height = min(place["row0"] + shape[0] + 1, segments.shape[0]) - row0
    width = min(place["col0"] + shape[1] + 1, segments.shape[1]) - col0
    numbers = np.nan_to_num(segments.read(row0, col0, height, width)).astype(np.int64)
    known, places = np.unique(numbers, return_inverse=True)
    boxes = ndimage.find_objects(places.reshape(numbers.shape) + 1)
    box_of = dict(zip(known.tolist(), boxes, strict=True))
    inset = place["row0"] - row0, place["col0"] - col0
    outcome: list[dict[str, Any] | tuple[str, str]] = []
    for detection, object_id, row in claims.select("detection_id", "object_id", "_row").iter_rows():
        if object_id is None:
            outcome.append(("unmatched", f"detection {detection} has no true object"))
        elif row is None:
            outcome.append(("not_in_cutout", f"the true object of detection {detection} is not in this cutout"))
        elif detection not in box_of:
            outcome.append(("empty_mask", f"detection {detection} has no pixel in this cutout"))
        else:
            outcome.append(_mask(numbers, detection, box_of[detection], inset, shape, min_area_px))
    return outcome


def _mask(
    numbers: NDArray[np.int64], detection: int, box: Any, inset: tuple[int, int], shape: tuple[int, int], min_area: int
) -> dict[str, Any] | tuple[str, str]:
    rows, cols = box
    return mask_row(numbers[box] == detection, rows.start - inset[0], cols.start - inset[1], shape, min_area)
