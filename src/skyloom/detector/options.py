"""Options of the R-CNN detectors, by part of the network; the values stand in ``conf/detector``."""

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Share = Annotated[float, Field(ge=0, le=1)]
Norm = Literal["layer", "batch", "none"]


class Options(BaseModel):
    """A mapping of options in a YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PyramidOptions(Options):
    """From the maps of a backbone to maps of one width."""

    channels: PositiveInt
    norm: Norm
    map_norm: Literal["auto", "none"]
    pad_to_px: PositiveInt | None
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None
    checkpointing: bool


class RpnOptions(Options):
    """The proposal of boxes from anchors."""

    anchor_sizes_px: list[PositiveFloat]
    anchor_ratios: list[PositiveFloat]
    anchors_rounded: bool
    convs: PositiveInt
    positive_iou: Share
    negative_iou: Share
    samples: PositiveInt
    positive_fraction: Share
    smooth_l1_beta: NonNegativeFloat
    candidates_train: PositiveInt
    candidates_test: PositiveInt
    proposals_train: PositiveInt
    proposals_test: PositiveInt
    nms: Share

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"rpn.negative_iou={self.negative_iou} is above rpn.positive_iou={self.positive_iou}")
        if not self.anchor_sizes_px or not self.anchor_ratios:
            raise ValueError("rpn.anchor_sizes_px and rpn.anchor_ratios need at least one number each")
        return self


class RoiOptions(Options):
    """How features are read inside a box."""

    aligned: bool
    sampling_ratio: NonNegativeInt
    canonical_size_px: PositiveFloat


class BoxOptions(Options):
    """The stages that classify and refine boxes."""

    samples: PositiveInt
    positive_fraction: Share
    ious: list[Share]
    weights: list[Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]]
    class_agnostic: bool
    resolution: PositiveInt
    convs: NonNegativeInt
    channels: PositiveInt
    fc: list[PositiveInt]
    norm: Norm
    smooth_l1_beta: NonNegativeFloat

    @model_validator(mode="after")
    def _stages(self) -> Self:
        if not self.ious or len(self.ious) != len(self.weights):
            raise ValueError(
                f"box.ious has {len(self.ious)} stages and box.weights {len(self.weights)}; give one of each per stage"
            )
        if not self.fc:
            raise ValueError("box.fc is empty; give the width of at least one layer, for example [1024]")
        if len(self.ious) > 1 and not self.class_agnostic:
            raise ValueError("box.class_agnostic=false needs one stage: later stages start from one box per proposal")
        return self


class MaskOptions(Options):
    """The masks."""

    resolution: PositiveInt
    convs: PositiveInt
    channels: PositiveInt
    norm: Norm
    target_threshold: Share | None


class CentroidOptions(Options):
    """The point of each object, found on a heat map."""

    enabled: bool
    resolution: PositiveInt
    convs: PositiveInt
    channels: PositiveInt
