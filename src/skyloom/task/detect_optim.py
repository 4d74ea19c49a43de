"""How a detector's weights change: rates by layer, weight decay, warm-up, schedules, and a backbone that waits."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from skyloom.errors import ConfigError, unknown_choice

OPTIMIZERS, SCHEDULES, UNITS = ("adamw", "sgd"), ("multistep", "cosine", "constant"), ("epochs", "steps")
# Tables of positions and learnt tokens: no matrices that decay could simplify.
TABLES = {
    "relative_position_bias_table", "absolute_pos_embed", "pos_embed", "rel_pos_h", "rel_pos_w",
    "cls_token", "reg_token", "dist_token", "mask_token",
}  # fmt: skip


@dataclass(frozen=True)
class DetectRecipe:
    """Optimiser and schedule.

    Attributes
    ----------
    optimizer
        ``adamw`` (Loshchilov & Hutter 2019, arXiv:1711.05101), or ``sgd`` with momentum 0.9.
    learning_rate, learning_rate_end
        Peak, and end of a cosine; for the whole batch, over all devices.
    backbone_lr_scale
        Factor of the backbone's learning rate.
    layer_decay
        Factor from each layer of the backbone to the one below (Clark et al. 2020, arXiv:2003.10555), layers as timm
        groups them; 1 treats all alike.
    weight_decay
        Per step; not on biases, normalisation, tables of positions and embeddings.
    warmup_steps
        Optimiser steps of linear rise at the start.
    schedule
        ``multistep`` (times gamma at each milestone), ``cosine`` (half of one, from the end of the warm-up to the end
        of the training) or ``constant``.
    schedule_unit
        ``epochs`` or ``steps``: unit of the milestones, and when the rate of a cosine changes.
    milestones, gamma
        Of ``multistep``; parts of epochs are allowed.

    Raises
    ------
    ConfigError
        An option is out of range.
    """

    optimizer: str
    learning_rate: float
    learning_rate_end: float
    backbone_lr_scale: float
    layer_decay: float
    weight_decay: float
    warmup_steps: int
    schedule: str
    schedule_unit: str
    milestones: Sequence[float]
    gamma: float

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("schedule_unit", UNITS)):
            if getattr(self, name) not in known:
                raise unknown_choice(f"task.{name}", getattr(self, name), known)
        if self.learning_rate <= 0 or min(self.weight_decay, self.warmup_steps) < 0:
            raise ConfigError(
                "expected task.learning_rate > 0 and weight_decay, warmup_steps >= 0, "
                f"found {self.learning_rate}, {self.weight_decay} and {self.warmup_steps}"
            )
        if not 0 <= self.learning_rate_end <= self.learning_rate:
            raise ConfigError(f"task.learning_rate_end={self.learning_rate_end}: expected 0 to {self.learning_rate}")
        for name in ("backbone_lr_scale", "layer_decay", "gamma"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"task.{name}={getattr(self, name)}: expected above 0, up to 1")
        if list(self.milestones) != sorted(set(self.milestones)) or any(m <= 0 for m in self.milestones):
            raise ConfigError(f"task.milestones={list(self.milestones)}: expected rising numbers above 0")
        if self.schedule == "multistep" and not self.milestones:
            raise ConfigError("task.schedule=multistep needs task.milestones, as [15, 25]; or set schedule=constant")

    def groups(self, network: nn.Module, backbone: Sequence[nn.Module]) -> list[dict[str, Any]]:
        """Sort the weights of a network that learn by learning rate and weight decay; those of the backbone first."""
        sorted_: dict[tuple[float, float], list[nn.Parameter]] = {}
        inner = {id(p): self.learning_rate * scale for p, scale in self._backbone_scales(backbone)}
        if self.layer_decay != 1 and len(set(inner.values())) < 2:
            raise ConfigError(
                f"task.layer_decay={self.layer_decay}: the layers of this backbone are not known; set it to 1"
            )
        for of_backbone in (True, False):
            for parameter, decays in _parameters(network):
                if parameter.requires_grad and (id(parameter) in inner) is of_backbone:
                    rate = inner.get(id(parameter), self.learning_rate)
                    sorted_.setdefault((rate, self.weight_decay * decays), []).append(parameter)
        return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in sorted_.items()]

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the optimiser."""
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=self.learning_rate)
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=0.9)

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Learning rate at an optimiser step, counted from 0, in units of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps * self._scheduled(step, total_steps, steps_per_epoch)
        return self._scheduled(step, total_steps, steps_per_epoch)

    def scheduler(self, optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int) -> LambdaLR:
        """The schedule, to be called after each optimiser step."""
        return LambdaLR(optimizer, lambda step: self.factor(step, total_steps, steps_per_epoch))

    def _scheduled(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        unit = steps_per_epoch if self.schedule_unit == "epochs" else 1
        if self.schedule == "multistep":
            return self.gamma ** sum(step >= round(milestone * unit) for milestone in self.milestones)
        if self.schedule == "constant":
            return 1.0
        since, length = step // unit * unit - self.warmup_steps, total_steps - self.warmup_steps
        end, part = self.learning_rate_end / self.learning_rate, min(max(since / max(length, 1), 0.0), 1.0)
        return end + (1 - end) * (1 + math.cos(math.pi * part)) / 2

    def _backbone_scales(self, backbone: Iterable[nn.Module]) -> Iterator[tuple[nn.Parameter, float]]:
        for module in backbone:
            yield from ((parameter, self.backbone_lr_scale) for parameter in module.parameters())
            if self.layer_decay != 1:
                network: Any = getattr(module, "model", module)  # timm's own, which knows its layers
                for group in param_groups_layer_decay(network, layer_decay=self.layer_decay):
                    scale = self.backbone_lr_scale * group["lr_scale"]
                    yield from ((parameter, scale) for parameter in group["params"])


def freeze(
    network: nn.Module, backbone: Iterable[nn.Module], frozen: bool, *, fixed: Collection[str], graph: bool
) -> None:
    """Freeze or thaw a backbone: no gradients, and the running statistics and drop-out of evaluation.

    Parameters
    ----------
    network, backbone
        The whole, and its modules that are the backbone.
    frozen
        What to do.
    fixed
        Names of the network's weights that never learn.
    graph
        Whether gradients are computed although frozen; the caller drops them.
    """
    inner = {id(parameter) for module in backbone for parameter in module.parameters()}
    for module in backbone:
        module.train(not frozen)
    for name, parameter in network.named_parameters():
        if id(parameter) in inner:
            parameter.requires_grad_(name not in fixed and (graph or not frozen))


def _parameters(network: nn.Module) -> Iterator[tuple[nn.Parameter, bool]]:
    """Each weight once, and whether weight decay applies to it."""
    seen: set[int] = set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter, parameter.ndim > 1 and name not in TABLES and not isinstance(module, nn.Embedding)
