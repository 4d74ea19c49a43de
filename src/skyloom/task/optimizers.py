"""The optimisers of self-supervised training: which weights decay, how fast each layer learns, and the schedules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.lars import LARS
from lightly.utils.scheduler import CosineWarmupScheduler, cosine_schedule
from timm.optim import param_groups_layer_decay
from torch import nn

from skyloom.errors import ConfigError, unknown_choice

OPTIMIZERS = ("lars", "sgd", "adamw")


@dataclass(frozen=True)
class Recipe:
    """How weights are changed.

    Attributes
    ----------
    learning_rate, learning_rate_end
        Peak, after a linear warm-up, and end of half a cosine. For the whole batch, over all devices.
    weight_decay, weight_decay_end
        At the start and, along half a cosine, at the end; None keeps the start. Not applied to biases and
        normalisation layers; LARS also scales only the layers that it applies to (You et al. 2017, arXiv:1708.03888).
    warmup_epochs
        Length of the warm-up; at most the whole training.
    optimizer
        ``lars``, ``sgd`` (both with momentum 0.9) or ``adamw``.
    layer_decay
        Factor of the learning rate from each layer of the backbone to the one below (Clark et al. 2020,
        arXiv:2003.10555, as Bao et al. 2022 use it), layers as timm groups them; 1 treats all alike. With adamw.
    patch_embed_scale
        Further factor for the input layer of a transformer (0.2 in DINOv2); needs no layer_decay. With adamw.

    Raises
    ------
    ConfigError
        An option is out of range.
    """

    learning_rate: float
    weight_decay: float
    warmup_epochs: int
    optimizer: str
    learning_rate_end: float = 0.0
    weight_decay_end: float | None = None
    layer_decay: float = 1.0
    patch_embed_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown_choice("task.optimizer", self.optimizer, OPTIMIZERS)
        if self.learning_rate <= 0 or min(self.weight_decay, self.warmup_epochs) < 0:
            raise ConfigError(
                "expected learning_rate > 0 and weight_decay, warmup_epochs >= 0, "
                f"found {self.learning_rate}, {self.weight_decay} and {self.warmup_epochs}"
            )
        if not 0 <= self.learning_rate_end <= self.learning_rate:
            raise ConfigError(f"learning_rate_end={self.learning_rate_end}: expected 0 to {self.learning_rate}")
        if self.weight_decay_end is not None and (self.weight_decay <= 0 or self.weight_decay_end < 0):
            raise ConfigError(
                "a schedule of the weight decay needs weight_decay > 0 and weight_decay_end >= 0, "
                f"found {self.weight_decay} and {self.weight_decay_end}"
            )
        for name, value in (("layer_decay", self.layer_decay), ("patch_embed_scale", self.patch_embed_scale)):
            if not 0 < value <= 1:
                raise ConfigError(f"{name}={value}: expected above 0, up to 1")
        if self.layered and self.optimizer != "adamw":
            raise ConfigError(f"layer_decay and patch_embed_scale need optimizer=adamw, found {self.optimizer}")

    @property
    def layered(self) -> bool:
        """True where the layers of the backbone have learning rates of their own."""
        return self.layer_decay != 1 or self.patch_embed_scale != 1

    def groups(self, backbone: nn.Module, heads: Sequence[nn.Module]) -> list[dict[str, Any]]:
        """Sort weights that get a gradient by weight decay, and by layer of the backbone where layers differ."""
        groups = self._layers(backbone) if self.layered else []
        decay, plain = get_weight_decay_parameters([*heads] if self.layered else [backbone, *heads])
        groups.append({"params": [p for p in decay if p.requires_grad], "weight_decay": self.weight_decay})
        groups.append({"params": [p for p in plain if p.requires_grad], "weight_decay": 0.0})
        return groups

    def _layers(self, backbone: nn.Module) -> list[dict[str, Any]]:
        network: Any = getattr(backbone, "model", backbone)  # timm's own, which knows its layers
        fixed = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
        patches = {id(p) for name, p in network.named_parameters() if name.startswith("patch_embed.")}
        groups = []
        for group in param_groups_layer_decay(
            network, self.weight_decay, no_weight_decay_list=fixed, layer_decay=self.layer_decay
        ):
            rate = self.learning_rate * group["lr_scale"]
            for is_patch, scale in ((False, 1.0), (True, self.patch_embed_scale)):
                params = [p for p in group["params"] if (id(p) in patches) is is_patch]
                if params:
                    groups.append({"params": params, "weight_decay": group["weight_decay"], "lr": rate * scale})
        return groups

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the optimiser."""
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=self.learning_rate)
        return (LARS if self.optimizer == "lars" else torch.optim.SGD)(groups, lr=self.learning_rate, momentum=0.9)

    def schedule(self, optimizer: torch.optim.Optimizer, warmup_steps: int, total_steps: int) -> CosineWarmupScheduler:
        """Linear warm-up, then half a cosine, counted in optimiser steps."""
        end = self.learning_rate_end / self.learning_rate
        # The end is put one step after the last: no step is wasted on zero, and a run of one step learns something.
        return CosineWarmupScheduler(optimizer, warmup_epochs=warmup_steps, max_epochs=total_steps + 1, end_value=end)

    def decay(self, step: int, total_steps: int) -> float:
        """Weight decay at an optimiser step."""
        if self.weight_decay_end is None:
            return self.weight_decay
        return cosine_schedule(min(step, total_steps), total_steps, self.weight_decay, self.weight_decay_end)

    def set_decay(self, optimizer: torch.optim.Optimizer, step: int, total_steps: int) -> None:
        """Give the groups that decay their weight decay of a step, where it follows a schedule."""
        if self.weight_decay_end is not None:
            for group in optimizer.param_groups:
                if group["weight_decay"] > 0:
                    group["weight_decay"] = self.decay(step, total_steps)
