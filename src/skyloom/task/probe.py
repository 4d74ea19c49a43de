"""Fine-tuning: a backbone and a new linear layer, trained end to end to tell labels from pixels."""

import math
from typing import Any

import torch
from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.scheduler import CosineWarmupScheduler
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from skyloom.errors import InputError
from skyloom.task.streams import step_seed, stream
from skyloom.transform import Preprocess


class ProbeTask(LightningModule):
    """A classifier that starts from a backbone.

    Parameters
    ----------
    backbone
        Maps (B, C, S, S) to (B, ``num_features``), as :class:`skyloom.backbone.Backbone` does.
    preprocess
        Scales raw images, and normalises them after augmentation.
    augment
        ``augment.view(images, generator)`` gives a random view; None trains on the images as they are.
    classes
        Number of classes.
    multi_label
        One sigmoid per class instead of one softmax over all.
    class_weight
        (C,) weight of each class in the loss; None weighs all alike.
    learning_rate, head_learning_rate
        Peaks for the backbone and for the linear layer, after a linear warm-up; then half a cosine to zero.
    weight_decay
        Of AdamW (Loshchilov & Hutter 2019), not on biases and normalisation layers.
    warmup_fraction
        Part of all steps in which the rates rise.
    seed
        Start of the linear layer and, with the step, of all views.

    Notes
    -----
    The batch is ``{"image": (B, 1, H, W) raw float32, "id": (B,), "target": (B,) int64}``, of several labels each
    ``"target": (B, C) float32`` of 0 and 1. Prediction needs no target and returns probabilities float32 (B, C).
    Logged: ``train/loss``.
    """

    monitor = "train/loss"
    mode = "min"

    def __init__(
        self,
        backbone: nn.Module,
        preprocess: Preprocess,
        augment: nn.Module | None,
        *,
        classes: int,
        multi_label: bool,
        class_weight: Tensor | None = None,
        learning_rate: float = 1e-4,
        head_learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone, self.preprocess, self.augment = backbone, preprocess, augment
        with stream(torch.device("cpu"), seed):
            self.head = nn.Linear(int(backbone.num_features), classes)  # type: ignore[arg-type]
            nn.init.trunc_normal_(self.head.weight, std=0.01)  # small: the first steps must not tear the backbone apart
            nn.init.zeros_(self.head.bias)
        self.multi_label, self.seed = multi_label, seed
        self.rates = (learning_rate, head_learning_rate)
        self.weight_decay, self.warmup_fraction = weight_decay, warmup_fraction
        self.register_buffer("class_weight", torch.ones(classes) if class_weight is None else class_weight.float())

    def forward(self, images: Tensor) -> Tensor:
        """Map prepared images (B, C, S, S) to logits (B, classes)."""
        return self.head(self.backbone(images.to(self.dtype)))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compare one view of each image with its classes."""
        images, target = self.preprocess.scale(batch["image"]), batch["target"]
        if self.augment is not None:
            generator = torch.Generator(device=images.device)
            generator.manual_seed(step_seed(self.seed, self.global_step, batch_idx))
            images = self.augment.view(images, generator)  # type: ignore[operator]
        logits = self(self.preprocess.normalise(images)).float()
        weight: Any = self.class_weight
        if self.multi_label:
            loss = (functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).mean()
        else:
            loss = functional.cross_entropy(logits, target, weight=weight)
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is no longer finite at step {self.global_step} (cutout ids {batch['id'][:5].tolist()} …); "
                "lower task.finetune.learning_rate, or use trainer.precision=32-true"
            )
        self.log("train/loss", loss.detach(), batch_size=len(images))
        return loss

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the probabilities of the classes, float32 (B, C)."""
        logits = self(self.preprocess(batch["image"])).float()
        return torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, dim=1)

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and half a cosine, counted in steps."""
        groups = []
        for module, rate in zip((self.backbone, self.head), self.rates, strict=True):
            decay, plain = get_weight_decay_parameters([module])
            for parameters, amount in ((decay, self.weight_decay), (plain, 0.0)):
                groups.append(
                    {"params": [p for p in parameters if p.requires_grad], "weight_decay": amount, "lr": rate}
                )
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
        total = int(self.trainer.estimated_stepping_batches)
        warmup = math.ceil(self.warmup_fraction * total)
        schedule = CosineWarmupScheduler(optimizer, warmup_epochs=warmup, max_epochs=total + 1, end_value=0.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
