"""What all self-supervised methods share: seeded views, optimiser and schedules, the step, and what is logged."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightly.models.utils import update_momentum
from lightly.utils.debug import std_of_l2_normalized
from lightly.utils.scheduler import cosine_schedule
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from skyloom.errors import ConfigError, InputError
from skyloom.task.optimizers import Recipe
from skyloom.task.streams import step_seed, stream
from skyloom.transform import Preprocess

SHOWN_IMAGES = 8  # images whose views are kept for pictures
OBJECTS = ("backbone", "augment", "preprocess")  # arguments that are no hyperparameters


class Terms(NamedTuple):
    """What a method says of one batch.

    Attributes
    ----------
    total
        Scalar, what is minimised.
    parts
        Scalars by name, logged as ``train/loss_<name>``, before they are weighted.
    embedding
        (B, D) float32 without gradient: of one view of each image, after the projection.
    """

    total: Tensor
    parts: dict[str, Tensor]
    embedding: Tensor


class SelfSupervisedTask(LightningModule):
    """Base of the methods: a method makes its heads in ``__init__`` and compares views in :meth:`loss`.

    Parameters
    ----------
    backbone
        Maps (B, C, S, S) to (B, ``num_features``), as :class:`skyloom.backbone.Backbone` does.
    augment
        ``augment(images, generator)`` gives views, as :class:`skyloom.transform.RadioAugment` does.
    preprocess
        Scales raw images before, and normalises them after, augmentation.
    seed
        Start of the heads' weights and, with step and rank, of all views; a resumed run repeats them exactly.
    **recipe
        Fields of :class:`skyloom.task.optimizers.Recipe`.

    Attributes
    ----------
    last_embedding : Tensor or None
        (B, D) of the last batch, as in :class:`Terms`.
    last_views : list of Tensor
        Each (n, C, S, S), 0-1: the views of the first 8 images of the last batch, before they are normalised.
    total_steps : int
        Optimiser steps of the whole training, known when it starts.

    Notes
    -----
    The batch is ``{"image": (B, 1, H, W) raw float32, "id": (B,)}``. Logged at each step: ``train/loss``, its parts,
    ``train/collapse_std`` (of the normalised embedding: near 1/sqrt(D) when healthy, 0 when all images have become
    one point; Chen & He 2021, arXiv:2011.10566) and what :meth:`scheduled` gives.

    Raises
    ------
    ConfigError
        An option is out of range.
    """

    monitor = "train/loss"
    mode = "min"

    def __init__(
        self, backbone: nn.Module, augment: nn.Module, preprocess: Preprocess, *, seed: int, **recipe: Any
    ) -> None:
        super().__init__()
        if seed < 0:
            raise ConfigError(f"expected seed >= 0, found {seed}")
        self.recipe = Recipe(**recipe)
        self.backbone, self.augment, self.preprocess, self.seed = backbone, augment, preprocess, seed
        self.total_steps = 1
        self.last_embedding: Tensor | None = None
        self.last_views: list[Tensor] = []

    def loss(self, views: list[Tensor]) -> Terms:
        """Compare views, each (B, C, S, S) and normalised; the two large ones come first."""
        raise NotImplementedError

    def online(self) -> Sequence[nn.Module]:
        """Return the heads that learn, beside the backbone; a method whose heads have other names says which."""
        return [module for name, module in self.named_children() if name in ("projection", "prediction")]

    def scheduled(self, step: int) -> dict[str, float]:
        """Return what changes along the training, by name, at an optimiser step; logged as ``train/<name>``."""
        return {}

    def after_step(self, step: int) -> None:
        """Do what follows the optimiser step with this number, counted from 0, as a moving average does."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compare views of each image of the batch."""
        images = batch["image"]
        if len(images) < 2:
            name = type(self).__name__.removesuffix("Task").upper()
            raise InputError(
                f"{name} compares images of a batch: it needs at least 2 in each; raise datamodule.batch_size (and "
                "give a loader of your own drop_last=True)"
            )
        seed = step_seed(self.seed, self.global_step, self.global_rank, batch_idx)
        generator = torch.Generator(device=images.device).manual_seed(seed)
        views = self.augment(self.preprocess.scale(images), generator)
        self.last_views = [view[:SHOWN_IMAGES].clone() for view in views]
        with stream(images.device, seed):  # for the drop-out of some backbones
            terms = self.loss([self.preprocess.normalise(view).to(self.dtype) for view in views])
        self.last_embedding = terms.embedding
        logged: dict[str, Tensor | float] = {"train/loss": terms.total.detach()}
        logged |= {f"train/loss_{name}": value.detach() for name, value in terms.parts.items()}
        logged |= {"train/collapse_std": std_of_l2_normalized(terms.embedding)}
        logged |= {f"train/{name}": value for name, value in self.scheduled(self.global_step).items()}
        self.log_dict(logged, prog_bar=True, batch_size=len(images), sync_dist=True)
        return terms.total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then :meth:`after_step`: before any callback can write a checkpoint."""
        step = self.global_step
        self.recipe.set_decay(self.trainer.optimizers[0], step, self.total_steps)
        super().optimizer_step(*args, **kwargs)
        self.after_step(step)

    def half_cosine(self, step: int, start: float, end: float) -> float:
        """Return the value at an optimiser step of what goes from start to end over the training."""
        return cosine_schedule(min(step, self.total_steps), self.total_steps, start, end)

    def configure_optimizers(self) -> Any:
        """Return the optimiser with warm-up and half a cosine, counted in steps."""
        optimizer = self.recipe.build(self.recipe.groups(self.backbone, self.online()))
        expected = self.trainer.estimated_stepping_batches
        if not math.isfinite(expected):
            raise ConfigError("the schedules of a task need an end: set trainer.max_epochs or trainer.max_steps")
        total = self.total_steps = int(expected)
        per_epoch = min(total, self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        warmup = min(total, self.recipe.warmup_epochs * math.ceil(per_epoch))
        scheduler = self.recipe.schedule(optimizer, warmup, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @contextmanager
    def initial_weights(self) -> Iterator[None]:
        """Draw the weights of the heads that are made within from the seed, and from nothing else."""
        with stream(torch.device("cpu"), self.seed):
            yield


@contextmanager
def full_precision(tensor: Tensor) -> Iterator[None]:
    """Switch mixed precision off, for sums and logarithms that half precision would round; pass :func:`single` in."""
    with torch.autocast(tensor.device.type, enabled=False):
        yield


def single(tensor: Tensor) -> Tensor:
    """Return what has half precision in single; double stays double."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_momentum(start: float, end: float) -> None:
    """Refuse shares of a moving average that are outside 0-1, or that fall.

    Raises
    ------
    ConfigError
        Names both.
    """
    if not 0 <= start <= end <= 1:
        raise ConfigError(f"expected 0 <= momentum_start <= momentum_end <= 1, found {start} and {end}")


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """Set target = momentum * target + (1 - momentum) * online, for weights; buffers stay the target's own."""
    update_momentum(online, target, m=momentum)
