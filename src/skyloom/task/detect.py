"""Detection: what is learnt, logged and judged around any detector."""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from skyloom.detector.base import Detector
from skyloom.detector.candidates import Candidates, select
from skyloom.errors import ConfigError
from skyloom.task.detect_eval import Validation, hold_buffers, images_of, total
from skyloom.task.detect_optim import DetectRecipe, freeze
from skyloom.task.ema import MovingAverage, deployed
from skyloom.task.streams import step_seed, stream

VALIDATION = 0x76616C  # keeps the streams of validation apart from those of training


class DetectTask(LightningModule):
    """Trains a detector and judges it after each epoch.

    Parameters
    ----------
    detector
        Finds objects; its `parts` say what the backbone is.
    classes
        Names of its classes, in the order of the labels.
    seed
        Start, with step and rank, of the random choices of the losses; a resumed run repeats them exactly.
    optimizer, learning_rate, learning_rate_end, backbone_lr_scale, layer_decay, weight_decay, warmup_steps, schedule,
    schedule_unit, milestones, gamma
        As in :class:`skyloom.task.detect_optim.DetectRecipe`.
    freeze_epochs
        Epochs at the start in which the backbone neither learns nor updates its running statistics.
    ema_decay
        Share of a moving average of the weights kept per optimiser step; the average is judged. None: no average.
    val_loss
        Whether losses are computed for validation images too, each by itself.
    score, nms, top_k
        Of :func:`skyloom.detector.candidates.select`, for the scores.
    areas_px2
        Ranges of the masks' areas, px^2, by name, for scores of their own.

    Notes
    -----
    The batch is that of :mod:`skyloom.datamodule.detection_batch`. Logged at each step, as means over processes:
    ``train/loss``, each part as ``train/<name>``, ``train/learning_rate`` of the heads; after an epoch ``val/loss``,
    ``val/<name>``, ``val/found_per_image`` and, as ``val/<name>``, the scores of
    :class:`skyloom.metric.detection_scores.DetectionScores`.

    Raises
    ------
    ConfigError
        An option is out of range, or the detector has another number of classes.
    """

    monitor = "val/mask_ap"
    mode = "max"

    def __init__(
        self,
        detector: Detector,
        *,
        classes: Sequence[str],
        seed: int,
        optimizer: str,
        learning_rate: float,
        learning_rate_end: float,
        backbone_lr_scale: float,
        layer_decay: float,
        weight_decay: float,
        warmup_steps: int,
        schedule: str,
        schedule_unit: str,
        milestones: Sequence[float],
        gamma: float,
        freeze_epochs: int,
        ema_decay: float | None,
        val_loss: bool,
        score: float,
        nms: float,
        top_k: int,
        areas_px2: dict[str, tuple[float, float]],
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["detector"])
        if seed < 0 or freeze_epochs < 0:
            raise ConfigError(f"expected task.seed and task.freeze_epochs >= 0, found {seed} and {freeze_epochs}")
        if len(classes) != detector.classes:
            raise ConfigError(f"the detector has {detector.classes} classes, the data {len(classes)}: {list(classes)}")
        self.recipe = DetectRecipe(**{field.name: self.hparams[field.name] for field in fields(DetectRecipe)})
        self.thresholds: dict[str, Any] = {"score": score, "nms": nms, "top_k": top_k}
        select([], **self.thresholds)  # refuses what is out of range
        self.classes, self.areas, self.seed = list(classes), dict(areas_px2), seed
        self.freeze_epochs, self.val_loss = freeze_epochs, val_loss
        self.detector = detector
        self.ema = None if ema_decay is None else MovingAverage(detector, ema_decay)
        self._judge = self._new_judge()
        self._fixed = [name for name, parameter in detector.named_parameters() if not parameter.requires_grad]
        self._frozen = False

    @property
    def evaluated(self) -> Detector:
        """The detector with the weights that are judged: the moving average if there is one."""
        averaged: Any = self.detector if self.ema is None else self.ema.module
        return averaged

    def deployed(self, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The weights to ship, as ``detector.*``, from this task or from the ``state_dict`` of its checkpoint."""
        return deployed(self.state_dict() if state is None else state, name="detector", average="ema")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Sum the losses of a batch."""
        images, targets = images_of(batch), batch["targets"]
        with stream(self.device, step_seed(self.seed, self.global_step, self.global_rank, batch_idx)):
            parts = self.detector.losses(images, targets)
        loss = total(parts)
        values = torch.stack([loss.detach(), *(value.detach().float() for value in parts.values())])
        means = self.trainer.strategy.reduce(values, reduce_op="mean")  # one exchange for all of them
        logged = dict(zip(["loss", *parts], means, strict=True))
        logged["learning_rate"] = torch.tensor(max(group["lr"] for group in self.trainer.optimizers[0].param_groups))
        self.log("train/loss", logged.pop("loss"), prog_bar=True, batch_size=len(targets))
        self.log_dict({f"train/{name}": value for name, value in logged.items()}, batch_size=len(targets))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list[Candidates]]:
        """Judge a batch; returns ``found``, the detections of each image, for pictures."""
        images, ids = images_of(batch), batch["id"].tolist()
        if self.val_loss:  # one by one: their means then depend neither on batches nor on the number of processes
            for image, target, image_id in zip(images, batch["targets"], ids, strict=True):
                with stream(self.device, step_seed(self.seed, VALIDATION, image_id)):
                    self._judge.add_losses(self.evaluated.losses(image[None], [target]))
        found = self.found(images)
        for image_id, target, seen in zip(ids, batch["targets"], found, strict=True):
            self._judge.add(image_id, target, seen)
        return {"found": found}

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Candidates]:
        """Detections of each image."""
        return self.found(images_of(batch))

    def found(self, images: Sequence[Tensor] | Tensor) -> list[Candidates]:
        """Detections of images at the thresholds of validation, with the weights that are judged."""
        return select(self.evaluated.raw(images), **self.thresholds)

    def on_validation_start(self) -> None:
        """Begin to collect."""
        self._judge = self._new_judge()
        hold_buffers(self.trainer.strategy.model, True)

    def on_validation_epoch_end(self) -> None:
        """Log losses and scores over all images."""
        judged, self._judge = self._judge.reduced(), self._new_judge()
        hold_buffers(self.trainer.strategy.model, False)
        if not self.trainer.sanity_checking:
            self.log_dict({f"val/{name}": value for name, value in judged.items()}, sync_dist=True)

    def setup(self, stage: str) -> None:
        """Thaw what an interrupted fit may have left frozen, before anybody asks what learns."""
        self._freeze(False)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Freeze or thaw the backbone; also after a resume."""
        self._freeze(self.current_epoch < self.freeze_epochs)

    def on_after_backward(self) -> None:
        """Drop gradients of a frozen backbone, which several processes have to compute to stay in step."""
        if self._frozen:
            for module in self.detector.parts()["backbone"]:
                for parameter in module.parameters():
                    parameter.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the moving average follow: before any callback can write a checkpoint."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update_parameters(self.detector)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, counted in steps; a frozen backbone is part of it from the start."""
        groups = self.recipe.groups(self.detector, self.detector.parts()["backbone"])
        optimizer, expected = self.recipe.build(groups), self.trainer.estimated_stepping_batches
        if not math.isfinite(expected):
            raise ConfigError("the schedules of a task need an end: set trainer.max_epochs or trainer.max_steps")
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        scheduler = self.recipe.scheduler(optimizer, int(expected), per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _freeze(self, frozen: bool) -> None:
        if frozen or self._frozen:
            graph = self.trainer.world_size > 1  # else gradients would not be exchanged after thawing
            freeze(self.detector, self.detector.parts()["backbone"], frozen, fixed=self._fixed, graph=graph)
        self._frozen = frozen

    def _new_judge(self) -> Validation:
        return Validation(self.classes, areas=self.areas, max_detections=self.thresholds["top_k"])
