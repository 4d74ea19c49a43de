"""DINOv2: DINO on whole images, iBOT on hidden patches, and KoLeo, which spreads features over the sphere."""

import torch
from lightly.loss.dino_loss import DINOLoss
from lightly.loss.ibot_loss import IBOTPatchLoss
from lightly.loss.koleo_loss import KoLeoLoss
from lightly.loss.msn_loss import sinkhorn
from pydantic import PositiveInt
from torch import Tensor, nn

from skyloom.backbone.tokens import MaskToken, patch_grid, patch_tokens, require_patch_tokens
from skyloom.errors import ConfigError, unknown_choice
from skyloom.task.distillation import DistillationTask, deactivated
from skyloom.task.self_supervised import OBJECTS, Terms, full_precision, single
from skyloom.transform import Preprocess
from skyloom.transform.block_mask import block_mask

CENTRINGS = ("mean", "sinkhorn")


class Dinov2Task(DistillationTask):
    """DINOv2 (Oquab et al. 2023, arXiv:2304.07193), for vision transformers.

    The teacher sees whole global views. The student sees the local views and the global ones with blocks of patches
    hidden, and learns what the teacher says of the image (DINO) and of each hidden patch (iBOT, Zhou et al. 2022,
    arXiv:2111.07832). KoLeo (Sablayrolles et al. 2019, arXiv:1806.03198) pushes each image from its nearest neighbour.

    Parameters
    ----------
    backbone, augment, preprocess, learning_rate, weight_decay, warmup_epochs, optimizer, seed
        As in :class:`skyloom.task.self_supervised.SelfSupervisedTask`; ``*_end``, ``layer_decay`` and
        ``patch_embed_scale`` as in :class:`skyloom.task.optimizers.Recipe`.
    local_crops, drop_path_rate, momentum_start, momentum_end, teacher_temperature*, freeze_last_layer_epochs
        As in :class:`DistillationTask`.
    output_dim, hidden_dim, bottleneck_dim
        Number of prototypes K, width of the heads, and length of the vectors before their last layer.
    separate_heads
        A head of its own for patches.
    ibot_weight, koleo_weight
        Of these two losses beside that of DINO. KoLeo is the mean of both global views; the authors' code adds them
        up, and its 0.1 for each is 0.2 here.
    mask_probability, mask_share
        Share of the global views with hidden patches, and least and largest share of hidden patches in these.
    student_temperature, center_momentum
        As in :class:`skyloom.task.dino.DinoTask`.
    centring
        What keeps the teacher from one answer for all: ``mean`` subtracts a moving mean; ``sinkhorn`` balances the
        prototypes over the batch by three Sinkhorn-Knopp iterations (Caron et al. 2020, arXiv:2006.09882).

    Notes
    -----
    Logged beside ``train/loss``: ``train/loss_dino``, ``train/loss_ibot`` and ``train/loss_koleo``. The embedding that
    is watched is the backbone's own output for the first view. KoLeo finds neighbours among the images of one device.
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
        separate_heads: bool = False,
        ibot_weight: float = 1.0,
        koleo_weight: float = 0.2,
        mask_probability: float = 0.5,
        mask_share: tuple[float, float] = (0.1, 0.5),
        drop_path_rate: float = 0.1,
        centring: str = "mean",
        student_temperature: float = 0.1,
        teacher_temperature_start: float = 0.04,
        teacher_temperature: float = 0.07,
        teacher_temperature_warmup_epochs: int = 30,
        center_momentum: float = 0.9,
        momentum_start: float = 0.992,
        momentum_end: float = 1.0,
        freeze_last_layer_epochs: int = 1,
        learning_rate: float = 2e-3,
        learning_rate_end: float = 1e-6,
        weight_decay: float = 0.04,
        weight_decay_end: float | None = 0.4,
        layer_decay: float = 0.9,
        patch_embed_scale: float = 0.2,
        warmup_epochs: int = 10,
        optimizer: str = "adamw",
        seed: int = 0,
    ) -> None:
        require_patch_tokens(backbone, "task=dinov2")
        if centring not in CENTRINGS:
            raise unknown_choice("task.centring", centring, CENTRINGS)
        if not 0 <= mask_probability <= 1 or not 0 <= mask_share[0] <= mask_share[1] <= 1:
            raise ConfigError(
                f"expected mask_probability and a rising mask_share of 0-1, found {mask_probability}, {mask_share}"
            )
        super().__init__(
            backbone, augment, preprocess, local_crops=local_crops, drop_path_rate=drop_path_rate,
            momentum_start=momentum_start, momentum_end=momentum_end,
            teacher_temperature_start=teacher_temperature_start, teacher_temperature=teacher_temperature,
            teacher_temperature_warmup_epochs=teacher_temperature_warmup_epochs,
            freeze_last_layer_epochs=freeze_last_layer_epochs, learning_rate=learning_rate,
            learning_rate_end=learning_rate_end, weight_decay=weight_decay, weight_decay_end=weight_decay_end,
            layer_decay=layer_decay, patch_embed_scale=patch_embed_scale, warmup_epochs=warmup_epochs,
            optimizer=optimizer, seed=seed,
        )  # fmt: skip
        self.save_hyperparameters(ignore=OBJECTS)
        size = (hidden_dim, bottleneck_dim, output_dim)
        self.projection, self.teacher_projection = self.new_head(*size), deactivated(self.new_head(*size))
        if separate_heads:
            self.patch_projection, self.teacher_patch_projection = (
                self.new_head(*size),
                deactivated(self.new_head(*size)),
            )
        self.mask_token = MaskToken(int(backbone.num_features))  # type: ignore[arg-type]
        kept = 1.0 if centring == "sinkhorn" else center_momentum  # a centre that is kept as it is stays at zero
        self.criterion = DINOLoss(output_dim, student_temp=student_temperature, center_momentum=kept)
        self.patch_criterion = IBOTPatchLoss(output_dim, student_temp=student_temperature, center_momentum=kept)
        self.koleo = KoLeoLoss()

    def loss(self, views: list[Tensor]) -> Terms:
        """Compare all crops with the teacher's two global ones, and hidden patches with what the teacher sees there."""
        large = torch.cat(views[:2])
        mask = self.mask(large)
        temperature = self.scheduled(self.global_step)["teacher_temperature"]
        patch_head = self.patch_projection if self.hparams["separate_heads"] else self.projection
        teacher_patch_head = (
            self.teacher_patch_projection if self.hparams["separate_heads"] else self.teacher_projection
        )
        with torch.no_grad():
            whole, patches = patch_tokens(self.teacher_backbone, large)
            seen = self.targets(self.teacher_projection(whole), temperature)
            seen_patches = self.targets(teacher_patch_head(patches[mask.flatten(1)]), temperature)
        pooled, patches = patch_tokens(self.backbone, large, mask.flatten(1), self.mask_token.value)  # type: ignore[arg-type]
        features = [*pooled.chunk(2)]
        if views[2:]:
            features += self.backbone(torch.cat(views[2:])).chunk(len(views) - 2)
        student = single(self.projection(torch.cat(features))).chunk(len(views))
        guessed = single(patch_head(patches[mask.flatten(1)]))
        with full_precision(large):
            parts = {
                "dino": self.criterion([*seen.chunk(2)], [*student], temperature),
                "ibot": self.patch_criterion(seen_patches, guessed, mask, temperature),
                "koleo": (self.koleo(single(features[0])) + self.koleo(single(features[1]))) / 2,
            }
        total = parts["dino"] + self.hparams["ibot_weight"] * parts["ibot"]
        total = total + self.hparams["koleo_weight"] * parts["koleo"]
        return Terms(total, parts, features[0].detach().float())

    def mask(self, images: Tensor) -> Tensor:
        """Choose hidden patches of global views (N, C, S, S): bool (N, rows, columns)."""
        rows, columns = patch_grid(self.backbone, images)  # type: ignore[arg-type]
        chance, share = self.hparams["mask_probability"], tuple(self.hparams["mask_share"])
        # In a training step the global stream is that of the views: seed, step, rank.
        hidden = block_mask(
            len(images), rows, columns, probability=chance, share=share, generator=torch.default_generator
        )
        return hidden.to(images.device)

    def targets(self, logits: Tensor, temperature: float) -> Tensor:
        """Return logits (N, K), float32, whose softmax at this temperature is what the student shall say."""
        logits = single(logits)
        if self.hparams["centring"] == "mean":
            return logits
        with full_precision(logits):
            balanced = sinkhorn((logits / temperature).softmax(1), gather_distributed=True)
            return temperature * balanced.clamp(min=1e-30).log()
