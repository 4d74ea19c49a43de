"""BYOL: learn features from unlabelled images by predicting one view of an image from another."""

import copy

import torch
from lightly.loss.negative_cosine_similarity import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad
from pydantic import PositiveInt
from torch import Tensor, nn

from skyloom.task.self_supervised import OBJECTS, SelfSupervisedTask, Terms, check_momentum, follow
from skyloom.transform import Preprocess


class ByolTask(SelfSupervisedTask):
    """Bootstrap Your Own Latent (Grill et al. 2020, arXiv:2006.07733).

    The online network (backbone, projection, prediction) predicts the projection of another view by the target
    network (backbone, projection), which follows the online one as a moving average and gets no gradient.

    Parameters
    ----------
    backbone, augment, preprocess, learning_rate, weight_decay, warmup_epochs, optimizer, seed
        As in :class:`SelfSupervisedTask`.
    projection_dim
        Length of the vectors that are compared.
    hidden_dim, prediction_hidden_dim
        Width of the hidden layer of the projection and of the prediction head.
    momentum_start, momentum_end
        Share of the target that is kept per optimiser step; follows half a cosine over the training.

    Notes
    -----
    ``train/loss`` is eq. 2 in both directions: 0 when every prediction is right, 4 when predictions are unrelated.
    """

    def __init__(
        self,
        backbone: nn.Module,
        augment: nn.Module,
        preprocess: Preprocess,
        *,
        projection_dim: PositiveInt = 256,
        hidden_dim: PositiveInt = 4096,
        prediction_hidden_dim: PositiveInt = 4096,
        momentum_start: float = 0.99,
        momentum_end: float = 1.0,
        learning_rate: float = 0.2,
        weight_decay: float = 1.5e-6,
        warmup_epochs: int = 10,
        optimizer: str = "lars",
        seed: int = 0,
    ) -> None:
        check_momentum(momentum_start, momentum_end)
        super().__init__(
            backbone, augment, preprocess, seed=seed, learning_rate=learning_rate, weight_decay=weight_decay,
            warmup_epochs=warmup_epochs, optimizer=optimizer,
        )  # fmt: skip
        self.save_hyperparameters(ignore=OBJECTS)
        with self.initial_weights():
            self.projection = BYOLProjectionHead(int(backbone.num_features), hidden_dim, projection_dim)  # type: ignore[arg-type]
            self.prediction = BYOLPredictionHead(projection_dim, prediction_hidden_dim, projection_dim)
        self.target_backbone, self.target_projection = copy.deepcopy(backbone), copy.deepcopy(self.projection)
        deactivate_requires_grad(self.target_backbone)
        deactivate_requires_grad(self.target_projection)
        self.criterion = NegativeCosineSimilarity()

    def loss(self, views: list[Tensor]) -> Terms:
        """Compare two batches of views, each (B, C, S, S), in both directions."""
        projected = [self.projection(self.backbone(view)) for view in views]
        predicted = [self.prediction(p) for p in projected]
        with torch.no_grad():
            wanted = [self.target_projection(self.target_backbone(view)) for view in views]
        similarity = self.criterion(predicted[0], wanted[1]) + self.criterion(predicted[1], wanted[0])
        return Terms(4.0 + 2.0 * similarity, {}, projected[0].detach().float())

    def scheduled(self, step: int) -> dict[str, float]:
        """Return the share of the target that is kept at an optimiser step."""
        return {"momentum": self.half_cosine(step, self.hparams["momentum_start"], self.hparams["momentum_end"])}

    def after_step(self, step: int) -> None:
        """Let the target follow (eq. 1)."""
        momentum = self.scheduled(step)["momentum"]
        follow(self.target_backbone, self.backbone, momentum)
        follow(self.target_projection, self.projection, momentum)
