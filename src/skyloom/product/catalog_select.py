"""Detections chosen from candidates, image by image, with one per object where tiles overlap."""

from dataclasses import dataclass

import polars as pl

from skyloom.datamodule.candidate_table import COLUMNS, CandidateTable, chosen_rows
from skyloom.product.seams import one_per_object
from skyloom.progress import progress

WEAK, SUPPRESSED, AWAY, TWICE = "below the score", "suppressed", "of another tile", "found twice"
REASONS = {
    WEAK: "their score does not reach the threshold",
    SUPPRESSED: "they overlap a better one by more than nms, or their image has top_k better ones",
    AWAY: "the middle of their box lies in the part of another tile",
    TWICE: "the same object is kept from a neighbouring tile",
}
IMAGES_AT_ONCE = 256  # images whose candidates are in memory together: some tens of MB


@dataclass(frozen=True)
class Choice:
    """Thresholds of a catalogue, see :func:`skyloom.detector.candidates.select` and ``product.seams``."""

    score: float
    nms: float
    top_k: int
    across_classes: bool
    seam_px: float
    same_iou: float


@dataclass(frozen=True)
class Chosen:
    """What was chosen.

    Attributes
    ----------
    found
        Columns of candidates and ``cut``, image by image, the best of each first.
    left
        Candidates that were left out, by reason (`REASONS`).
    """

    found: pl.DataFrame
    left: dict[str, int]


def choose(table: CandidateTable, choice: Choice) -> Chosen:
    """Choose the detections of all images; candidates stream through memory.

    Raises
    ------
    ConfigError
        A threshold is outside 0-1, or lower than what was kept.
    """
    table.check_score(choice.score)
    parts, strong = [pl.DataFrame(schema=COLUMNS)], 0
    total = len(table.images)
    with progress(total, "detections", "images") as bar:
        for start in range(0, total, IMAGES_AT_ONCE):
            stop = min(start + IMAGES_AT_ONCE, total)
            found = table.read(start, stop, masks=True, score=choice.score)
            strong += len(found)
            rows = chosen_rows(found, table.images, score=choice.score, nms=choice.nms, top_k=choice.top_k,
                               across_classes=choice.across_classes)  # fmt: skip
            parts.append(found[rows])
            bar.advance(stop - start)
    found = pl.concat(parts)
    left = {WEAK: int(table.artifact.counts["kept"]) - strong, SUPPRESSED: strong - len(found), AWAY: 0, TWICE: 0}
    if not table.tiled:
        return Chosen(found.with_columns(cut=pl.lit(value=False)), left)
    seams = one_per_object(found, table.images, seam_px=choice.seam_px, same_iou=choice.same_iou)
    left |= {AWAY: int(seams.away.sum()), TWICE: int(seams.twice.sum())}
    return Chosen(found.with_columns(cut=pl.Series(seams.cut)).filter(pl.Series(seams.kept)), left)
