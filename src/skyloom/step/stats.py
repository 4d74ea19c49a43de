"""step=stats: pooled mean, standard deviation, range and percentiles of the pixels of cutouts, in one pass."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt

from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.datamodule.reading import read_ahead, selected_rows
from skyloom.errors import ConfigError, InputError
from skyloom.progress import Bar, progress
from skyloom.step.band_stats import has_bands, measure_bands
from skyloom.store import Artifact, Build, builds, of_kind
from skyloom.transform import Preprocess
from skyloom.transform.moments import RELATIVE_ERROR, Moments

NUMBERS = ("count", "blank", "mean", "squares", "low", "high")


@builds(
    "stats",
    version=1,
    inputs={
        "cutouts": of_kind("cutouts"),
        "selection": of_kind("selection"),
        "integrity": of_kind("integrity"),
    },
    free=("batch_size", "workers", "image_roots"),
    pieces=True,
)
def stats(
    build: Build,
    *,
    cutouts: Artifact,
    selection: Artifact | None,
    integrity: Artifact | None,
    corrupt: Literal["skip", "keep"],
    method: Literal["pooled", "mean_of_means"],
    preprocess: dict[str, Any] | None,
    percentiles: list[Annotated[float, Field(ge=0, le=100)]],
    on_error: Literal["stop", "skip"],
    shard_rows: PositiveInt,
    batch_size: PositiveInt,
    workers: PositiveInt,
    image_roots: str | None,
) -> None:
    """Measure the pixels of cutouts.

    Writes ``stats.json``: for raw pixels (by band, where a survey has bands) and, where ``preprocess`` is given, for
    each channel of scaled ones, the numbers of :meth:`skyloom.transform.moments.Moments.summary`. Pieces of
    ``shard_rows`` cutouts survive a killed run.

    Parameters
    ----------
    build
        Where to write.
    cutouts
        Artifact of kind ``cutouts``; pixels that several cutouts share count several times, as in training.
    selection
        Artifact of kind ``selection`` to measure only its cutouts; None takes all.
    integrity
        Artifact of kind ``integrity`` of these cutouts, whose numbers are merged without reading a pixel; there are no
        percentiles then. Only of cutouts with bands.
    corrupt
        ``skip`` leaves out what ``integrity`` calls corrupt; ``keep`` counts its finite pixels, too.
    method
        Of the notes ``mean`` and ``std``: ``pooled`` over all pixels, or ``mean_of_means`` and of the standard
        deviations of the cutouts, as the predecessor did. Only of cutouts with bands.
    preprocess
        Options of :class:`skyloom.transform.Preprocess` to also measure what it makes of the pixels, before its
        ``mean`` and ``std``; None measures raw pixels only.
    percentiles
        Percent.
    on_error
        ``stop`` at an image that cannot be read; ``skip`` leaves its cutouts out and counts them.
    shard_rows
        Cutouts per resumable piece.
    batch_size
        Cutouts per read; changes the result by rounding in float64 only. Not used with bands.
    workers
        Processes that read cutouts with bands.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    InputError
        An image cannot be read or has changed, no pixel is left, or ``integrity`` is about other cutouts.
    ConfigError
        An option does not go with cutouts of this sort.
    """
    if has_bands(cutouts):
        if preprocess is not None:
            raise ConfigError(f"preprocess={preprocess} is for cutouts without bands; leave it out of this step")
        measure_bands(build, cutouts, selection, integrity, corrupt == "skip", method, percentiles, on_error,
                      shard_rows, workers, image_roots)  # fmt: skip
        return
    if integrity is not None or method != "pooled":
        raise ConfigError(f"integrity and method={method} go with bands, which cutouts {cutouts.id} do not have")
    prepare = None if preprocess is None else Preprocess.from_options(preprocess, "preprocess")
    index = CutoutIndex(cutouts, image_roots=image_roots)
    rows = selected_rows(index, selection)
    if on_error == "stop":
        index.check_images(rows)
    with progress(len(rows), "stats", "cutouts") as bar:
        for number, start in enumerate(range(0, len(rows), shard_rows)):
            part, key = rows[start : start + shard_rows], f"{number:06d}"

            def make(folder: Path, part: np.ndarray = part) -> None:
                _measure(folder, index, part, prepare, batch_size, on_error == "skip", bar)

            if build.done(key):
                bar.advance(len(part))
            build.shard(key, make)
    totals, failed, messages = _merge(build.shards())
    raw, scaled = totals[0], totals[1:]
    if raw.count == 0:
        raise InputError(f"cutouts {cutouts.id}: no finite pixel in {len(rows)} cutouts; nothing can be measured")
    result: dict[str, Any] = {
        "unit": cutouts.notes.get("unit"),
        "cutouts": len(rows) - failed,
        "percentiles_relative_error": RELATIVE_ERROR,
        "raw": [raw.summary(percentiles)],
        "scaled": [one.summary(percentiles) for one in scaled] if prepare else None,
        "preprocess": prepare.config if prepare else None,
        "preprocess_digest": prepare.digest if prepare else None,
    }
    build.write_json("stats.json", result)
    build.count(read=len(index), kept=len(rows) - failed)
    build.drop("not in the selection", len(index) - len(rows), why="selection restricts the cutouts")
    build.drop("unreadable", failed, why="their images could not be read", examples=messages)
    build.note(unit=result["unit"], mean=raw.mean, std=result["raw"][0]["std"])
    if scaled:
        build.note(
            scaled_mean=[one["mean"] for one in result["scaled"]], scaled_std=[one["std"] for one in result["scaled"]]
        )


def _measure(
    folder: Path,
    index: CutoutIndex,
    rows: np.ndarray,
    prepare: Preprocess | None,
    batch_size: int,
    skip: bool,
    bar: Bar,
) -> None:
    """Write the piece of some rows: the moments of raw pixels, then of each scaled channel."""
    channels = len(prepare.stretches) if prepare else 0  # channels that repeat another have its numbers
    totals = [Moments.none() for _ in range(1 + channels)]
    failed: list[str] = []
    for batch in read_ahead(index, rows, batch_size, skip=skip):
        failed += [message for _, message in batch.failed]
        if len(batch.places):
            parts = [batch.values]
            if prepare is not None:
                scaled = prepare.scale(torch.from_numpy(batch.values).unsqueeze(1)).numpy()
                parts += [scaled[:, channel] for channel in range(channels)]
            totals = [total.merged(Moments.of(part)) for total, part in zip(totals, parts, strict=True)]
        bar.advance(len(batch.places) + len(batch.failed))
    folder.mkdir()
    np.save(folder / "numbers.npy", np.array([[float(getattr(t, name)) for name in NUMBERS] for t in totals]))
    np.save(folder / "bins.npy", np.stack([total.bins for total in totals]))
    np.save(folder / "failed.npy", np.array(len(failed)))
    (folder / "failed.txt").write_text("\n".join(dict.fromkeys(failed)))


def _merge(pieces: list[Path]) -> tuple[list[Moments], int, list[str]]:
    """All pieces together, in their order; with the number of cutouts that failed, and why."""
    totals: list[Moments] = []
    failed, messages = 0, []
    for piece in pieces:
        numbers, bins = np.load(piece / "numbers.npy"), np.load(piece / "bins.npy")
        parts = [
            Moments(int(count), int(blank), float(mean), float(squares), float(low), float(high), counts)
            for (count, blank, mean, squares, low, high), counts in zip(numbers, bins, strict=True)
        ]
        totals = [a.merged(b) for a, b in zip(totals, parts, strict=True)] if totals else parts
        failed += int(np.load(piece / "failed.npy"))
        messages += (piece / "failed.txt").read_text().splitlines()
    return totals, failed, list(dict.fromkeys(messages))
