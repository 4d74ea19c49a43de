"""Read and write the weights of a backbone, and say which tensors did not fit."""

import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from skyloom.errors import InputError

log = logging.getLogger(__name__)

PREFIX = "backbone."  # of the network inside a Lightning checkpoint, here and in solo-learn
WRAPPER = "model."  # of timm's network inside our Backbone
FOLDER_FILES = ("model.safetensors", "last.ckpt", "checkpoints/last.ckpt")


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
    """

    path: Path
    loaded: int
    missing: tuple[str, ...]
    skipped: tuple[str, ...]


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
    those of solo-learn, whose torchvision ResNets carry timm's names) and plain state dicts; a folder stands for the
    ``model.safetensors`` or ``last.ckpt`` in it. Nothing in a file is executed (``weights_only=True``).

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
    file = _find(Path(path))
    tensors, facts = _read(file)
    label = name or type(network).__name__
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    expected = network.state_dict()
    found_name = facts.get("model")
    if name and found_name and found_name.split(".")[0] != name.split(".")[0] and not allow_missing:
        raise InputError(f"{file} holds weights of {found_name}, expected {name}; set backbone.model={found_name}")

    usable = {key: value for key, value in tensors.items() if key in expected and value.shape == expected[key].shape}
    if not usable:
        raise InputError(f"{file}: none of its {len(tensors)} tensors fits {label}; check backbone.model")
    missing = [key for key in expected if key not in usable]
    skipped = [key for key in tensors if key not in usable]
    if not allow_missing:
        _refuse_channels(file, label, tensors, expected, _layers(config, "first_conv"))
        lacking = [key for key in missing if not key.startswith(_layers(config, "first_conv"))]
        foreign = [key for key in skipped if key not in expected and not key.startswith(_layers(config, "classifier"))]
        if lacking or foreign:
            raise InputError(
                f"{file} does not fit {label}: {len(lacking)} of {len(expected)} tensors are missing or of another "
                f"shape and {len(foreign)} have no place ({_some(lacking + foreign)}); choose the backbone.model that "
                "the file was made with, or set backbone.allow_missing=true to leave them at their initial values"
            )
    network.load_state_dict(usable, strict=False)
    report = LoadReport(file, len(usable), tuple(missing), tuple(skipped))
    log.info("%s: %d of %d tensors of %s loaded", file, len(usable), len(expected), label)
    if missing:
        log.warning("%s: kept at their initial values: %s", file, ", ".join(missing))
    if skipped:
        log.warning("%s: in the file but not used: %s", file, ", ".join(skipped))
    return report


def _refuse_channels(
    file: Path, label: str, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], first: tuple[str, ...]
) -> None:
    """Refuse a file whose input layer has other channels: a silently redrawn one would spoil every feature."""
    for key, value in tensors.items():
        mine = expected.get(key)
        if mine is None or value.ndim != 4 or not key.startswith(first) or value.shape[1] == mine.shape[1]:
            continue
        raise InputError(
            f"{file} was made for {value.shape[1]} input channel(s), but {label} was asked for with {mine.shape[1]}; "
            f"set backbone.in_chans={value.shape[1]}, or backbone.allow_missing=true to start {key} from random values"
        )


def _layers(config: Any, key: str) -> tuple[str, ...]:
    """Return the name or names that timm's configuration gives for a layer, as prefixes."""
    value = config.get(key) or ()
    names = (value,) if isinstance(value, str) else tuple(value)
    return tuple(f"{name}." for name in names)


def _find(path: Path) -> Path:
    if path.is_dir():
        for name in FOLDER_FILES:
            if (path / name).is_file():
                return path / name
        raise InputError(f"{path}: a folder without any of {', '.join(FOLDER_FILES)}; give the weight file itself")
    if not path.is_file():
        raise InputError(
            f"backbone.weights={path}: no such file; expected null, timm, a .safetensors or .ckpt file, or an artifact"
        )
    return path


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as opened:
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
                facts = dict(opened.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file}: not a whole safetensors file ({_line(error)}); fetch or write it again"
            ) from error
        return _strip(file, tensors), facts
    return _strip(file, _read_pickle(file)), {}


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(file):
            culprit = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f" ({culprit.group(1)})" if culprit else ""
            raise InputError(
                f"{file}: holds Python objects besides tensors{what}, and loading those could run any code; where you "
                "trust the file, save torch.load(file, weights_only=False)['state_dict'] with torch.save, and use that"
            ) from error
        raise InputError(f"{file}: not a whole torch checkpoint ({_line(error)}); fetch or write it again") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{file}: expected a Lightning checkpoint with 'state_dict' or a dict of tensors")
    return state


def _strip(file: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep the backbone of a whole model, and drop the prefixes before timm's names."""
    inside = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
    if inside and len(inside) < len(tensors):
        log.info("%s: %d tensors outside '%s' were left alone", file, len(tensors) - len(inside), PREFIX)
    tensors = inside or tensors
    if all(key.startswith(WRAPPER) for key in tensors):
        tensors = {key.removeprefix(WRAPPER): value for key, value in tensors.items()}
    return tensors


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
