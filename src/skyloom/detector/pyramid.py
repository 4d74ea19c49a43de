"""Feature pyramids: of networks with several scales, and the simple one of plain transformers."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork

from skyloom.backbone import Backbone
from skyloom.detector.options import Norm, PyramidOptions

SCALES = (4, 2, 1, 0.5)  # of the simple pyramid, times the grid of the transformer (arXiv:2203.16527, section 3)
NORMS: dict[str, Callable[..., nn.Module] | None] = {
    "layer": partial(LayerNorm2d, eps=1e-6),
    "batch": nn.BatchNorm2d,
    "none": None,
}


class Pyramid(nn.Module):
    """Maps of one width from the maps of a backbone, the coarsest one subsampled once more.

    A network with several scales gets a feature pyramid network (Lin et al. 2017, arXiv:1612.03144), a plain
    transformer the simple feature pyramid of its last map (Li et al. 2022, arXiv:2203.16527).

    Parameters
    ----------
    backbone
        Gives the maps; it is not kept.
    options
        Width and normalisation.

    Attributes
    ----------
    strides : list of float
        Image pixels per pixel of each map that `forward` returns, fine to coarse.
    multiple_px : int
        Image sides must be multiples of it for every map to have a whole size.
    """

    def __init__(self, backbone: Backbone, options: PyramidOptions) -> None:
        super().__init__()
        channels = [int(info["channels"]) for info in backbone.feature_info]
        strides = [float(info["stride"]) for info in backbone.feature_info]
        self.plain = len(set(strides)) == 1
        if self.plain:
            strides = [strides[-1] / scale for scale in SCALES]
            self.scales = nn.ModuleList(_scale(channels[-1], scale, options) for scale in SCALES)
        else:
            norm = NORMS[options.norm]
            self.map_norms = nn.ModuleList(_map_norms(backbone, channels, options))
            self.fpn = FeaturePyramidNetwork(channels, options.channels, norm_layer=norm)
        self.strides = [*strides, 2 * strides[-1]]
        self.multiple_px = math.lcm(backbone.multiple_px, math.ceil(strides[-1]))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn the maps of the backbone into maps (B, channels, H/stride, W/stride), fine to coarse."""
        if self.plain:
            found = [scale(maps[-1]) for scale in self.scales]
        else:
            named = {str(i): norm(value) for i, (norm, value) in enumerate(zip(self.map_norms, maps, strict=True))}
            found = list(self.fpn(named).values())
        return [*found, functional.max_pool2d(found[-1], kernel_size=1, stride=2)]


def _map_norms(backbone: Backbone, channels: list[int], options: PyramidOptions) -> list[nn.Module]:
    """A LayerNorm for each map but the last of a network that itself ends in one, as Swin does."""
    ends_in_norm = isinstance(getattr(backbone.model, "norm", None), nn.LayerNorm)
    if options.map_norm == "none" or not ends_in_norm:
        return [nn.Identity() for _ in channels]
    return [LayerNorm2d(width, eps=1e-5) for width in channels[:-1]] + [nn.Identity()]


def _scale(width: int, scale: float, options: PyramidOptions) -> nn.Sequential:
    layers: list[nn.Module] = []
    if scale == 0.5:
        layers.append(nn.MaxPool2d(2))
    while scale > 1:
        layers.append(nn.ConvTranspose2d(width, width // 2, 2, stride=2))
        width, scale = width // 2, scale / 2
        if scale > 1:
            layers += [LayerNorm2d(width, eps=1e-6), nn.GELU()]
    norm, out = NORMS[options.norm], options.channels
    layers.append(Conv2dNormActivation(width, out, 1, padding=0, norm_layer=norm, activation_layer=None))
    layers.append(Conv2dNormActivation(out, out, 3, norm_layer=norm, activation_layer=None))
    return nn.Sequential(*layers)


def norm_layer(name: Norm) -> Callable[..., nn.Module] | None:
    """The class of a normalisation over channels, or None."""
    return NORMS[name]


def regularise(backbone: Backbone, *, drop_path: float | None, checkpointing: bool) -> None:
    """Let a transformer drop whole residual branches at random, and save memory at the price of time.

    Parameters
    ----------
    backbone
        Is changed; its weights are not.
    drop_path
        Probability at the last block, growing linearly with depth (Huang et al. 2016, arXiv:1603.09382); None leaves
        the backbone as it is.
    checkpointing
        Whether activations are computed again in the backward pass instead of being kept.
    """
    if drop_path is not None:
        blocks = [block for block in backbone.model.modules() if hasattr(block, "drop_path1")]
        for depth, block in enumerate(blocks):
            rate = drop_path * depth / max(len(blocks) - 1, 1)
            for name in ("drop_path1", "drop_path2"):
                setattr(block, name, DropPath(rate) if rate else nn.Identity())
    if checkpointing:
        backbone.model.set_grad_checkpointing(True)
