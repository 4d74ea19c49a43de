"""Takes the images of a part one by one, and judges every catalogue on the same ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skyloom.errors import InputError
from skyloom.progress import progress
from skyloom.report.segmentation.found import Found
from skyloom.report.segmentation.grid import objects_found
from skyloom.report.segmentation.numbers import Judged, add_image, empty_scores, judged
from skyloom.report.segmentation.truth import Truth


@dataclass(frozen=True)
class Compared:
    """What came out.

    Attributes
    ----------
    catalogs : dict
        Numbers and tables by catalogue.
    rows : ndarray
        int64: rows of the images that were judged.
    counts : dict
        ``images``, ``judged``, ``truths``, and by catalogue ``looked_at``, ``missing``, ``other_images``, ``outside``.
    """

    catalogs: dict[str, Judged]
    rows: np.ndarray
    counts: dict[str, Any]


def common_rows(
    truth: Truth, catalogs: Mapping[str, Found], part: str | None, on_missing: Literal["error", "skip"]
) -> np.ndarray:
    """Rows of the images that every catalogue looked at, int64.

    Raises
    ------
    InputError
        One of them lacks an image and ``on_missing`` is ``error``, or no image is left.
    """
    ids = truth.data.cutout_id
    seen = {name: np.isin(ids, one.images["cutout_id"].to_numpy()) for name, one in catalogs.items()}
    for name, own in seen.items():
        if on_missing == "error" and not own.all():
            one = catalogs[name].artifact
            raise InputError(
                f"catalogs.{name} ({one.kind} {one.id}) looked at {own.sum():,} of the {len(ids):,} images of "
                f"{f'part={part}' if part else 'the data set'}, not at cutout {ids[~own][0]}; give a catalogue of that "
                "part, or on_missing=skip to judge all on the images that they share"
            )
    rows = np.flatnonzero(np.all(list(seen.values()), axis=0))
    if not len(rows):
        raise InputError(f"no image of part={part} was looked at by all of {', '.join(catalogs)}; check the part")
    return rows


def compare(
    truth: Truth,
    catalogs: Mapping[str, Found],
    rows: np.ndarray,
    *,
    areas: Mapping[str, tuple[float, float]],
    max_detections: int,
    edges: Mapping[str, np.ndarray],
    operating_score: float | None,
) -> Compared:
    """Judge every catalogue in the images ``rows``; see `skyloom.report.segmentation.numbers.judged`."""
    scores = {name: empty_scores(truth.classes, areas, max_detections) for name in catalogs}
    tables = {
        name: {key[0]: own for key, own in one.rows.partition_by("cutout_id", as_dict=True).items()}
        for name, one in catalogs.items()
    }
    outside, truths = dict.fromkeys(catalogs, 0), 0
    with progress(len(rows), "segmentation", "images") as bar:
        for row in rows.tolist():
            id, own_truth = int(truth.data.cutout_id[row]), truth.objects(row)
            truths += len(own_truth["labels"])
            for name, one in catalogs.items():
                own = tables[name].get(id, one.rows[:0])
                found, lost = objects_found(truth, row, one, own)
                outside[name] += lost
                add_image(scores[name], id, truth.data.shape(row), own_truth, found)
            bar.advance()
    made = {
        name: judged(own, has_mag=catalogs[name].has_mag, edges=edges, operating_score=operating_score)
        for name, own in scores.items()
    }
    images = len(truth.data)
    each = {
        name: {"looked_at": len(one.images), "missing": images - len(one.images), "other_images": one.other_images,
               "outside": outside[name]}
        for name, one in catalogs.items()
    }  # fmt: skip
    return Compared(made, rows, {"images": images, "judged": len(rows), "truths": truths, "catalogs": each})
