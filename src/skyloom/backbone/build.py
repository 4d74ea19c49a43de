"""Build a feature network by its timm name, with any number of input channels."""

import difflib
import hashlib
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from skyloom.backbone.weights import LoadReport, load_weights
from skyloom.errors import ConfigError, InputError

MAPS = 4  # maps a detector gets: the usual C2 to C5 of a pyramid, or four blocks spread over a plain transformer


class Backbone(nn.Module):
    """A timm network without its classifier.

    Parameters
    ----------
    model
        The timm network, built with ``num_classes=0``.
    name
        Its timm name.
    in_chans
        Input channels.
    image_size_px
        Side of the square images it was built for; None means its native size.

    Attributes
    ----------
    num_features : int
        Length D of a feature vector.
    feature_info : list of dict
        ``channels`` and ``stride`` (input pixels per map pixel) of each map of ``forward_maps``, fine to coarse.
    multiple_px : int
        Number of which the sides of images must be multiples.
    weights : LoadReport or None
        What was taken from a weight file; None for random and for timm weights.
    """

    def __init__(self, model: Any, *, name: str, in_chans: int, image_size_px: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.in_chans = in_chans
        self.num_features = int(self.model.num_features)
        self.weights: LoadReport | None = None
        self._indices = _map_indices([int(info["reduction"]) for info in self.model.feature_info])
        chosen = [self.model.feature_info[i] for i in self._indices]
        self.feature_info = [{"channels": int(c["num_chs"]), "stride": int(c["reduction"])} for c in chosen]
        self.multiple_px, self._only_px = _size_rule(self.model, image_size_px)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to pooled features (B, D): mean over the image, or the class token of DINOv2."""
        self._check(images)
        return self.model(images)

    def forward_maps(self, images: Tensor) -> list[Tensor]:
        """Map images (B, C, H, W) to feature maps (B, channels, ~H/stride, ~W/stride), as ``feature_info`` says."""
        self._check(images)
        return self.model.forward_intermediates(images, indices=self._indices, norm=True, intermediates_only=True)

    def digest(self) -> str:
        """Return the sha256 (hex) of the name and of every weight, which identifies what made a feature."""
        total = hashlib.sha256(f"{self.name}:{self.in_chans}".encode())
        for key, tensor in sorted(self.model.state_dict().items()):
            total.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return total.hexdigest()

    def accept_any_size(self) -> None:
        """Let a network that was built for one size take others too: local crops beside whole images.

        Swin then makes its masks in each forward pass; its weights and its features at the native size stay.
        """
        for module in self.model.modules():
            for switch, value in (("strict_img_size", False), ("dynamic_mask", True)):
                if hasattr(module, switch):
                    setattr(module, switch, value)
        self._only_px = None

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_chans:
            raise InputError(
                f"{self.name} expects images (batch, {self.in_chans}, height, width), found {tuple(images.shape)}; "
                "set backbone.in_chans and the channels of the preprocessing to the same number"
            )
        height, width = images.shape[-2:]
        if self._only_px is not None and (height, width) != (self._only_px, self._only_px):
            raise InputError(
                f"{self.name} was built for {self._only_px} px images, found {height} x {width} px; "
                "set backbone.image_size_px to the size of the images"
            )
        if height % self.multiple_px or width % self.multiple_px:
            raise InputError(
                f"{self.name} needs image sides that are multiples of {self.multiple_px} px, found "
                f"{height} x {width} px; set backbone.image_size_px to such a number"
            )


def build_backbone(
    model: str,
    *,
    in_chans: int = 1,
    image_size_px: int | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
    allow_missing: bool = False,
) -> Backbone:
    """Build a backbone.

    Parameters
    ----------
    model
        Name in timm (``resnet18``, ``vit_small_patch14_dinov2.lvd142m``).
    in_chans
        Input channels. timm's own weights are adapted to it by summing the filters over the colours, which is
        what the network would see if the one channel were repeated.
    image_size_px
        Side of the images that it will see; None means the native size of the network. Convolutional networks
        take any size. Transformers keep their weights at the native size and adapt on the fly, so that a
        checkpoint fits at every image size.
    weights
        None: random, drawn from ``seed`` and from nothing else. ``"timm"``: timm's weights, downloaded once.
        A path: a file that :func:`skyloom.backbone.load_weights` reads.
    seed
        Start of the random weights; the global random state is neither read nor changed.
    allow_missing
        Accept a file that lacks more than the input layer; what it lacks keeps its random weights.

    Returns
    -------
    Backbone
        In training mode, on the CPU.

    Raises
    ------
    ConfigError
        The name is unknown, or the image size does not suit the network.
    InputError
        The weights cannot be had, read, or do not fit.
    """
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models() + timm.list_pretrained(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"backbone.model={model} is not a model of timm {timm.__version__}{hint}")
    if in_chans < 1:
        raise ConfigError(f"backbone.in_chans={in_chans}: expected at least 1")
    tags = timm.list_pretrained(f"{model.split('.')[0]}.*")
    if "." in model and model not in tags:
        raise ConfigError(f"backbone.model={model}: timm has no such weights; choose one of: {', '.join(tags)}")
    options = {"num_classes": 0, "in_chans": in_chans, **_size_options(model, image_size_px)}
    # Only the CPU stream is used, and fork_rng puts it back: torch.manual_seed would also reseed the GPUs.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        network = _create_pretrained(model, options) if weights == "timm" else timm.create_model(model, **options)
    backbone = Backbone(network, name=model, in_chans=in_chans, image_size_px=image_size_px)
    if image_size_px is not None and image_size_px % backbone.multiple_px:
        raise ConfigError(
            f"backbone.image_size_px={image_size_px}: {model} needs a multiple of {backbone.multiple_px} px"
        )
    if weights is not None and weights != "timm":
        backbone.weights = load_weights(network, weights, name=model, allow_missing=allow_missing)
    return backbone


def _create_pretrained(model: str, options: dict[str, Any]) -> nn.Module:
    config = timm.get_pretrained_cfg(model)
    if config is None or not config.has_weights:
        raise ConfigError(f"backbone.weights=timm: timm has no weights for {model}; choose another backbone.model")
    try:
        return timm.create_model(model, pretrained=True, **options)
    except OSError as error:
        raise InputError(
            f"backbone.weights=timm: the weights of {model} could not be downloaded from huggingface.co (no network?); "
            f"run once where there is a network and copy its HF_HOME folder, give a file with backbone.weights=PATH, "
            f"or start from random weights with backbone.weights=null ({type(error).__name__})"
        ) from error


def _native_size(model: str) -> tuple[int, bool]:
    """Return the native side in px and whether the network is built for one size."""
    config = timm.get_pretrained_cfg(model)
    if config is None:
        return 224, False
    return int(config.input_size[-1]), bool(config.fixed_input_size)


def _size_options(model: str, image_size_px: int | None) -> dict[str, Any]:
    native_px, fixed = _native_size(model)
    if not fixed:
        return {}
    if model.startswith("swin"):  # other sizes cost a mask per forward pass, so only where they are asked for
        return {} if image_size_px in (None, native_px) else {"strict_img_size": False}
    if model.removeprefix("test_").startswith("vit"):
        return {"dynamic_img_size": True}
    return {} if image_size_px in (None, native_px) else {"img_size": image_size_px}


def _size_rule(model: Any, image_size_px: int | None) -> tuple[int, int | None]:
    """Return the number of which image sides must be a multiple, and the only side allowed (None: any)."""
    embed: Any = getattr(model, "patch_embed", None)
    if not hasattr(embed, "patch_size"):
        return 1, None
    native_px = embed.img_size[0] if getattr(embed, "img_size", None) else image_size_px
    strict = bool(getattr(embed, "strict_img_size", False))
    return int(embed.patch_size[0]), native_px if strict else None


def _map_indices(strides: list[int]) -> list[int]:
    """Choose maps: the last of each stride from 4 on, or blocks at equal distances where all strides are equal."""
    if len(set(strides)) == 1:
        depth = len(strides)
        return sorted({round((i + 1) * depth / MAPS) - 1 for i in range(MAPS)} - {-1})
    last = {stride: i for i, stride in enumerate(strides)}
    return sorted(i for stride, i in last.items() if stride >= 4)[-MAPS:]
