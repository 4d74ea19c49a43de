"""Read detectron2's checkpoint files, `.pkl` of numpy arrays and `.pth` of torch, and never run what is in them."""

import collections
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from skyloom.errors import InputError

ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")  # pickles of protocol 5
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{(module, "_reconstruct"): np._core.multiarray._reconstruct for module in ARRAY_MODULES},  # type: ignore[attr-defined]
    **{(module, "scalar"): np._core.multiarray.scalar for module in ARRAY_MODULES},  # type: ignore[attr-defined]
    **{(module, "_frombuffer"): np._core.numeric._frombuffer for module in BUFFER_MODULES},  # type: ignore[attr-defined]
}
NOT_WEIGHTS = ("anchor_generator.cell_anchors", "relative_position_index", "num_batches_tracked", "attn_mask")


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Return the weights in a file of detectron2 or of a program that trains with it.

    Parameters
    ----------
    file
        ``.pkl`` (detectron2's model zoo and its ViTDet project: arrays under ``model``) or a file of ``torch.save``
        (``.pth``: tensors under ``model``, ``state_dict`` or at the top).

    Returns
    -------
    dict
        By name. Tables that networks compute themselves and the normalisation (``pixel_mean``) are left out, the
        prefix ``module.`` of parallel training is taken off, and the names of a network alone get the place that it
        has in a detector, ``backbone.bottom_up``.

    Raises
    ------
    InputError
        There is no such file; it is damaged, holds anything but arrays, or no weights.
    """
    if not file.is_file():
        raise InputError(f"detector.weights={file}: no such file; expected a .pkl or .pth of detectron2")
    content: Any = _numpy_pickle(file) if _is_plain_pickle(file) else _torch_file(file)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or "blobs" in content:
        raise InputError(f"{file}: expected weights by name under 'model', found a file of another layout (Caffe2?)")
    found = {str(key).removeprefix("module."): _tensor(value) for key, value in content.items()}
    tensors = {key: value for key, value in found.items() if value is not None and not _computed(key)}
    if not tensors:
        raise InputError(f"{file}: holds no weights; expected arrays or tensors by name under 'model'")
    if not any(key.startswith(("backbone.", "proposal_generator.", "roi_heads.")) for key in tensors):
        tensors = {f"backbone.bottom_up.{key}": value for key, value in tensors.items()}
    return tensors


class _Arrays(pickle.Unpickler):
    """Makes arrays and plain containers, and nothing else: a pickle is a program."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return ALLOWED[module, name]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes the bytes of an array into the pickles of Python 2."""
    return text.encode("latin1")


def _numpy_pickle(file: Path) -> Any:
    opened: BinaryIO
    try:
        with file.open("rb") as opened:
            return _Arrays(opened, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        words = str(error).split()
        if len(words) == 1 and "." in words[0]:
            raise InputError(
                f"{file}: holds {words[0]}, expected arrays only; such a file can run any code when it is read and is "
                "not opened; fetch it from detectron2's model zoo, or save its weights as .safetensors or with numpy"
            ) from error
        raise InputError(f"{file}: not a whole pickle ({str(error)[:80]}); fetch it again") from error
    except (EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, UnicodeError) as error:
        raise InputError(f"{file}: not a whole pickle of arrays ({str(error)[:80]}); fetch it again") from error


def _torch_file(file: Path) -> Any:
    scalars = [np.dtype, np.ndarray, np._core.multiarray._reconstruct, np._core.multiarray.scalar]  # type: ignore[attr-defined]
    scalars += [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")]
    try:
        with torch.serialization.safe_globals(scalars):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{file}: not a whole torch file of tensors and numbers ({line[:100]}); fetch or write it again with "
            "torch.save({'model': model.state_dict()}, ...)"
        ) from error


def _is_plain_pickle(file: Path) -> bool:
    """Whether a file is a pickle that torch did not write; torch's old format begins with a number of its own."""
    if zipfile.is_zipfile(file):
        return False
    with file.open("rb") as opened:
        start = opened.read(16)
    return torch.serialization.MAGIC_NUMBER.to_bytes(10, "little") not in start


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.ascontiguousarray(value))
    return value if isinstance(value, Tensor) else None


def _computed(key: str) -> bool:
    return key in ("pixel_mean", "pixel_std") or any(word in key for word in NOT_WEIGHTS)
