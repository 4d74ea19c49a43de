"""Start a detector from a checkpoint of detectron2, and say what was not taken from it."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from skyloom.detector.convert import correspondence
from skyloom.detector.unpickle import read_checkpoint
from skyloom.errors import ConfigError, InputError
from skyloom.store import Store, fingerprint

log = logging.getLogger(__name__)

# What may stay random: layers that know the number of channels or of classes, and the centroids, which COCO has not.
EXPECTED_TO_DIFFER = ("patch_embed.proj.", "stem.conv1.", ".cls_score.", ".bbox_pred.", "mask_head.predictor.")
EXPECTED_TO_LACK = ("roi_heads.keypoint_head.",)


@dataclass(frozen=True)
class CheckpointReport:
    """What became of a checkpoint; the names are detectron2's.

    Attributes
    ----------
    path : Path
        The file.
    loaded : int
        Weights taken from it.
    reshaped : tuple of str
        Weights of another shape in the file, each with both shapes; the detector's keep their random values.
    missing : tuple of str
        Weights of the detector that the file lacks; they keep their random values.
    skipped : tuple of str
        Weights in the file that the detector has no place for.
    """

    path: Path
    loaded: int
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]
    skipped: tuple[str, ...]

    def lines(self) -> list[str]:
        """Say it in sentences, one for each list that is not empty."""
        lists = {
            "of another shape, left at random values": self.reshaped,
            "not in the file, left at random values": self.missing,
            "in the file but not used": self.skipped,
        }
        return [f"{self.path.name}: {len(names)} {what}: {', '.join(names)}" for what, names in lists.items() if names]


def load_checkpoint(detector: nn.Module, path: str | Path, *, allow_missing: bool = False) -> CheckpointReport:
    """Load weights of detectron2 into a detector.

    Parameters
    ----------
    detector
        ``detectron2``, ``cascade_mask_rcnn`` or ``mask_rcnn`` with a Swin; for the latter names are translated.
    path
        As :func:`skyloom.detector.unpickle.read_checkpoint` takes it. The number of classes and of channels may differ.
    allow_missing
        Also accept a file that lacks more than the layers that depend on those two and the centroids, for example one
        of a network without a detector.

    Returns
    -------
    CheckpointReport
        Its lines are also logged as warnings.

    Raises
    ------
    InputError
        The file cannot be read, fits nothing, or lacks more than it may.
    """
    file = Path(path)
    tensors, names = read_checkpoint(file), correspondence(detector)
    expected = {names[key]: value for key, value in detector.state_dict().items() if key in names and not _table(key)}
    usable = {name: value for name, value in tensors.items() if name in expected and _fits(value, expected[name])}
    reshaped = {name: value for name, value in tensors.items() if name in expected and name not in usable}
    missing = [name for name in expected if name not in tensors]
    if not usable:
        raise InputError(
            f"{file}: none of its {len(tensors)} weights ({_some(tensors)}) fits {type(detector).__name__}; expected a "
            "checkpoint of detectron2 with the same network"
        )
    if not allow_missing:
        _refuse(file, reshaped, missing, expected)
    keys = {name: key for key, name in names.items()}
    detector.load_state_dict({keys[name]: value for name, value in usable.items()}, strict=False)
    report = CheckpointReport(
        path=file,
        loaded=len(usable),
        reshaped=tuple(f"{k} {tuple(v.shape)} for {tuple(expected[k].shape)}" for k, v in sorted(reshaped.items())),
        missing=tuple(sorted(missing)),
        skipped=tuple(sorted(name for name in tensors if name not in expected)),
    )
    log.info("%s: %d of %d weights loaded", file, report.loaded, len(expected))
    for line in report.lines():
        log.warning("%s", line)
    return report


@dataclass(frozen=True)
class Checkpoint:
    """The file that a detector starts from, or none.

    Attributes
    ----------
    file
        As :func:`load_checkpoint` takes it; None: the detector starts as it was built.
    allow_missing
        As there.
    """

    file: Path | None
    allow_missing: bool

    def identity(self) -> dict[str, str] | None:
        """Name and fingerprint of the file."""
        return None if self.file is None else {"file": self.file.name, "fingerprint": fingerprint(self.file)}

    def fill(self, detector: nn.Module) -> CheckpointReport | None:
        """Load the file, if there is one."""
        return None if self.file is None else load_checkpoint(detector, self.file, allow_missing=self.allow_missing)


def open_checkpoint(value: Any, parameters: Mapping[str, Any], store: Store) -> Checkpoint:
    """Resolver of the input ``checkpoint``: a mapping of ``file``, a path or null, and ``allow_missing``.

    Raises
    ------
    ConfigError
        It is another mapping.
    InputError
        There is no such file.
    """
    if not isinstance(value, Mapping) or set(value) != {"file", "allow_missing"}:
        raise ConfigError(f"checkpoint={value!r}: expected {{file: PATH, allow_missing: false}}")
    file = None if value["file"] is None else Path(str(value["file"])).expanduser().absolute()
    if file is not None and not file.is_file():
        raise InputError(f"checkpoint.file={file}: no such file; give a .pkl or .pth of detectron2, or null")
    return Checkpoint(file, bool(value["allow_missing"]))


def _refuse(file: Path, reshaped: Mapping[str, Tensor], missing: list[str], expected: Mapping[str, Tensor]) -> None:
    wrong = [name for name in reshaped if not any(word in name for word in EXPECTED_TO_DIFFER)]
    lacking = [name for name in missing if not name.startswith(EXPECTED_TO_LACK)]
    if wrong or lacking:
        raise InputError(
            f"{file}: {len(wrong)} of {len(expected)} weights have another shape and {len(lacking)} are missing "
            f"({_some(wrong + lacking)}); choose the network and the heads that it was trained with, or allow what is "
            "missing to stay random"
        )


def _table(key: str) -> bool:
    return key.endswith(("relative_position_index", "num_batches_tracked"))


def _fits(value: Tensor, mine: Tensor) -> bool:
    return value.shape == mine.shape


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
