"""VICReg: learn features from unlabelled images whose views agree, which vary, and do not repeat themselves."""

import torch
from lightly.loss.vicreg_loss import covariance_loss, invariance_loss, variance_loss
from lightly.models.modules.heads import VICRegProjectionHead
from lightly.utils.dist import gather, world_size
from pydantic import PositiveInt
from torch import Tensor, nn

from skyloom.errors import ConfigError
from skyloom.task.self_supervised import OBJECTS, SelfSupervisedTask, Terms, full_precision, single
from skyloom.transform import Preprocess


class VicregTask(SelfSupervisedTask):
    """Variance-invariance-covariance regularisation (Bardes et al. 2022, arXiv:2105.04906).

    Two views of an image shall have equal vectors; over the batch, on all devices, each component shall have a standard
    deviation of at least 1, and no two components shall be correlated. No negatives, no second network.

    Parameters
    ----------
    backbone, augment, preprocess, learning_rate, weight_decay, warmup_epochs, optimizer, seed
        As in :class:`SelfSupervisedTask`.
    projection_dim, hidden_dim
        Length of the vectors that are compared, and width of the two hidden layers before them.
    invariance_weight, variance_weight, covariance_weight
        Of the three terms: lambda, mu and nu in the paper.

    Notes
    -----
    ``train/loss`` is eq. 6 as the authors' code scales it: the invariance is the mean over components, not the sum, and
    the variance the mean of both views, not the sum. Logged before they are weighted: ``train/loss_invariance``,
    ``train/loss_variance``, ``train/loss_covariance``.

    Raises
    ------
    ConfigError
        An option is out of range.
    """

    def __init__(
        self,
        backbone: nn.Module,
        augment: nn.Module,
        preprocess: Preprocess,
        *,
        projection_dim: PositiveInt = 8192,
        hidden_dim: PositiveInt = 8192,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        learning_rate: float = 0.3,
        weight_decay: float = 1e-6,
        warmup_epochs: int = 10,
        optimizer: str = "lars",
        seed: int = 0,
    ) -> None:
        weights = {"invariance": invariance_weight, "variance": variance_weight, "covariance": covariance_weight}
        if min(weights.values()) < 0:
            raise ConfigError(f"expected weights of 0 or more, found {weights}")
        super().__init__(
            backbone, augment, preprocess, seed=seed, learning_rate=learning_rate, weight_decay=weight_decay,
            warmup_epochs=warmup_epochs, optimizer=optimizer,
        )  # fmt: skip
        self.save_hyperparameters(ignore=OBJECTS)
        self.weights = weights
        with self.initial_weights():
            self.projection = VICRegProjectionHead(int(backbone.num_features), hidden_dim, projection_dim)  # type: ignore[arg-type]

    def loss(self, views: list[Tensor]) -> Terms:
        """Compare two batches of views, each (B, C, S, S)."""
        pair = [single(self.projection(self.backbone(view))) for view in views]
        with full_precision(pair[0]):
            everywhere = [torch.cat(gather(z), 0) if world_size() > 1 else z for z in pair]
            parts = {
                "invariance": invariance_loss(*pair),
                "variance": (variance_loss(everywhere[0]) + variance_loss(everywhere[1])) / 2,
                "covariance": covariance_loss(everywhere[0]) + covariance_loss(everywhere[1]),
            }
            total = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        return Terms(total, parts, pair[0].detach())
