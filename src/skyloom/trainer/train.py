"""train.py: fits a task on data with a backbone; the trained model is an artifact."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from lightning.pytorch import Callback
from pydantic import BeforeValidator, NonNegativeInt
from safetensors.torch import save_file

from skyloom.backbone.spec import WEIGHTS_FILE, BackboneSpec, Weights, open_weights
from skyloom.datamodule.joint_inputs import auto_inputs
from skyloom.datamodule.labels import open_labels
from skyloom.errors import ConfigError
from skyloom.store import Artifact, Build, Store, builds, of_kind
from skyloom.trainer.classes import class_of
from skyloom.trainer.fit import fit
from skyloom.trainer.job import CHECKPOINT, Job
from skyloom.trainer.knn_score import KnnScore
from skyloom.trainer.options import DataOptions, TrainerOptions, checked, checked_some, data_options
from skyloom.trainer.record import CsvRecord
from skyloom.trainer.start import Start, go_on_from, open_start
from skyloom.trainer.tracking.about import About
from skyloom.trainer.tracking.loggers import LoggerOptions, open_loggers
from skyloom.trainer.tracking.retell import Retell
from skyloom.trainer.views import ViewPictures
from skyloom.transform import Preprocess, RadioAugment


class Data(dict[str, Artifact | None]):
    """Artifacts by role; all of them are inputs of the trained model."""

    def identity(self) -> dict[str, Any]:
        """Kind and id by role."""
        return {role: artifact and artifact.identity() for role, artifact in sorted(self.items())}


def open_data(value: Any, parameters: Mapping[str, Any], store: Store) -> Data:
    """Resolver of the input ``data``: opens one artifact per role; null stays null, ``auto`` is looked up."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"data={value!r}: expected artifacts by role, as {{cutouts: ID, selection: null}}")
    found = auto_inputs(value, store)
    return Data({role: None if item is None else store.open(item) for role, item in found.items()})


@builds(
    "model",
    version=1,
    inputs={
        "data": open_data,
        "weights": open_weights,
        "ckpt": open_start,
        "monitor_labels": of_kind("labels", "cutouts"),
    },
    free=("logger", "runs", "image_roots"),
)
def train(
    build: Build,
    *,
    data: Data,
    weights: Weights,
    ckpt: Start,
    monitor_labels: Artifact | None,
    task: dict[str, Any],
    datamodule: Annotated[DataOptions, BeforeValidator(data_options)],
    backbone: BackboneSpec,
    preprocess: dict[str, Any],
    augment: dict[str, Any],
    trainer: TrainerOptions,
    seed: NonNegativeInt,
    logger: LoggerOptions,
    runs: str,
    image_roots: str | None,
) -> None:
    """Fit a task.

    Writes ``model.safetensors`` (every weight: ``backbone.*`` and what the task adds), ``model.json`` (how to build the
    backbone and prepare images), ``metrics.csv`` and ``last.ckpt`` (Lightning's, with the state of the optimiser). A
    killed fit goes on from its last checkpoint and ends with the same model and the same metrics.

    Parameters
    ----------
    build
        Where to write.
    data
        Artifacts by role, for the datamodule.
    weights
        Where the backbone starts from.
    ckpt
        The finished fit that is gone on with, or nothing.
    monitor_labels
        A labelled set that the features are scored on now and then; None scores none.
    task
        ``name`` of the module in ``skyloom.task``, and the options of its class.
    datamodule
        ``name`` of the module in ``skyloom.datamodule``, and the options of its class.
    backbone
        The network.
    preprocess
        Options of :class:`skyloom.transform.Preprocess`.
    augment
        Options of :class:`skyloom.transform.RadioAugment`.
    trainer
        Length and arithmetic of the fit.
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
        The loss is no longer finite; the message names the batch. Or ``ckpt`` does not fit.
    """
    build.resumes_from(CHECKPOINT)
    trainer.check_machine()
    source, kind = class_of("datamodule", datamodule, "DataModule"), class_of("task", task, "Task")
    given = checked_some("datamodule", source, datamodule.arguments)
    batches = source.from_artifacts(data, given, seed, image_roots)
    scaling = Preprocess(**checked("transform.preprocess", Preprocess, preprocess))
    views = RadioAugment(**checked("transform.augment", RadioAugment, augment))
    own = {key: value for key, value in task.items() if key != "name"} | {"seed": seed}
    own = checked("task", kind, own, given_as_objects=("backbone", "augment", "preprocess"))
    network = weights.build(backbone, seed)
    module = kind(backbone=network, augment=views, preprocess=scaling, **own)
    trainer.place(module)
    facts = {
        "backbone": {**backbone.parameter(), "num_features": network.num_features},
        "preprocess": scaling.config,
        "preprocess_digest": scaling.digest,
    }
    record = CsvRecord(build.path / "metrics.csv")
    request = build.request
    job = Job(
        module=module,
        batches=batches,
        options=trainer,
        seed=seed,
        facts={"backbone": backbone.parameter(), "task": request.parameters["task"]},
        folder=build.path,
        not_finite=Path(runs) / "not_finite" / f"{request.id}.json",
    )
    if ckpt.file is not None and not job.last.exists():
        go_on_from(ckpt.file, job, build.write)
    with open_loggers(logger, About.of_build(build), runs=Path(runs)) as others:
        extra: list[Callback] = [Retell(record, others)]
        if trainer.monitor.views_every_n_epochs:
            extra.append(ViewPictures(trainer.monitor.views_every_n_epochs, build.write, build.path, others))
        if monitor_labels:
            labels = open_labels(monitor_labels)
            extra.append(KnnScore(labels, trainer.monitor, seed, [record, *others], image_roots))
        done = fit(build, job, record, others, extra)
    with build.write(WEIGHTS_FILE) as path:
        tensors = {key: value.detach().cpu().clone().contiguous() for key, value in module.state_dict().items()}
        # One entry of metadata only: safetensors writes several in random order, and equal models shall be equal files.
        save_file(tensors, path, metadata={"model": backbone.model})
    build.write_json("model.json", {**facts, "task": task})
    why = "the loss or the gradient of their optimiser step was not finite (trainer.on_nan=skip)"
    build.drop("not_finite", done.left_out, why=why, examples=[str(i) for i in done.left_out_ids])
    build.count(images=done.images, epochs=trainer.max_epochs, parameters=sum(p.numel() for p in module.parameters()))
    build.note(
        final=record.last(),
        collapsed=done.collapsed,
        num_features=network.num_features,
        in_chans=network.in_chans,
        preprocess_digest=scaling.digest,
    )
