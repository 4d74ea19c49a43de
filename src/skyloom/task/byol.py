"""BYOL: learn features from unlabelled images by predicting one view of an image from another."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightly.loss.negative_cosine_similarity import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, get_weight_decay_parameters, update_momentum
from lightly.utils.debug import std_of_l2_normalized
from lightly.utils.lars import LARS
from lightly.utils.scheduler import CosineWarmupScheduler, cosine_schedule
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from skyloom.errors import ConfigError, InputError, unknown_choice
from skyloom.transform import Preprocess

OPTIMIZERS = ("lars", "sgd", "adamw")


class ByolTask(LightningModule):
    """Bootstrap Your Own Latent (Grill et al. 2020, arXiv:2006.07733).

    The online network (backbone, projection, prediction) predicts the projection of another view by the target
    network (backbone, projection), which follows the online one as a moving average and gets no gradient.

    Parameters
    ----------
    backbone
        Maps (B, C, S, S) to (B, ``num_features``), as :class:`skyloom.backbone.Backbone` does.
    augment
        ``augment(images, generator)`` gives two views, as :class:`skyloom.transform.RadioAugment` does.
    preprocess
        Scales raw images before, and normalises them after, augmentation.
    projection_dim
        Length of the vectors that are compared.
    hidden_dim, prediction_hidden_dim
        Width of the hidden layer of the projection and of the prediction head.
    momentum_start, momentum_end
        Share of the target that is kept per optimiser step; follows half a cosine over the training.
    learning_rate
        Peak, after a linear warm-up; then half a cosine to zero. For the whole batch, over all devices.
    weight_decay
        Not applied to biases and normalisation layers; LARS also scales only the layers that it applies to.
    warmup_epochs
        Length of the warm-up; at most the whole training.
    optimizer
        ``lars``, ``sgd`` (both with momentum 0.9) or ``adamw``.
    seed
        Start of the heads' weights and, with step and rank, of all views; a resumed run repeats them exactly.

    Notes
    -----
    The batch is ``{"image": (B, 1, H, W) raw float32, "id": (B,)}``. Logged at each step:
    ``train/loss`` (eq. 2, both directions: 0 when every prediction is right, 4 when predictions are unrelated),
    ``train/collapse_std`` (of the normalised projections: near 1/sqrt(projection_dim) when healthy, 0 when all
    images have become one point; Chen & He 2021) and ``train/momentum``.

    Raises
    ------
    ConfigError
        An option is out of range.
    """

    monitor = "train/loss"
    mode = "min"

    def __init__(
        self,
        backbone: nn.Module,
        augment: nn.Module,
        preprocess: Preprocess,
        *,
        projection_dim: int = 256,
        hidden_dim: int = 4096,
        prediction_hidden_dim: int = 4096,
        momentum_start: float = 0.99,
        momentum_end: float = 1.0,
        learning_rate: float = 0.2,
        weight_decay: float = 1.5e-6,
        warmup_epochs: int = 10,
        optimizer: str = "lars",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if optimizer not in OPTIMIZERS:
            raise unknown_choice("task.optimizer", optimizer, OPTIMIZERS)
        if not 0 <= momentum_start <= momentum_end <= 1:
            raise ConfigError(
                f"expected 0 <= momentum_start <= momentum_end <= 1, found {momentum_start} and {momentum_end}"
            )
        if learning_rate <= 0 or min(weight_decay, warmup_epochs, seed) < 0:
            raise ConfigError(
                "expected learning_rate > 0 and weight_decay, warmup_epochs, seed >= 0, "
                f"found {learning_rate}, {weight_decay}, {warmup_epochs} and {seed}"
            )
        self.save_hyperparameters(ignore=["backbone", "augment", "preprocess"])
        self.backbone, self.augment, self.preprocess = backbone, augment, preprocess
        with _stream(torch.device("cpu"), seed):
            self.projection = BYOLProjectionHead(int(backbone.num_features), hidden_dim, projection_dim)  # type: ignore[arg-type]
            self.prediction = BYOLPredictionHead(projection_dim, prediction_hidden_dim, projection_dim)
        self.target_backbone, self.target_projection = copy.deepcopy(backbone), copy.deepcopy(self.projection)
        deactivate_requires_grad(self.target_backbone)
        deactivate_requires_grad(self.target_projection)
        self.criterion = NegativeCosineSimilarity()
        self.total_steps = 1  # optimiser steps of the whole training, known when it starts

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compare two views of each image of the batch, in both directions."""
        images = batch["image"]
        if len(images) < 2:
            raise InputError("BYOL normalises over the batch and needs at least 2 images in each; set drop_last=true")
        seed = step_seed(self.hparams["seed"], self.global_step, self.global_rank, batch_idx)
        generator = torch.Generator(device=images.device).manual_seed(seed)
        first, second = (self.preprocess.normalise(v) for v in self.augment(self.preprocess.scale(images), generator))
        with _stream(images.device, seed):  # for the drop-out of some backbones
            loss, projected = self.compare(first, second)
        logged = {
            "train/loss": loss.detach(),
            "train/collapse_std": std_of_l2_normalized(projected),
            "train/momentum": self.momentum(self.global_step),
        }
        self.log_dict(logged, prog_bar=True, batch_size=len(images))
        return loss

    def compare(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss between two batches of views (B, C, S, S), and the projections (B, projection_dim)."""
        projected = [self.projection(self.backbone(view)) for view in (first, second)]
        predicted = [self.prediction(p) for p in projected]
        with torch.no_grad():
            wanted = [self.target_projection(self.target_backbone(view)) for view in (first, second)]
        similarity = self.criterion(predicted[0], wanted[1]) + self.criterion(predicted[1], wanted[0])
        return 4.0 + 2.0 * similarity, projected[0].detach().float()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the online network, then let the target follow: before any callback can write a checkpoint."""
        step = self.global_step
        super().optimizer_step(*args, **kwargs)
        self.update_target(self.momentum(step))

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Set target = momentum * target + (1 - momentum) * online (eq. 1)."""
        update_momentum(self.backbone, self.target_backbone, m=momentum)
        update_momentum(self.projection, self.target_projection, m=momentum)

    def momentum(self, step: int) -> float:
        """Return the share of the target that is kept at an optimiser step: half a cosine, ending at momentum_end."""
        start, end = self.hparams["momentum_start"], self.hparams["momentum_end"]
        return cosine_schedule(min(step, self.total_steps), self.total_steps, start, end)

    def configure_optimizers(self) -> Any:
        """Return the optimiser with warm-up and half a cosine, counted in steps."""
        decay, plain = get_weight_decay_parameters([self.backbone, self.projection, self.prediction])
        groups = [
            {"params": [p for p in decay if p.requires_grad], "weight_decay": self.hparams["weight_decay"]},
            {"params": [p for p in plain if p.requires_grad], "weight_decay": 0.0},
        ]
        rate, name = self.hparams["learning_rate"], self.hparams["optimizer"]
        optimizer: torch.optim.Optimizer
        if name == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=rate)
        else:
            optimizer = (LARS if name == "lars" else torch.optim.SGD)(groups, lr=rate, momentum=0.9)
        expected = self.trainer.estimated_stepping_batches
        if not math.isfinite(expected):
            raise ConfigError("the schedules of BYOL need an end: set trainer.max_epochs or trainer.max_steps")
        total = self.total_steps = int(expected)
        per_epoch = min(total, self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        warmup = min(total, self.hparams["warmup_epochs"] * math.ceil(per_epoch))
        # The end, zero, is put one step after the last: no step is wasted, and a run of one step learns something.
        scheduler = CosineWarmupScheduler(optimizer, warmup_epochs=warmup, max_epochs=total + 1, end_value=0.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def step_seed(*numbers: int) -> int:
    """Mix whole numbers (run seed, step, rank, ...) into one 63-bit seed without visible pattern."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def _stream(device: torch.device, seed: int) -> Iterator[None]:
    """Start the global random streams of the CPU and of ``device`` from ``seed``, and put them back afterwards."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield
