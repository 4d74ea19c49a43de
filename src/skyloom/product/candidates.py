"""product=candidates: everything a detector sees in images, before any threshold, in one resumable forward pass."""

import json
import math
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, PositiveInt

from skyloom.datamodule.candidate_table import CANDIDATES, COLUMNS, IMAGES
from skyloom.errors import ConfigError
from skyloom.product.candidate_pieces import COUNTS, TABLE, Finder, Finding, make_piece
from skyloom.product.detection_channels import Channels
from skyloom.product.detection_inputs import ImageChoice, check_bands, choose_detector, open_images
from skyloom.product.detection_source import Source
from skyloom.product.extraction import device_of
from skyloom.product.features import spans_of
from skyloom.product.mosaic_channels import mosaic_options
from skyloom.product.row_groups import write_row_groups
from skyloom.progress import progress
from skyloom.store import Artifact, Build, builds, of_kind


def channel_options(value: Any) -> Any:
    """Check the keys of the mapping ``channels``.

    Raises
    ------
    ConfigError
        A key is missing or unknown.
    """
    names = set(Channels.__dataclass_fields__)
    if isinstance(value, dict) and (wrong := sorted(names ^ set(value))):
        raise ConfigError(f"channels.{wrong[0]}: expected exactly {', '.join(sorted(names))}")
    return value


def unused_options(values: Any) -> tuple[str, ...]:
    """Options that are not read: a model says its channels; cutouts are no mosaics."""
    unread = [] if values["model"] is None else ["channels"]
    return (*unread, *(["channels", "part"] if values["images"] is not None else ["mosaic"]))


@builds(
    "candidates",
    version=1,
    inputs={
        "model": of_kind("model"),
        "dataset": of_kind("dataset"),
        "lsst": of_kind("cutouts"),
        "roman": of_kind("cutouts"),
        "images": open_images,
    },
    free=("batch_size", "shard_images", "device", "devices", "image_roots"),
    unused=unused_options,
    pieces=True,
)
def candidates(
    build: Build,
    *,
    model: Artifact | None,
    detector: dict[str, Any] | None,
    dataset: Artifact | None,
    part: str | None,
    lsst: Artifact | None,
    roman: Artifact | None,
    images: Any,
    channels: Annotated[dict[str, Any], BeforeValidator(channel_options)],
    mosaic: Annotated[dict[str, Any], BeforeValidator(mosaic_options)],
    least_score: Annotated[float, Field(ge=0, le=1)],
    precision: Literal["fp32", "bf16", "fp16"],
    batch_size: PositiveInt,
    shard_images: PositiveInt,
    device: str,
    devices: PositiveInt,
    image_roots: str | None,
) -> None:
    """Run a detector over images and keep all that it sees.

    Writes ``candidates.parquet`` (box, score, class, mask and keypoint of each candidate, in pixels of its image, one
    row group per piece) and ``images.parquet`` (the images, with their WCS). No truth is read. Pieces of
    ``shard_images`` images survive a killed run; every process writes its own, and they are joined by streaming.

    Parameters
    ----------
    build
        Where to write.
    model
        A detector trained by ``train.py task=detect``.
    detector
        ``name`` and options of a detector without weights (``sep``), where there is no model.
    dataset, part
        Images of a data set, all or those of a part; no annotation is read.
    lsst, roman
        Cutouts of either survey; None: those behind the data set.
    images
        Whole images by band in the place of cutouts, see :mod:`skyloom.product.mosaic_source`.
    channels
        Which surveys make the channels and how, without a model; a model has its own.
    mosaic
        How whole images are read: tiles and their overlap.
    least_score
        Candidates below it are not kept.
    precision
        Arithmetic of the forward pass.
    batch_size
        Images per forward pass; results differ by rounding only.
    shard_images
        Images per resumable piece; results differ by rounding only.
    device
        ``auto`` (a GPU when there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    devices
        Number of processes, each with a GPU of its own (or a share of the CPU) and with its own pieces.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    ConfigError
        Nothing says what detects, or where.
    InputError
        An image cannot be read, or its bands are not those of the model; the message names it.
    """
    devices = build.processes(devices)  # 0: jobs elsewhere, each with a device of its own
    one = device_of(device, devices) if devices else torch.device("cpu")
    chosen = choose_detector(model, detector)
    facts = chosen.facts
    if images is not None and (dataset or lsst or roman):
        raise ConfigError("images=… are whole images: leave dataset, lsst and roman out, or images")
    said = channels if model is None else facts.get("datamodule", {})
    joined = None if images is not None else Channels.of_options(said)
    finding = Finding(
        key=build.request.id,
        detector=chosen,
        images=ImageChoice(
            cutouts={"lsst": lsst, "roman": roman}, dataset=dataset, part=part, channels=joined, files=images,
            mosaic=mosaic, bands=None if model is None else tuple((str(s), str(b)) for s, b in facts["bands"]),
            image_roots=image_roots,
        ),
        score=least_score,
        blank_value=None if joined is None else joined.blank_value,
        precision=precision,
        batch_size=batch_size,
        device=device,
        devices=max(1, devices),
        threads=max(1, torch.get_num_threads() // devices) if devices else 0,
    )  # fmt: skip
    source = finding.images.open()
    if model is not None:
        check_bands(source, facts, model.id)
    _run(build, finding, source, one if devices == 1 else None, shard_images)
    written, weak = _join(build)
    with build.write(IMAGES) as path:
        source.images.write_parquet(path, compression="zstd")
    build.table = CANDIDATES
    build.count(images=len(source.images), kept=written)
    build.drop("below the least score", weak, why=f"least_score={least_score}")
    build.note(
        detector=chosen.name,
        classes=chosen.classes,
        score=least_score,
        bands=source.bands,
        units=source.units,
        zero_point_mag=source.zero_point_mag,
        pixel_scale_arcsec=source.pixel_scale_arcsec if math.isfinite(source.pixel_scale_arcsec) else None,
        channels=None if joined is None else vars(joined),
    )


def _run(build: Build, finding: Finding, source: Source, device: torch.device | None, shard_images: int) -> None:
    total = len(source.images)
    spans = spans_of([piece.name for piece in build.shards()], total, shard_images)
    tasks = {f"{start:012d}-{stop:012d}": (finding, start, stop) for start, stop in spans}
    with progress(total, "candidates", "images") as bar:
        if device is None:  # several processes, or jobs
            build.shards_in_parallel(tasks, make_piece, workers=finding.devices, done=lambda: bar.advance(shard_images),
                                     describe=lambda task: f"images {task[1]} to {task[2]}")  # fmt: skip
            return
        finder = None
        for key, (_, start, stop) in tasks.items():
            if build.done(key):
                bar.advance(stop - start)
                continue
            finder = finder or Finder(finding, device, source)
            build.shard(key, lambda path, f=finder, a=start, b=stop: f.write(path, a, b, bar.advance))  # type: ignore[misc]


def _join(build: Build) -> tuple[int, int]:
    """Stream the pieces into one file, a row group each; returns the candidates written and those left out."""
    pieces = build.shards()
    weak = sum(json.loads((piece / COUNTS).read_text())["weak"] for piece in pieces)
    with build.write(CANDIDATES) as path:
        return write_row_groups(path, [piece / TABLE for piece in pieces], COLUMNS), weak
