"""DINOv2 folders of Hugging Face: their tensors under timm's names, and whether the network is theirs."""

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skyloom.errors import InputError

log = logging.getLogger(__name__)

CONFIG = "config.json"
TYPES = ("dinov2", "dinov2_with_registers")
MARK = "embeddings.patch_embeddings.projection.weight"
HEADS = ("classifier.", "embeddings.mask_token")  # of no use for features

BLOCK = {  # within encoder.layer.N
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
}
OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
QKV = re.compile(r"attention\.attention\.(query|key|value)\.(weight|bias)")


def is_hf_dinov2(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors carry the names of transformers' Dinov2Model, or of a model around one."""
    return any(key.endswith(MARK) for key in tensors)


def to_timm(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of a Dinov2Model timm's names.

    Query, key and value are stacked to one projection. With registers, timm adds no position to the class token, so
    that of Hugging Face is added to the token itself, which is the same sum.

    Raises
    ------
    InputError
        A tensor has no counterpart.
    """
    prefix = next(key for key in tensors if key.endswith(MARK)).removesuffix(MARK)
    found: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    position: Tensor | None = None
    for full, value in tensors.items():
        key = full.removeprefix(prefix)
        if full.startswith(HEADS) or key.startswith(HEADS):
            continue
        layer = LAYER.fullmatch(key)
        if key == "embeddings.position_embeddings":
            position = value
        elif key in OUTSIDE:
            found[OUTSIDE[key]] = value
        elif layer and (qkv := QKV.fullmatch(layer[2])):
            parts.setdefault((layer[1], qkv[2]), {})[qkv[1]] = value
        elif layer and (name := _block_name(layer[2])):
            found[f"blocks.{layer[1]}.{name}"] = value
        else:
            raise InputError(f"{file}: '{full}' is not a tensor of a DINOv2 of Hugging Face; expected a Dinov2Model")
    for (number, kind), three in parts.items():
        if len(three) != 3:
            raise InputError(f"{file}: layer {number} has only {', '.join(sorted(three))} of query, key and value")
        found[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat([three[name] for name in ("query", "key", "value")])
    if position is None or "cls_token" not in found:
        raise InputError(f"{file}: no position embedding or class token; expected a whole Dinov2Model")
    if "reg_token" in found:
        found["cls_token"] = found["cls_token"] + position[:, :1]
        position = position[:, 1:]
    found["pos_embed"] = position
    return found


def check_config(file: Path, network: nn.Module) -> None:
    """Compare ``config.json`` beside the weights with the network, where tensors of equal shapes would not tell.

    Raises
    ------
    InputError
        The folder holds another network; the message names timm's.
    """
    source = file.with_name(CONFIG)
    if not source.exists():
        log.warning("%s: no %s beside it, so the number of attention heads could not be compared", file, CONFIG)
        return
    try:
        config: dict[str, Any] = json.loads(source.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{source} cannot be read ({error}); fetch the folder again") from error
    kind = config.get("model_type")
    if kind not in TYPES:
        raise InputError(f"{source}: model_type is {kind}, expected one of {', '.join(TYPES)}")
    inner: Any = network
    mine = {
        "hidden_size": int(inner.embed_dim),
        "num_hidden_layers": len(inner.blocks),
        "num_attention_heads": int(inner.blocks[0].attn.num_heads),
        "patch_size": int(inner.patch_embed.patch_size[0]),
        "layer_norm_eps": float(inner.norm.eps),
    }
    theirs = {key: config.get(key, value) for key, value in mine.items()}
    registers = 0 if kind == "dinov2" else int(config.get("num_register_tokens", 4))
    mine["num_register_tokens"], theirs["num_register_tokens"] = int(inner.num_reg_tokens), registers
    differing = [key for key in mine if not math.isclose(mine[key], theirs[key], rel_tol=1e-6)]
    if differing:
        told = ", ".join(f"{key} {theirs[key]} (this network: {mine[key]})" for key in differing)
        letter = {384: "small", 768: "base", 1024: "large", 1536: "giant"}.get(int(theirs["hidden_size"]))
        right = f"vit_{letter}_patch14_{'reg4_' if registers else ''}dinov2.lvd142m"
        hint = f"set backbone.model={right}" if letter and theirs["patch_size"] == 14 else "no network of timm fits"
        raise InputError(f"{source}: {told}; {hint}")


def _block_name(name: str) -> str | None:
    if name in BLOCK:
        return BLOCK[name]
    stem, _, leaf = name.rpartition(".")
    return f"{BLOCK[stem]}.{leaf}" if stem in BLOCK and leaf in ("weight", "bias") else None
