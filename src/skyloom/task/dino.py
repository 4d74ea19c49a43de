"""DINO: learn features from unlabelled images by predicting, from any crop, what a teacher says of a large one."""

import torch
from lightly.loss.dino_loss import DINOLoss
from pydantic import PositiveInt
from torch import Tensor, nn

from skyloom.task.distillation import DistillationTask, deactivated
from skyloom.task.self_supervised import OBJECTS, Terms, full_precision, single
from skyloom.transform import Preprocess


class DinoTask(DistillationTask):
    """Self-distillation with no labels (Caron et al. 2021, arXiv:2104.14294), with any backbone.

    The student sees all crops, the teacher the two global ones. The teacher's output is centred, by a moving mean over
    the batches that is part of the checkpoint, and sharpened by a low temperature; each prevents the collapse that the
    other alone would lead to (sect. 5.3).

    Parameters
    ----------
    backbone, augment, preprocess, learning_rate, weight_decay, warmup_epochs, optimizer, seed
        As in :class:`skyloom.task.self_supervised.SelfSupervisedTask`; ``*_end`` and ``layer_decay`` as in
        :class:`skyloom.task.optimizers.Recipe`.
    local_crops, drop_path_rate, momentum_start, momentum_end, teacher_temperature*, freeze_last_layer_epochs
        As in :class:`DistillationTask`.
    output_dim, hidden_dim, bottleneck_dim
        Number of prototypes K, width of the head, and length of the vectors before the last layer.
    batch_norm
        Batch normalisation in the head: for convolutional backbones.
    norm_last_layer
        Keep the length of each prototype at 1: steadier, slightly worse for large networks.
    student_temperature
        The student's softmax is divided by it.
    center_momentum
        Share of the centre that is kept per step.

    Notes
    -----
    ``train/loss`` is the cross-entropy between teacher and student over different crops. It may rise while the centre
    settles in the first steps. The embedding that is watched is the backbone's own output for the first view.
    """

    def __init__(
        self,
        backbone: nn.Module,
        augment: nn.Module,
        preprocess: Preprocess,
        *,
        local_crops: int = 8,
        output_dim: PositiveInt = 65536,
        hidden_dim: PositiveInt = 2048,
        bottleneck_dim: PositiveInt = 256,
        batch_norm: bool = False,
        norm_last_layer: bool = True,
        drop_path_rate: float = 0.0,
        student_temperature: float = 0.1,
        teacher_temperature_start: float = 0.04,
        teacher_temperature: float = 0.04,
        teacher_temperature_warmup_epochs: int = 0,
        center_momentum: float = 0.9,
        momentum_start: float = 0.996,
        momentum_end: float = 1.0,
        freeze_last_layer_epochs: int = 1,
        learning_rate: float = 5e-4,
        learning_rate_end: float = 1e-6,
        weight_decay: float = 0.04,
        weight_decay_end: float | None = 0.4,
        layer_decay: float = 1.0,
        warmup_epochs: int = 10,
        optimizer: str = "adamw",
        seed: int = 0,
    ) -> None:
        super().__init__(
            backbone, augment, preprocess, local_crops=local_crops, drop_path_rate=drop_path_rate,
            momentum_start=momentum_start, momentum_end=momentum_end,
            teacher_temperature_start=teacher_temperature_start, teacher_temperature=teacher_temperature,
            teacher_temperature_warmup_epochs=teacher_temperature_warmup_epochs,
            freeze_last_layer_epochs=freeze_last_layer_epochs, learning_rate=learning_rate,
            learning_rate_end=learning_rate_end, weight_decay=weight_decay, weight_decay_end=weight_decay_end,
            layer_decay=layer_decay, warmup_epochs=warmup_epochs, optimizer=optimizer, seed=seed,
        )  # fmt: skip
        self.save_hyperparameters(ignore=OBJECTS)
        size = (hidden_dim, bottleneck_dim, output_dim)
        self.projection = self.new_head(*size, batch_norm=batch_norm, norm_last_layer=norm_last_layer)
        self.teacher_projection = deactivated(self.new_head(*size, batch_norm=batch_norm))
        self.criterion = DINOLoss(output_dim, student_temp=student_temperature, center_momentum=center_momentum)

    def loss(self, views: list[Tensor]) -> Terms:
        """Compare all crops with the teacher's view of the two global ones, each (B, C, S, S)."""
        features = self.crops_of(self.backbone, views)
        student = self.projection(torch.cat(features)).chunk(len(views))
        with torch.no_grad():
            seen = self.teacher_projection(self.teacher_backbone(torch.cat(views[:2]))).chunk(2)
        temperature = self.scheduled(self.global_step)["teacher_temperature"]
        with full_precision(views[0]):
            total = self.criterion([single(t) for t in seen], [single(s) for s in student], temperature)
        return Terms(total, {}, features[0].detach().float())
