"""Mask2Former of the package transformers: built from options alone, filled from a folder, and quiet."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
from transformers.utils import logging as spoken

from skyloom.detector.mask2former_options import DecoderOptions, SetLossOptions, SwinOptions
from skyloom.errors import InputError

log = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# What may stay random: layers that know the number of channels, of queries or of classes.
EXPECTED_TO_DIFFER = (".patch_embeddings.projection.", ".queries_embedder.", ".queries_features.", "class_predictor.")
# Numbers that follow from the options, and a normalisation that no map goes through, which published files lack.
NO_WEIGHTS = ("criterion.", ".relative_position_index", ".swin.layernorm.")


def configuration(
    *,
    in_chans: int,
    classes: int,
    queries: int,
    swin: SwinOptions,
    drop_path: float,
    decoder: DecoderOptions,
    loss: SetLossOptions,
) -> Mask2FormerConfig:
    """Say the options in the words of transformers."""
    theirs: tuple[Any, Any] = SwinConfig, Mask2FormerConfig
    backbone = theirs[0](
        num_channels=in_chans,
        embed_dim=swin.embed_dim,
        depths=list(swin.depths),
        num_heads=list(swin.heads),
        window_size=swin.window,
        drop_path_rate=drop_path,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    found: Mask2FormerConfig = theirs[1](
        backbone_config=backbone,
        num_labels=classes,
        num_queries=queries,
        feature_size=decoder.channels,
        mask_feature_size=decoder.channels,
        hidden_dim=decoder.channels,
        num_attention_heads=decoder.heads,
        encoder_layers=decoder.pixel_layers,
        encoder_feedforward_dim=decoder.pixel_feedforward,
        decoder_layers=decoder.layers + 1,  # transformers counts the guess before the first layer
        dim_feedforward=decoder.feedforward,
        dropout=decoder.dropout,
        class_weight=loss.class_weight,
        mask_weight=loss.mask_weight,
        dice_weight=loss.dice_weight,
        no_object_weight=loss.no_object_weight,
        train_num_points=loss.points,
        oversample_ratio=loss.oversampling,
        importance_sample_ratio=loss.uncertain_share,
    )
    return found


def build(config: Mask2FormerConfig, folder: str | None) -> Any:
    """Build the network, with random weights or those of a folder.

    Parameters
    ----------
    config
        Of `configuration`.
    folder
        As ``save_pretrained`` of transformers writes it; None: random weights.

    Returns
    -------
    Mask2FormerForUniversalSegmentation
        In training mode, float32. What the folder does not give is random; it is logged as a warning.

    Raises
    ------
    InputError
        The folder holds no weights, or those of another network.
    """
    with quiet():
        network: Any = Mask2FormerForUniversalSegmentation(config) if folder is None else _filled(config, folder)
    # Dropping whole layers at random, which transformers ties to drop-out, would leave weights without a gradient.
    network.model.transformer_module.decoder.layerdrop = 0.0
    # Swin ends in a normalisation that no map goes through: it cannot learn, and several processes would wait for it.
    for name, weight in network.model.pixel_level_module.encoder.named_parameters():
        if name.startswith("swin.layernorm."):
            weight.requires_grad_(False)
    return network.train()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let transformers neither warn nor draw bars; afterwards it talks as before."""
    level, bars = spoken.get_verbosity(), spoken.is_progress_bar_enabled()
    spoken.set_verbosity_error()
    if bars:
        spoken.disable_progress_bar()
    try:
        yield
    finally:
        spoken.set_verbosity(level)
        if bars:
            spoken.enable_progress_bar()


def _filled(config: Mask2FormerConfig, folder: str) -> Any:
    place = Path(folder).expanduser().absolute()
    if not any((place / name).is_file() for name in WEIGHTS):
        raise InputError(
            f"detector.weights={folder}: no folder with {' or '.join(WEIGHTS[::2])}; give a Mask2Former as "
            "save_pretrained of transformers writes it, or null"
        )
    kind: Any = Mask2FormerForUniversalSegmentation
    try:
        network, report = kind.from_pretrained(
            place,
            config=config,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:  # safetensors, pickle and transformers raise their own
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise InputError(
            f"{place}: not a whole Mask2Former of transformers ({said}); fetch or write the folder again"
        ) from error
    reshaped = {name: (old, new) for name, old, new in report["mismatched_keys"] if _is_weight(name)}
    missing = [name for name in report["missing_keys"] if _is_weight(name)]
    skipped = [name for name in report["unexpected_keys"] if _is_weight(name)]
    wrong = [name for name in reshaped if not any(part in name for part in EXPECTED_TO_DIFFER)] + missing
    if wrong:
        raise InputError(
            f"{place}: {len(wrong)} weights are missing or have another shape ({_some(wrong)}); set detector.network "
            "and detector.decoder as in its config.json"
        )
    changed = [f"{name} {tuple(old)} for {tuple(new)}" for name, (old, new) in reshaped.items()]
    for what, names in (("of another shape, left at random values", changed), ("in the folder but not used", skipped)):
        if names:
            log.warning("%s: %d weights %s: %s", place, len(names), what, ", ".join(sorted(names)))
    return network


def _is_weight(name: str) -> bool:
    return not any(part in name for part in NO_WEIGHTS)


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
