"""The names under which this project's R-CNNs and detectron2 keep the same weights."""

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from skyloom.detector.rcnn import Rcnn
from skyloom.errors import InputError

NORMS = {"0": "", "1": ".norm"}  # place of a convolution and of its normalisation in a block of torchvision
FIRST_LEVEL = 2  # detectron2 numbers the maps of a pyramid by the logarithm of their stride
SWIN = "backbone.bottom_up"

Renamed = Callable[[re.Match[str], set[str]], str]


def correspondence(detector: nn.Module) -> dict[str, str]:
    """Return detectron2's name of each weight of a detector.

    Parameters
    ----------
    detector
        A :class:`skyloom.detector.rcnn.Rcnn`, or anything with detectron2's own names, which keep.

    Returns
    -------
    dict
        By this detector's name. What has no counterpart is left out: ``mean`` and ``std``, a ResNet or a plain
        transformer of timm, and the simple pyramid.
    """
    keys = set(detector.state_dict())
    if not isinstance(detector, Rcnn):
        return {key: key for key in keys if key.startswith(("backbone.", "proposal_generator.", "roi_heads."))}
    found = {key: _renamed(key, keys) for key in sorted(keys)}
    return {key: name for key, name in found.items() if name is not None}


def to_detectron2(detector: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a detector under detectron2's names, as :meth:`torch.nn.Module.load_state_dict` takes them.

    They share their memory with the detector. Tables that detectron2 computes itself
    (``relative_position_index``) are not among them.
    """
    state = detector.state_dict()
    return {name: state[key] for key, name in correspondence(detector).items()}


def from_detectron2(detector: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those of detectron2's weights that a detector has a place for, under the detector's names.

    Raises
    ------
    InputError
        There is none.
    """
    found = {key: tensors[name] for key, name in correspondence(detector).items() if name in tensors}
    if not found:
        raise InputError(
            f"expected weights under detectron2's names (backbone.bottom_up..., roi_heads...), found "
            f"{', '.join(list(tensors)[:3]) or 'none'}; none of them fits {type(detector).__name__}"
        )
    return found


def _renamed(key: str, keys: set[str]) -> str | None:
    for pattern, rename in RULES:
        match = re.fullmatch(pattern, key)
        if match:
            return rename(match, keys)
    return None


def _downsample(match: re.Match[str], keys: set[str]) -> str:
    return f"{SWIN}.layers.{int(match[1]) - 1}.downsample.{match[2]}"


def _pyramid(match: re.Match[str], keys: set[str]) -> str:
    kind = {"inner": "lateral", "layer": "output"}[match[1]]
    return f"backbone.fpn_{kind}{int(match[2]) + FIRST_LEVEL}{NORMS[match[3]]}.{match[4]}"


def _rpn_conv(match: re.Match[str], keys: set[str]) -> str:
    several = "rpn.head.conv.1.0.weight" in keys
    return f"proposal_generator.rpn_head.conv{f'.conv{match[1]}' if several else ''}.{match[2]}"


def _stage(number: str, keys: Iterable[str]) -> str:
    """The number of a stage, which detectron2 gives only where there are several."""
    return f".{number}" if any(key.startswith("box.predictors.1.") for key in keys) else ""


def _box_conv(match: re.Match[str], keys: set[str]) -> str:
    return f"roi_heads.box_head{_stage(match[1], keys)}.conv{int(match[2]) + 1}{NORMS[match[3]]}.{match[4]}"


def _box_dense(match: re.Match[str], keys: set[str]) -> str:
    dense = re.compile(rf"box\.heads\.{match[1]}\.(\d+)\.weight")
    places = sorted(int(found[1]) for found in map(dense.fullmatch, keys) if found)
    return f"roi_heads.box_head{_stage(match[1], keys)}.fc{places.index(int(match[2])) + 1}.{match[3]}"


def _predictor(match: re.Match[str], keys: set[str]) -> str:
    return f"roi_heads.box_predictor{_stage(match[1], keys)}.{match[2]}"


def _mask_conv(match: re.Match[str], keys: set[str]) -> str:
    return f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}{NORMS[match[2]]}.{match[3]}"


def _centroid_conv(match: re.Match[str], keys: set[str]) -> str:
    return f"roi_heads.keypoint_head.conv_fcn{int(match[1]) // 2 + 1}.{match[2]}"  # every second layer is a ReLU


def _fixed(name: str) -> Renamed:
    return lambda match, keys: match.expand(name)


RULES: tuple[tuple[str, Renamed], ...] = (
    (r"backbone\.model\.(patch_embed\..+)", _fixed(rf"{SWIN}.\1")),
    (r"backbone\.model\.(layers\.\d+\.blocks\..+)", _fixed(rf"{SWIN}.\1")),
    (r"backbone\.model\.layers\.(\d+)\.downsample\.(.+)", _downsample),
    (r"backbone\.model\.norm\.(.+)", _fixed(rf"{SWIN}.norm3.\1")),
    (r"pyramid\.map_norms\.(\d)\.(.+)", _fixed(rf"{SWIN}.norm\1.\2")),
    (r"pyramid\.fpn\.(inner|layer)_blocks\.(\d)\.([01])\.(.+)", _pyramid),
    (r"rpn\.head\.conv\.(\d+)\.0\.(.+)", _rpn_conv),
    (r"rpn\.head\.cls_logits\.(.+)", _fixed(r"proposal_generator.rpn_head.objectness_logits.\1")),
    (r"rpn\.head\.bbox_pred\.(.+)", _fixed(r"proposal_generator.rpn_head.anchor_deltas.\1")),
    (r"box\.heads\.(\d+)\.(\d+)\.([01])\.(.+)", _box_conv),
    (r"box\.heads\.(\d+)\.(\d+)\.(weight|bias)", _box_dense),
    (r"box\.predictors\.(\d+)\.(.+)", _predictor),
    (r"mask\.head\.(\d+)\.([01])\.(.+)", _mask_conv),
    (r"mask\.predictor\.conv5_mask\.(.+)", _fixed(r"roi_heads.mask_head.deconv.\1")),
    (r"mask\.predictor\.mask_fcn_logits\.(.+)", _fixed(r"roi_heads.mask_head.predictor.\1")),
    (r"centroid\.head\.(\d+)\.(.+)", _centroid_conv),
    (r"centroid\.predictor\.kps_score_lowres\.(.+)", _fixed(r"roi_heads.keypoint_head.score_lowres.\1")),
)
