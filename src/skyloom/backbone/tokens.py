"""Patch tokens of vision transformers, with some patches hidden behind a mask token where that is asked for."""

from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from skyloom.backbone.build import Backbone
from skyloom.errors import ConfigError, InputError


class MaskToken(nn.Module):
    """What stands in for a hidden patch: one learnt vector; it starts at zero, as in DINOv2.

    Attributes
    ----------
    value : Parameter
        (D,).
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(num_features))


def require_patch_tokens(backbone: Any, wanted_by: str) -> None:
    """Refuse a backbone without patch tokens.

    Parameters
    ----------
    backbone
        A network.
    wanted_by
        Who asks, for the message.

    Raises
    ------
    ConfigError
        Names the backbone.
    """
    model = getattr(backbone, "model", None)
    if not isinstance(backbone, Backbone) or not all(
        hasattr(model, name) for name in ("patch_embed", "blocks", "num_prefix_tokens", "forward_head")
    ):
        name = getattr(backbone, "name", type(backbone).__name__)
        raise ConfigError(
            f"{wanted_by} hides patches, and {name} has no patch tokens; take a vision transformer "
            "(backbone=dinov2_s), or task=dino, which takes any backbone"
        )


def patch_grid(backbone: Backbone, images: Tensor) -> tuple[int, int]:
    """Return rows and columns of patches of images (B, C, H, W)."""
    model: Any = backbone.model
    rows_px, columns_px = model.patch_embed.patch_size
    return images.shape[-2] // int(rows_px), images.shape[-1] // int(columns_px)


def patch_tokens(
    backbone: Backbone, images: Tensor, mask: Tensor | None = None, mask_token: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Map images to one vector each and to the tokens of their patches.

    Parameters
    ----------
    backbone
        A vision transformer, as :func:`require_patch_tokens` checks.
    images
        (B, C, H, W).
    mask
        bool (B, P), row-major over the patches: True where ``mask_token`` replaces the patch, before its position is
        added; None hides nothing.
    mask_token
        (D,).

    Returns
    -------
    pooled : Tensor
        (B, D): what ``backbone(images)`` gives; of DINOv2 the class token.
    patches : Tensor
        (B, P, D), after the last normalisation, without class and register tokens.

    Raises
    ------
    InputError
        The mask does not fit the images.
    """
    backbone._check(images)
    model: Any = backbone.model
    rows, columns = patch_grid(backbone, images)
    if mask is None:
        tokens = model.forward_features(images)
    else:
        if mask.shape != (len(images), rows * columns) or mask_token is None:
            raise InputError(
                f"expected a mask of {(len(images), rows * columns)} and a mask token, found {tuple(mask.shape)}"
            )
        token = mask_token

        def hide(_module: nn.Module, _given: Any, patches: Tensor) -> Tensor:
            hidden = mask.view(len(patches), *patches.shape[1:-1], 1)  # (B, P, D), or (B, rows, columns, D)
            return torch.where(hidden, token.to(patches.dtype), patches)

        handle = model.patch_embed.register_forward_hook(hide)
        try:
            tokens = model.forward_features(images)
        finally:
            handle.remove()
    return model.forward_head(tokens), tokens[:, int(model.num_prefix_tokens) :]


def set_drop_path(backbone: Any, rate: float, wanted_by: str) -> None:
    """Let a vision transformer skip branches of its blocks in training (stochastic depth, Huang et al. 2016).

    Parameters
    ----------
    backbone
        A network with ``model.blocks``.
    rate
        Chance at the last block, rising linearly from 0 at the first; 0 leaves the network as it is.
    wanted_by
        Who asks, for the message.

    Raises
    ------
    ConfigError
        The network has no such blocks, or the rate is out of range.
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"drop_path_rate={rate}: expected 0 up to, not including, 1")
    if rate == 0:
        return
    blocks = getattr(getattr(backbone, "model", None), "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not all(hasattr(block, "drop_path1") for block in blocks):
        name = getattr(backbone, "name", type(backbone).__name__)
        raise ConfigError(f"{wanted_by}: only vision transformers skip branches; set task.drop_path_rate=0 for {name}")
    for number, block in enumerate(blocks):
        share = rate * number / max(1, len(blocks) - 1)
        block.drop_path1, block.drop_path2 = DropPath(share), DropPath(share)
