"""Which layer of a backbone is read: its pooled output, a token, or any module by name."""

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from skyloom.backbone.build import Backbone
from skyloom.errors import ConfigError

CHOICES = ("pooled", "cls", "patch_mean")


class LayerReader(nn.Module):
    """A backbone that returns one vector per image from a layer of choice.

    Parameters
    ----------
    backbone
        The network.
    layer
        ``pooled``: the network's own output, the mean over the last map of a ResNet or Swin, the class token of
        DINOv2. ``cls``: the class token of the last layer. ``patch_mean``: the mean over the patches (without class and
        register tokens) or over the last map. Else the name of a module (``layer3``, ``blocks.8``, ``norm``):
        a map is averaged over the image, a sequence of tokens over the patches, a vector is taken as it is.

    Attributes
    ----------
    num_features : int
        Length of a vector, known after :meth:`measure`.

    Raises
    ------
    ConfigError
        The network has no such layer; the message names near ones.
    """

    def __init__(self, backbone: Backbone, layer: str) -> None:
        super().__init__()
        self.backbone, self.layer = backbone, layer
        self.num_features = backbone.num_features
        model: Any = backbone.model
        self._prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
        self._channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        self._found: list[Any] = []
        modules = {name: module for name, module in model.named_modules() if name}
        if layer == "cls" and getattr(model, "cls_token", None) is None:
            raise ConfigError(f"layer=cls: {backbone.name} has no class token; use layer=pooled or patch_mean")
        if layer not in CHOICES and layer not in modules:
            near = difflib.get_close_matches(layer, [*CHOICES, *modules], n=4, cutoff=0.4)
            top = [name for name, _ in model.named_children()]
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(
                f"layer={layer}: {backbone.name} has no such module; choose {', '.join(CHOICES)}, or a module in "
                f"{', '.join(top)}{hint}"
            )
        if layer not in CHOICES:
            # Swin passes (B, H, W, C) on, but not from the convolutions within.
            self._channels_last = self._channels_last and not isinstance(modules[layer], nn.Conv2d)
            modules[layer].register_forward_hook(lambda _module, _given, result: self._found.append(result))

    def measure(self, image_size_px: int) -> "LayerReader":
        """Find ``num_features`` by one blank image, before any work is done.

        Raises
        ------
        ConfigError
            The layer gives no vector.
        """
        parameter = next(self.parameters())
        image = torch.zeros(1, self.backbone.in_chans, image_size_px, image_size_px, device=parameter.device)
        with torch.inference_mode():
            self.num_features = int(self(image).shape[1])
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to vectors (B, D), float32."""
        if self.layer == "pooled":
            return self.backbone(images).float()
        if self.layer in CHOICES:
            self.backbone._check(images)
            model: Any = self.backbone.model
            last = model.forward_features(images)
            return last[:, 0].float() if self.layer == "cls" else self._averaged(last, len(images))
        self._found.clear()
        self.backbone(images)
        if not self._found:
            raise ConfigError(f"layer={self.layer}: {self.backbone.name} does not use this module to make features")
        result = self._found[-1]  # a module that is used several times is read at its last use
        self._found.clear()
        return self._averaged(result, len(images))

    def _averaged(self, result: Any, images: int) -> Tensor:
        if not isinstance(result, Tensor) or result.ndim not in (2, 3, 4) or len(result) != images:
            what = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ConfigError(
                f"layer={self.layer}: gives {what} for {images} image(s), expected a map, tokens or a vector for each"
            )
        result = result.float()
        if result.ndim == 4:
            return result.mean((1, 2) if self._channels_last else (2, 3))
        if result.ndim == 3:
            skip = self._prefix if result.shape[1] > self._prefix else 0
            return result[:, skip:].mean(1)
        return result
