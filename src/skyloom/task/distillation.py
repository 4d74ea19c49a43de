"""What DINO and DINOv2 share: a teacher that follows the student, crops of two sizes, a frozen last layer."""

import copy
import math
import warnings
from typing import Any

import torch
from lightly.models.modules.heads import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad
from torch import Tensor, nn

from skyloom.backbone.tokens import set_drop_path
from skyloom.errors import ConfigError
from skyloom.task.self_supervised import SelfSupervisedTask, check_momentum, follow
from skyloom.transform import Preprocess

LENGTH_MIN = 1e-4  # of the vectors before the last layer; with the usual widths they start at 1.5 (384 features)


class SteadyHead(DINOProjectionHead):
    """The head of DINO, safe for features that are all 0, as a blank crop can have them.

    lightly's divides a vector of length 0 by 1e-12, and gradients with it. Here vectors shorter than ``LENGTH_MIN`` are
    divided by that.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, D) to logits (B, K)."""
        return self.last_layer(nn.functional.normalize(self.layers(x), dim=-1, eps=LENGTH_MIN))


class DistillationTask(SelfSupervisedTask):
    """Base of the methods in which a student learns what its own moving average says of other crops.

    Parameters
    ----------
    backbone, augment, preprocess, seed, **recipe
        As in :class:`SelfSupervisedTask`.
    local_crops
        Small views that ``augment`` gives after the two global ones.
    drop_path_rate
        Chance that the student skips a branch of its last block; only for vision transformers.
    momentum_start, momentum_end
        Share of the teacher that is kept per optimiser step; follows half a cosine over the training.
    teacher_temperature_start, teacher_temperature, teacher_temperature_warmup_epochs
        The teacher's softmax is divided by it; linear from the first to the second over the first epochs.
    freeze_last_layer_epochs
        Epochs at the start in which the last layer of the heads stays as it is.

    Raises
    ------
    ConfigError
        An option is out of range, or the local crops do not suit the backbone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        augment: nn.Module,
        preprocess: Preprocess,
        *,
        local_crops: int,
        drop_path_rate: float,
        momentum_start: float,
        momentum_end: float,
        teacher_temperature_start: float,
        teacher_temperature: float,
        teacher_temperature_warmup_epochs: int,
        freeze_last_layer_epochs: int,
        seed: int,
        **recipe: Any,
    ) -> None:
        check_momentum(momentum_start, momentum_end)
        if not 0 < teacher_temperature_start <= teacher_temperature:
            raise ConfigError(
                "expected 0 < teacher_temperature_start <= teacher_temperature, "
                f"found {teacher_temperature_start} and {teacher_temperature}"
            )
        if min(teacher_temperature_warmup_epochs, freeze_last_layer_epochs) < 0:
            raise ConfigError(
                "expected teacher_temperature_warmup_epochs and freeze_last_layer_epochs >= 0, "
                f"found {teacher_temperature_warmup_epochs} and {freeze_last_layer_epochs}"
            )
        _check_crops(backbone, augment, local_crops)
        super().__init__(backbone, augment, preprocess, seed=seed, **recipe)
        self.teacher_backbone = deactivated(copy.deepcopy(backbone))
        set_drop_path(backbone, drop_path_rate, "task.drop_path_rate")  # the teacher sees with all of its blocks
        self._temperatures = (teacher_temperature_start, teacher_temperature)
        self._warmup_epochs, self._frozen_epochs = teacher_temperature_warmup_epochs, freeze_last_layer_epochs
        self._momenta = (momentum_start, momentum_end)
        self._steps_per_epoch = 1

    def new_head(self, hidden_dim: int, bottleneck_dim: int, output_dim: int, **options: Any) -> SteadyHead:
        """Make a head; all heads of a task start from the same weights, as student and teacher must."""
        with self.initial_weights(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=r".*weight_norm.* is deprecated"
            )  # lightly 1.6 calls torch 2.13 so
            return SteadyHead(
                int(self.backbone.num_features),  # type: ignore[arg-type]
                hidden_dim, bottleneck_dim, output_dim, freeze_last_layer=self._frozen_epochs, **options,
            )  # fmt: skip

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return (student, teacher) of every part that has a teacher."""
        return [
            (module, getattr(self, f"teacher_{name}"))
            for name, module in self.named_children()
            if hasattr(self, f"teacher_{name}")
        ]

    def crops_of(self, network: nn.Module, views: list[Tensor]) -> list[Tensor]:
        """Map views to features, all views of one size in one pass."""
        groups = [group for group in (views[:2], views[2:]) if group]
        return [part for group in groups for part in network(torch.cat(group)).chunk(len(group))]

    def scheduled(self, step: int) -> dict[str, float]:
        """Return momentum and temperature of the teacher at an optimiser step."""
        start, end = self._temperatures
        warmup = self._warmup_epochs * self._steps_per_epoch
        temperature = start + (end - start) * min(1.0, step / warmup) if warmup else end
        return {"momentum": self.half_cosine(step, *self._momenta), "teacher_temperature": temperature}

    def online(self) -> list[nn.Module]:
        """Return what learns beside the backbone."""
        names = ("projection", "patch_projection", "mask_token")
        return [module for name, module in self.named_children() if name in names]

    def on_train_start(self) -> None:
        """Count the optimiser steps of an epoch."""
        batches = self.trainer.num_training_batches
        self._steps_per_epoch = math.ceil(min(self.total_steps, batches / self.trainer.accumulate_grad_batches))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the gradient of the last layers away while they are frozen."""
        for student, _ in self.pairs():
            if isinstance(student, DINOProjectionHead):
                student.cancel_last_layer_gradients(self.current_epoch)

    def after_step(self, step: int) -> None:
        """Let the teacher follow."""
        for student, teacher in self.pairs():
            follow(teacher, student, self.scheduled(step)["momentum"])


def deactivated(module: nn.Module) -> Any:
    """Return the module without gradients, as a teacher must be."""
    deactivate_requires_grad(module)
    return module


def _check_crops(backbone: Any, augment: Any, local_crops: int) -> None:
    given = getattr(augment, "local_crops", local_crops)
    if given != local_crops:
        raise ConfigError(
            f"task.local_crops={local_crops}, but transform.augment.local_crops={given}: leave the latter as it is "
            "in conf/transform, where it follows the task"
        )
    if local_crops == 0:
        return
    if hasattr(backbone, "accept_any_size"):
        backbone.accept_any_size()
    patch_px, size_px = getattr(backbone, "multiple_px", 1), getattr(augment, "local_size_px", 0)
    if size_px % patch_px:
        raise ConfigError(
            f"transform.augment.local_size_px={size_px}: {backbone.name} needs a multiple of {patch_px} px, "
            f"as {max(1, round(size_px / patch_px)) * patch_px}"
        )
