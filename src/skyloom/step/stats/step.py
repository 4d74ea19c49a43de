"""step=stats: pooled mean, standard deviation, range and percentiles of the pixels of cutouts, in one pass."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from skyloom.datamodule.reading import selected_rows
from skyloom.errors import ConfigError, InputError
from skyloom.progress import progress
from skyloom.step.stats.bands import has_bands, measure_bands
from skyloom.step.stats.pieces import Measurer, Measuring, measure_piece, merge
from skyloom.store import Artifact, Build, builds, of_kind
from skyloom.transform.moments import RELATIVE_ERROR


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
        Processes that read.
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
    measuring = Measuring(build.request.id, cutouts, image_roots, preprocess, batch_size, on_error == "skip")
    measurer = Measurer(measuring)
    index, prepare = measurer.index, measurer.prepare
    rows = selected_rows(index, selection)
    if on_error == "stop":
        index.check_images(rows)
    spans = range(0, len(rows), shard_rows)
    tasks = {f"{number:06d}": (measuring, rows[start : start + shard_rows]) for number, start in enumerate(spans)}
    with progress(len(rows), "stats", "cutouts") as bar:
        if build.processes(workers) == 1:
            for key, (_, part) in tasks.items():
                if build.done(key):
                    bar.advance(len(part))
                build.shard(key, lambda folder, part=part: measurer.write(folder, part, bar.advance))  # type: ignore[misc]
        else:
            build.shards_in_parallel(tasks, measure_piece, workers=workers, done=lambda: bar.advance(shard_rows),
                                     describe=lambda task: f"{len(task[1])} cutouts from row {task[1][0]}")  # fmt: skip
    totals, failed, messages = merge(build.shards())
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
