"""train.py task=detect: fits a detector on annotated images; the trained detector is an artifact."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from lightning.pytorch import Callback
from pydantic import BeforeValidator, NonNegativeInt
from safetensors.torch import save_file

from skyloom.backbone.spec import WEIGHTS_FILE, BackboneSpec, Weights, open_weights
from skyloom.detector.checkpoint import Checkpoint, open_checkpoint
from skyloom.errors import ConfigError
from skyloom.store import Build, builds
from skyloom.store.aside import written_aside
from skyloom.store.flat import flat_numbers
from skyloom.trainer.best import BestWeights
from skyloom.trainer.classes import class_of
from skyloom.trainer.detect_data import detection_data
from skyloom.trainer.detect_network import build_network, needs_backbone
from skyloom.trainer.detect_options import DetectTrainerOptions
from skyloom.trainer.fit import fit
from skyloom.trainer.job import CHECKPOINT, Job
from skyloom.trainer.options import DataOptions, checked, checked_some, data_options
from skyloom.trainer.overlays import Overlays
from skyloom.trainer.record import CsvRecord
from skyloom.trainer.start import Start, go_on_from, open_start
from skyloom.trainer.tracking.about import About
from skyloom.trainer.tracking.loggers import LoggerOptions, log_summary, open_loggers
from skyloom.trainer.tracking.retell import Retell
from skyloom.trainer.train import Data, open_data


@builds(
    "model",
    version=1,
    inputs={"data": open_data, "weights": open_weights, "checkpoint": open_checkpoint, "ckpt": open_start},
    free=("logger", "runs", "image_roots"),
    unused=lambda values: () if needs_backbone(values["detector"]) else ("backbone",),
)
def detect(
    build: Build,
    *,
    data: Data,
    weights: Weights,
    checkpoint: Checkpoint,
    ckpt: Start,
    task: dict[str, Any],
    detector: dict[str, Any],
    datamodule: Annotated[DataOptions, BeforeValidator(data_options)],
    backbone: BackboneSpec,
    preprocess: dict[str, Any],
    trainer: DetectTrainerOptions,
    seed: NonNegativeInt,
    logger: LoggerOptions,
    runs: str,
    image_roots: str | None,
) -> None:
    """Fit a detector.

    Writes ``model.safetensors`` (``detector.*``: of the epoch with the best ``val/mask_ap`` where the data have a
    validation part, else of the last; moving averages where the task keeps some), ``model.json`` (how to build the
    detector, and what images it wants), ``metrics.csv``, ``last.ckpt`` and ``overlays/``. A killed fit goes on from its
    last checkpoint and ends with the same model and the same metrics. Channels, classes, mean and standard deviation
    are those of the data, whatever ``backbone.in_chans`` says.

    Parameters
    ----------
    build
        Where to write.
    data
        Artifacts by role, for the datamodule.
    weights
        Where the backbone starts from.
    checkpoint
        The file of detectron2 that the whole detector starts from, or none.
    ckpt
        The finished fit that is gone on with, or nothing.
    task
        ``name`` (detect) and the options of :class:`skyloom.task.detect.DetectTask`.
    detector
        ``name`` of the module in ``skyloom.detector``, and the options of its class.
    datamodule
        ``name`` of the module in ``skyloom.datamodule``, and the options of its class.
    backbone
        The network below the detector; not read by detectors that bring their own.
    preprocess
        Has to leave the pixels as they are, since the detector normalises by itself.
    trainer
        Length and arithmetic of the fit, and its validation.
    seed
        Start of all random streams.
    logger
        Loggers beside ``metrics.csv``.
    runs
        Folder for what they write.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    ConfigError
        An option cannot be used, or the memory of the GPU does not suffice.
    InputError
        The loss is no longer finite; the message names the batch. Or an input does not fit.
    """
    build.resumes_from(CHECKPOINT)
    trainer.check_machine()
    _check_pixels(preprocess)
    if weights.source is not None and not needs_backbone(detector):
        raise ConfigError(
            f"backbone.weights has no meaning for detector={detector['name']}, which brings its own network; set it "
            "to null (checkpoint.file is where this detector may start from)"
        )
    source, kind = class_of("datamodule", datamodule, "DataModule"), class_of("task", task, "Task")
    if not hasattr(source, "samples"):
        raise ConfigError(
            f"datamodule={datamodule['name']} has no objects to learn from; set datamodule=roman_lsst dataset=ID"
        )
    given = checked_some("datamodule", source, datamodule.arguments)
    batches = source.from_artifacts(data, given, seed, image_roots)
    about = detection_data(batches)
    network, facts = build_network(detector, backbone, weights, about, seed)
    checkpoint.fill(network)
    objects = {"detector": network, "classes": about.classes}
    own = {key: value for key, value in task.items() if key != "name"} | {"seed": seed}
    own = checked("task", kind, own, given_as_objects=tuple(objects))
    module = kind(**objects, **own)
    trainer.place(module)
    record = CsvRecord(build.path / "metrics.csv")
    request = build.request
    job = Job(
        module=module,
        batches=batches,
        options=trainer.without_monitor(),
        seed=seed,
        facts={"backbone": facts["backbone"] or {}, "detector": detector, "task": task},
        folder=build.path,
        not_finite=Path(runs) / "not_finite" / f"{request.id}.json",
        validates=True,
    )
    if ckpt.file is not None and not job.last.exists():
        go_on_from(ckpt.file, job, build.write)
    scratch = build.scratch("fit")
    best = BestWeights(scratch, write=written_aside, metric=module.monitor, mode=module.mode, weights=module.deployed)
    with open_loggers(logger, About.of_build(build), runs=Path(runs)) as others:
        extra: list[Callback] = [best, Retell(record, others)]
        if trainer.validation.overlays_every_n_epochs:
            draw = partial(Overlays, every_n_epochs=trainer.validation.overlays_every_n_epochs, loggers=others)
            extra.append(draw(images=trainer.validation.overlay_images, write=build.write, folder=build.path))
        done = fit(build, job, record, others, extra)
        chosen = {"metric": best.metric, "value": best.value, "epoch": best.epoch}
        log_summary(others, dict(flat_numbers({"best": {best.metric: best.value, "epoch": best.epoch}})))
    with build.write(WEIGHTS_FILE) as path:
        # One entry of metadata only: safetensors writes several in random order, and equal models shall be equal files.
        save_file(best.load() or module.deployed(), path, metadata={"model": detector["name"]})
    facts |= {"datamodule": datamodule.parameter(), "task": task, "best": chosen, "preprocess": preprocess}
    build.write_json("model.json", facts)
    why = "the loss or the gradient of their optimiser step was not finite (trainer.on_nan=skip)"
    build.drop("not_finite", done.left_out, why=why, examples=[str(i) for i in done.left_out_ids])
    build.count(images=done.images, epochs=trainer.max_epochs, parameters=sum(p.numel() for p in network.parameters()))
    build.note(
        final=record.last(),
        best=chosen,
        classes=about.classes,
        in_chans=about.in_chans,
        normalised=about.mean is not None,
    )


def _check_pixels(preprocess: Mapping[str, Any]) -> None:
    """Refuse what would change pixels before the detector, which would not know of it later."""
    for key, kept in (("stretch", "none"), ("image_size_px", None)):
        if preprocess.get(key) != kept:
            raise ConfigError(
                f"transform.preprocess.{key}={preprocess.get(key)}: a detector takes pixels as they are; set "
                "transform=detection"
            )
