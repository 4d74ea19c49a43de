"""SimCLR: learn features from unlabelled images by telling two views of one image from views of all others."""

from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from pydantic import PositiveInt
from torch import Tensor, nn

from skyloom.errors import ConfigError
from skyloom.task.self_supervised import OBJECTS, SelfSupervisedTask, Terms, full_precision, single
from skyloom.transform import Preprocess


class SimclrTask(SelfSupervisedTask):
    """A simple framework for contrastive learning of representations (Chen et al. 2020, arXiv:2002.05709).

    Among the views of all images of the batch, over all devices, each view is to find the other one of its own image.

    Parameters
    ----------
    backbone, augment, preprocess, learning_rate, weight_decay, warmup_epochs, optimizer, seed
        As in :class:`SelfSupervisedTask`.
    projection_dim
        Length of the vectors that are compared.
    hidden_dim
        Width of the hidden layer of the projection.
    temperature
        Cosines are divided by it; a smaller one looks more at the most similar of the other images.

    Notes
    -----
    ``train/loss`` is eq. 1, the mean over all views: log(2 B - 1) for B images when views are unrelated.

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
        projection_dim: PositiveInt = 128,
        hidden_dim: PositiveInt = 2048,
        temperature: float = 0.1,
        learning_rate: float = 0.3,
        weight_decay: float = 1e-6,
        warmup_epochs: int = 10,
        optimizer: str = "lars",
        seed: int = 0,
    ) -> None:
        if temperature <= 0:
            raise ConfigError(f"temperature={temperature}: expected above 0, as 0.1")
        super().__init__(
            backbone, augment, preprocess, seed=seed, learning_rate=learning_rate, weight_decay=weight_decay,
            warmup_epochs=warmup_epochs, optimizer=optimizer,
        )  # fmt: skip
        self.save_hyperparameters(ignore=OBJECTS)
        with self.initial_weights():
            self.projection = SimCLRProjectionHead(int(backbone.num_features), hidden_dim, projection_dim)  # type: ignore[arg-type]
        self.criterion = NTXentLoss(temperature=temperature, gather_distributed=True)

    def loss(self, views: list[Tensor]) -> Terms:
        """Compare two batches of views, each (B, C, S, S)."""
        first, second = (single(self.projection(self.backbone(view))) for view in views)
        with full_precision(first):
            return Terms(self.criterion(first, second), {}, first.detach())
