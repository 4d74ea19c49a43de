"""step=sweep: how good a detector's catalogue is at every pair of score and NMS thresholds, from one forward pass."""

from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field, PositiveFloat, PositiveInt

from skyloom.datamodule.candidate_table import CandidateTable, chosen_rows, placed
from skyloom.datamodule.table_input import TableInput, table_resolver
from skyloom.errors import ConfigError, InputError
from skyloom.match import Pairs, assign, blend_flags, close_pairs, sky_points
from skyloom.metric.blend_rates import RATES, blend_rates
from skyloom.metric.catalog_scores import brighter_than, counted
from skyloom.metric.catalog_scores import scores as catalog_scores
from skyloom.progress import progress
from skyloom.step.sweep.truth import Truth, read_truth
from skyloom.store import Artifact, Build, builds, of_kind

SWEEP = "sweep.parquet"
TRUTH_KINDS = ("dataset", "annotations", "cutouts", "catalog")
Part = Annotated[float, Field(ge=0, le=1)]


@builds("sweep", version=1, inputs={"candidates": of_kind("candidates"), "truth": table_resolver(*TRUTH_KINDS)})
def sweep(
    build: Build,
    *,
    candidates: Artifact,
    truth: TableInput,
    columns: dict[str, str | None],
    scores: list[Part],
    nms: list[Part],
    top_k: PositiveInt,
    across_classes: bool,
    radius_arcsec: PositiveFloat,
    faintest_mag: float | None,
) -> None:
    """Match the catalogue of every pair of thresholds to the truth.

    Writes ``sweep.parquet``: ``score``, ``nms``, counts, ``completeness``, ``purity``, ``f1`` with intervals, and the
    rates of blends (:data:`skyloom.metric.blend_rates.RATES`), for step=thresholds and report=detections. A piece for
    each ``nms`` survives a killed run. Detections of a tile of a mosaic count where the middle of their box lies in the
    part that is the tile's own.

    Parameters
    ----------
    build
        Where to write.
    candidates
        What the detector saw.
    truth
        A data set, annotations, cutouts with truth, a catalogue, or a file; what lies outside the images is left out.
    columns
        Its columns ``ra``, ``dec`` and ``mag``; None looks for usual names (``mag``: is not read).
    scores, nms
        Thresholds; all pairs of them.
    top_k, across_classes
        As in :func:`skyloom.detector.candidates.select`.
    radius_arcsec
        Within which a detection and a truth may belong together; one-to-one by least total separation.
    faintest_mag
        Truths up to this magnitude are asked for; a detection of a fainter one is not judged. None asks for all.

    Raises
    ------
    ConfigError
        A threshold is lower than what was kept, or a limit lacks a magnitude column.
    InputError
        Images have no WCS, or no truth lies in them.
    """
    if not scores or not nms:
        raise ConfigError(f"scores={scores}, nms={nms}: expected one threshold or more of each")
    if faintest_mag is not None and columns.get("mag") is None:
        raise ConfigError(f"faintest_mag={faintest_mag} needs the truth's column of magnitudes; give columns.mag=NAME")
    table = CandidateTable(candidates)
    table.check_score(min(scores))
    if table.images["fits_header"].null_count():
        raise InputError(f"candidates {candidates.id} have images without a WCS; a truth on the sky cannot be matched")
    known = read_truth(truth, table.images, columns)
    found = _strong(table, min(scores))
    at = placed(found, table.images)
    points = sky_points(at["ra_deg"].to_numpy(), at["dec_deg"].to_numpy(), name="candidates")
    pairs = close_pairs(known.points, points, radius_arcsec)
    kept = None if faintest_mag is None else brighter_than(known.mag, faintest_mag, unknown=False)
    with progress(len(nms), "sweep", "NMS thresholds") as bar:
        pieces = []
        for value in sorted(set(nms)):

            def make(path: Path, value: float = value) -> None:
                rows = chosen_rows(
                    found, table.images, score=min(scores), nms=value, top_k=top_k, across_classes=across_classes
                )
                strength = found["score"].to_numpy()[rows]
                # A candidate never decides about a better one: the choice at a high score is the low one's, cut.
                made = [
                    {"score": float(s), "nms": value} | _judged(pairs, rows[strength >= np.float32(s)], known, kept)
                    for s in sorted(set(scores))
                ]
                pl.DataFrame(made).write_parquet(path)

            pieces.append(build.shard(f"nms-{value:.6f}", make))
            bar.advance()
    result = pl.concat([pl.read_parquet(piece) for piece in pieces]).sort("score", "nms")
    with build.write(SWEEP) as path:
        result.write_parquet(path, compression="zstd")
    build.table = SWEEP
    build.count(read=int(candidates.counts["kept"]), points=len(result), truths=len(known.points))
    build.drop("outside the images", known.outside, why="the truth reaches beyond the images that were searched")
    build.note(radius_arcsec=radius_arcsec, faintest_mag=faintest_mag)


def _strong(table: CandidateTable, score: float) -> pl.DataFrame:
    """Candidates that reach a score, of tiles those whose box has its middle in the tile's own part."""
    found = table.read(masks=False, score=score)
    core = table.images.select("core_col0", "core_row0", "core_col1", "core_row1").to_numpy()
    own = core[found["image_row"].to_numpy()]
    centre = found.select((pl.col("x0_px") + pl.col("x1_px")) / 2, (pl.col("y0_px") + pl.col("y1_px")) / 2).to_numpy()
    return found.filter(pl.Series(((centre >= own[:, :2]) & (centre <= own[:, 2:])).all(axis=1), dtype=pl.Boolean))


def _judged(pairs: Pairs, rows: np.ndarray, truth: Truth, kept: np.ndarray | None) -> dict[str, float | int]:
    """Metrics of the detections at some rows of the candidates."""
    place = np.full(pairs.sizes[1], -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    right = place[pairs.right]
    there = np.flatnonzero(right >= 0)
    there = there[np.lexsort((right[there], pairs.left[there]))]
    own = Pairs(pairs.left[there], right[there], pairs.sep_arcsec[there], (pairs.sizes[0], len(rows)))
    matched = assign(own)
    judged = counted(matched.of_left, matched.of_right, truth_kept=kept)
    rates = blend_rates(*blend_flags(own, matched), truth_kept=judged.truth, detected_kept=judged.detected)
    return {name: float(rates[name]["value"]) for name in RATES} | catalog_scores(judged)
