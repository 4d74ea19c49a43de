"""Options of Mask2Former by part; the values stand in ``conf/detector/mask2former.yaml``."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveInt, model_validator

from skyloom.detector.options import Options, Share
from skyloom.errors import unknown_choice

GROUPS = 32  # of the group normalisation in transformers' pixel decoder
Rate = Annotated[float, Field(ge=0, lt=1)]


class SwinOptions(Options):
    """A Swin transformer of four stages (Liu et al. 2021, arXiv:2103.14030)."""

    embed_dim: PositiveInt
    depths: Annotated[list[PositiveInt], Field(min_length=4, max_length=4)]
    heads: Annotated[list[PositiveInt], Field(min_length=4, max_length=4)]
    window: PositiveInt

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        for stage, heads in enumerate(self.heads):
            if self.embed_dim * 2**stage % heads:
                raise ValueError(
                    f"network.heads={self.heads}: stage {stage + 1} is {self.embed_dim * 2**stage} wide, no multiple "
                    f"of {heads}"
                )
        return self


SWINS = {  # of the published checkpoints of Mask2Former
    "swin_t": SwinOptions(embed_dim=96, depths=[2, 2, 6, 2], heads=[3, 6, 12, 24], window=7),
    "swin_s": SwinOptions(embed_dim=96, depths=[2, 2, 18, 2], heads=[3, 6, 12, 24], window=7),
    "swin_b": SwinOptions(embed_dim=128, depths=[2, 2, 18, 2], heads=[4, 8, 16, 32], window=12),
    "swin_l": SwinOptions(embed_dim=192, depths=[2, 2, 18, 2], heads=[6, 12, 24, 48], window=12),
}


def swin_of(value: Any) -> Any:
    """Numbers of a Swin by its name; a mapping stays what it is.

    Raises
    ------
    ConfigError
        There is none of this name.
    """
    if isinstance(value, str) and value not in SWINS:
        raise unknown_choice("detector.network", value, SWINS)
    return SWINS[value] if isinstance(value, str) else value


Swin = Annotated[SwinOptions, BeforeValidator(swin_of)]


class DecoderOptions(Options):
    """The pixel decoder, and the decoder of the queries."""

    channels: PositiveInt
    heads: PositiveInt
    pixel_layers: PositiveInt
    pixel_feedforward: PositiveInt
    layers: PositiveInt
    feedforward: PositiveInt
    dropout: Rate

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.channels % GROUPS or self.channels % self.heads:
            raise ValueError(
                f"decoder.channels={self.channels}: expected a multiple of {GROUPS} and of decoder.heads={self.heads}"
            )
        return self


class SetLossOptions(Options):
    """The loss of a set, and the costs by which objects are given to queries."""

    class_weight: NonNegativeFloat
    mask_weight: NonNegativeFloat
    dice_weight: NonNegativeFloat
    no_object_weight: NonNegativeFloat
    points: PositiveInt
    oversampling: Annotated[float, Field(ge=1)]
    uncertain_share: Share

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.class_weight + self.mask_weight + self.dice_weight > 0:
            raise ValueError("loss.class_weight, loss.mask_weight and loss.dice_weight are all 0: nothing to learn")
        return self
