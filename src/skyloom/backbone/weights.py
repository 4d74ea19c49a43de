"""Read and write the weights of a backbone, and say which tensors did not fit."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from skyloom.backbone.hf_dinov2 import check_config, is_hf_dinov2, to_timm
from skyloom.backbone.read_weights import find_file, read_tensors
from skyloom.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """What became of a weight file.

    Attributes
    ----------
    path : Path
        The file that was read.
    loaded : int
        Tensors taken from it.
    missing : tuple of str
        Tensors of the network that keep their initial values.
    skipped : tuple of str
        Tensors of the backbone in the file that the network has no place for.
    adapted : tuple of str
        Tensors that were summed over the colours to fit one input channel.
    """

    path: Path
    loaded: int
    missing: tuple[str, ...]
    skipped: tuple[str, ...]
    adapted: tuple[str, ...] = ()


def save_weights(backbone: nn.Module, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write the timm network inside ``backbone`` (a :class:`skyloom.backbone.Backbone`) as safetensors.

    The keys are timm's own; ``model`` and ``in_chans`` are in the file's metadata, beside ``metadata``.
    """
    inner: Any = backbone
    tensors = {key: value.detach().cpu().contiguous() for key, value in inner.model.state_dict().items()}
    facts = {"model": str(inner.name), "in_chans": str(inner.in_chans), "format": "pt", **(metadata or {})}
    save_file(tensors, str(path), metadata=facts)


def load_weights(
    network: nn.Module, path: str | Path, *, name: str | None = None, allow_missing: bool = False
) -> LoadReport:
    """Load a file into a timm network.

    Reads safetensors (ours, or with timm's keys), Lightning checkpoints (the tensors under ``backbone.``, also
    those of solo-learn, whose torchvision ResNets carry timm's names), DINOv2 folders of Hugging Face and plain
    state dicts; a folder stands for the ``model.safetensors``, ``pytorch_model.bin`` or ``last.ckpt`` in it. Nothing
    in a file is executed (``weights_only=True``).

    A file for several input channels fits a network with one: its filters are summed over the channels, which is what
    the network would see if the one channel were repeated. A position embedding of another grid is kept as it is, and
    the network resamples it (bicubic) to the images it sees.

    Parameters
    ----------
    network
        The timm network, without a classifier.
    path
        File or folder.
    name
        The timm name of the network, for messages and to compare with the file's own word.
    allow_missing
        Also accept a file in which more than the input layer is missing, of another shape, or of no use.

    Returns
    -------
    LoadReport
        The tensors that were missing or skipped are also logged as a warning.

    Raises
    ------
    InputError
        The file is absent, damaged, unsafe, of another architecture, or of another number of channels.
    """
    file = find_file(Path(path))
    tensors, facts = read_tensors(file)
    label = name or type(network).__name__
    if is_hf_dinov2(tensors):
        if not hasattr(network, "blocks") or not hasattr(network, "num_reg_tokens"):
            raise InputError(
                f"{file} holds a DINOv2 of Hugging Face, which does not fit {label}; use backbone=dinov2_hf"
            )
        check_config(file, network)
        tensors = to_timm(file, tensors)
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    expected = network.state_dict()
    found_name = facts.get("model")
    if name and found_name and found_name.split(".")[0] != name.split(".")[0] and not allow_missing:
        raise InputError(f"{file} holds weights of {found_name}, expected {name}; set backbone.model={found_name}")

    first = _layers(config, "first_conv")
    adapted = _sum_channels(tensors, expected, first)
    keep_grid(network, tensors)
    expected = network.state_dict()
    usable = {key: value for key, value in tensors.items() if key in expected and value.shape == expected[key].shape}
    if not usable:
        raise InputError(f"{file}: none of its {len(tensors)} tensors fits {label}; check backbone.model")
    missing = [key for key in expected if key not in usable]
    skipped = [key for key in tensors if key not in usable]
    if not allow_missing:
        _refuse_input_layer(file, label, tensors, expected, first)
        lacking = [key for key in missing if not key.startswith(first)]
        foreign = [key for key in skipped if key not in expected and not key.startswith(_layers(config, "classifier"))]
        if lacking or foreign:
            raise InputError(
                f"{file} does not fit {label}: {len(lacking)} of {len(expected)} tensors are missing or of another "
                f"shape and {len(foreign)} have no place ({_some(lacking + foreign)}); choose the backbone.model that "
                "the file was made with, or set backbone.allow_missing=true to leave them at their initial values"
            )
    network.load_state_dict(usable, strict=False)
    report = LoadReport(file, len(usable), tuple(missing), tuple(skipped), tuple(adapted))
    log.info("%s: %d of %d tensors of %s loaded", file, len(usable), len(expected), label)
    for key in adapted:
        log.warning("%s: %s was made for several channels and is summed over them for one", file, key)
    if missing:
        log.warning("%s: kept at their initial values: %s", file, ", ".join(missing))
    if skipped:
        log.warning("%s: in the file but not used: %s", file, ", ".join(skipped))
    return report


def _sum_channels(tensors: dict[str, Tensor], expected: Mapping[str, Tensor], first: tuple[str, ...]) -> list[str]:
    """Sum the input layer of a file over its channels where the network has one, in place; return what was summed."""
    summed = []
    for key in tensors:
        mine, value = expected.get(key), tensors[key]
        if mine is None or not key.startswith(first) or value.ndim != 4 or value.shape == mine.shape:
            continue
        if mine.shape[1] == 1 and value.sum(1, keepdim=True).shape == mine.shape:
            tensors[key] = value.double().sum(1, keepdim=True).to(value.dtype)
            summed.append(key)
    return summed


def keep_grid(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a transformer the grid of positions that a file was made with, if it can adapt to its images itself."""
    inner: Any = network
    value, mine = tensors.get("pos_embed"), getattr(network, "pos_embed", None)
    if value is None or mine is None or value.ndim != 3 or value.shape[2] != mine.shape[2] or value.shape == mine.shape:
        return
    prefix = 0 if inner.no_embed_class else inner.num_prefix_tokens
    side = math.isqrt(max(value.shape[1] - prefix, 0))
    if getattr(network, "dynamic_img_size", False) and side > 0 and side * side == value.shape[1] - prefix:
        patch_px = int(inner.patch_embed.patch_size[0])
        inner.set_input_size((side * patch_px, side * patch_px))


def _refuse_input_layer(
    file: Path, label: str, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], first: tuple[str, ...]
) -> None:
    """Refuse a file with an input layer of another shape: a silently redrawn one would spoil every feature."""
    for key, value in tensors.items():
        mine = expected.get(key)
        if mine is None or value.ndim != 4 or not key.startswith(first) or value.shape == mine.shape:
            continue
        if value.shape[1] == mine.shape[1]:
            raise InputError(
                f"{file}: {key} has the shape {tuple(value.shape)}, but that of {label} is {tuple(mine.shape)} (a "
                f"variant for tiny images?); set backbone.allow_missing=true to start {key} from random values"
            )
        raise InputError(
            f"{file} was made for {value.shape[1]} input channel(s), but {label} was asked for with {mine.shape[1]}; "
            f"set backbone.in_chans={value.shape[1]}, or backbone.allow_missing=true to start {key} from random values"
        )


def _layers(config: Any, key: str) -> tuple[str, ...]:
    """Return the name or names that timm's configuration gives for a layer, as prefixes."""
    value = config.get(key) or ()
    names = (value,) if isinstance(value, str) else tuple(value)
    return tuple(f"{name}." for name in names)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
