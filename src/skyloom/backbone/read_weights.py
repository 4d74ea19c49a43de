"""Find and read weight files of any kind, and never run what is in them."""

import logging
import pickle
import re
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from skyloom.errors import InputError

log = logging.getLogger(__name__)

PREFIX = "backbone."  # of the network inside a Lightning checkpoint, here and in solo-learn
DETECTOR = "detector."  # before it inside the model of a detector
WRAPPER = "model."  # of timm's network inside our Backbone
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin", "last.ckpt", "checkpoints/last.ckpt")


def find_file(path: Path) -> Path:
    """Return the weight file that a path stands for.

    Raises
    ------
    InputError
        There is none.
    """
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


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a backbone in a file, and what the file says of itself.

    Raises
    ------
    InputError
        The file is damaged, or holds objects that cannot be loaded safely.
    """
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as opened:
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
                facts = dict(opened.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file}: not a whole safetensors file ({_line(error)}); fetch or write it again"
            ) from error
        if any(key.startswith(DETECTOR) for key in tensors):
            facts.pop("model", None)  # names the detector, not its backbone
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
    if any(key.startswith(DETECTOR + PREFIX) for key in tensors):
        tensors = {key.removeprefix(DETECTOR): value for key, value in tensors.items() if key.startswith(DETECTOR)}
    inside = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
    if inside and len(inside) < len(tensors):
        log.info("%s: %d tensors outside '%s' were left alone", file, len(tensors) - len(inside), PREFIX)
    tensors = inside or tensors
    if all(key.startswith(WRAPPER) for key in tensors):
        tensors = {key.removeprefix(WRAPPER): value for key, value in tensors.items()}
    return tensors


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
